"""Questions in English with the words of other languages in them."""

from __future__ import annotations

import gzip
import json

import pytest

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.trainers.provence import switch as switching
from ctxprune.trainers.provence.switch import Dictionary, main, read_dictionary, switch
from ctxprune.types import Document

TEXT = "The ferry crossed the river at night. Mira Holt paid 40 crowns for two ferries in Ulm."
ENTRIES = {"ferry": ("Fähre",), "river": ("Fluss", "Strom"), "night": ("Nacht",), "crown": ("Krone",), "ulm": ("Ulme",)}
GERMAN = Dictionary("de", ENTRIES)


def _question(text=TEXT, answer="40 crowns", title="A ferry"):
    start = text.index(answer)
    begin = text.rfind(". ", 0, start) + 2
    gold = LabelledDocument(Document(text, title=title), True, ((start, start + len(answer)),), ((begin, len(text)),))
    return Question("q", "What did the ferries cost?", (answer,), True, (gold, LabelledDocument(Document("By night."))))


def _all(question, dictionary=GERMAN, **options):
    return next(switch([question], [dictionary], share=(1.0, 1.0), apart=0.0, **options))


def test_words_are_replaced_and_labels_move_with_them():
    made = _all(_question())
    item = made.documents[0]
    text = item.document.text
    assert "Die Fähre crossed die" in text and "Nacht." in text and "zwei" not in text
    assert [text[start:end] for start, end in item.answer_spans] == ["40 Krone"]
    assert [text[start:end] for start, end in item.relevant] == [text[text.index("Mira") :]]
    assert made.answers == ("40 Krone",)
    assert made.text == "Was hat die Fähre cost?"
    assert item.document.title == "A Fähre"
    assert made.documents[1].relevant is None


def test_a_name_is_no_word_unless_the_dictionary_writes_it_so():
    assert "in Ulm." in _all(_question()).documents[0].document.text
    named = Dictionary("de", ENTRIES, frozenset({"ulm"}))
    assert "in Ulme." in _all(_question(), named).documents[0].document.text


def test_no_blank_between_replaced_words_of_an_unspaced_language():
    japanese = Dictionary("ja", {"paper": ("紙",), "lantern": ("提灯",)})
    made = _all(_question("A paper lantern hung there. It cost 9 crowns.", "9 crowns"), japanese)
    assert "A 紙提灯 hung" in made.documents[0].document.text


def test_the_longest_phrase_with_an_entry_counts():
    made = _all(_question(), Dictionary("fi", {"night": ("yö",), "crossed the river": ("ylitti joen",)}))
    assert made.documents[0].document.text.startswith("ferry ylitti joen at yö.")


def test_documents_apart_are_in_a_language_of_their_own():
    dictionaries = [Dictionary(name, {"ferry": (name,)}) for name in ("de", "el", "es", "hi")]
    questions = [Question(str(n), "ferry", (), True, (LabelledDocument(Document("ferry")),)) for n in range(40)]
    pairs = [
        (made.text, made.documents[0].document.text)
        for made in switch(questions, dictionaries, share=(1.0, 1.0), apart=1.0)
    ]
    assert 20 <= sum(asked != told for asked, told in pairs) < 40
    assert all(
        asked == told
        for asked, told in (
            (m.text, m.documents[0].document.text) for m in switch(questions, dictionaries, share=(1.0, 1.0), apart=0.0)
        )
    )


def test_a_draw_is_the_same_for_the_same_seed_and_never_depends_on_the_others():
    alone = _all(_question(), seed=3)
    both = list(switch([_question("Ferry one. 40 crowns."), _question()], [GERMAN], share=(1.0, 1.0), apart=0, seed=3))
    assert alone == both[1]


def test_every_language_has_a_word_for_each_function_word():
    english = switching._FUNCTION_WORDS.split()
    assert {name: len(words.split()) for name, words in switching._IN_LANGUAGES.items()} == dict.fromkeys(
        switching._IN_LANGUAGES, len(english)
    )


DICTD = """
lantern /lˈantən/ <n>
1. lyhty, lamppu (vanha) [tek.]
case of translucent material
Ostmark //ˈɔst// <pn>
О́стмарк
a region

sluice gate /slˈuːs/
      shlyuz 2.
"""


def test_dictionaries_of_three_forms_are_read(tmp_path):
    packed = tmp_path / "eng-fin.dict.dz"
    packed.write_bytes(gzip.compress(DICTD.encode()))
    read = read_dictionary("fi", packed)
    assert read.entries == {"lantern": ("lyhty", "lamppu"), "ostmark": ("Остмарк",), "sluice gate": ("shlyuz",)}
    assert read.names == {"ostmark"}
    cedict = tmp_path / "cedict.txt"
    cedict.write_text("# a remark\n燈籠 灯笼 [deng1 long5] /lantern/a paper lantern/\n", encoding="utf-8")
    assert read_dictionary("zh", cedict).entries == {"lantern": ("灯笼",), "paper lantern": ("灯笼",)}
    table = tmp_path / "words.tsv"
    table.write_text("lantern\tfener, kandil\n", encoding="utf-8")
    assert read_dictionary("tr", table).entries == {"lantern": ("fener", "kandil")}


def test_a_file_without_entries_is_named(tmp_path):
    empty = tmp_path / "empty.tsv"
    empty.write_text("no entry here\n")
    with pytest.raises(InputError, match=r"empty\.tsv: no entry"):
        read_dictionary("de", empty)


def test_a_dictionary_that_cannot_be_read_is_named(tmp_path):
    torn = tmp_path / "eng-fin.dict.dz"
    torn.write_bytes(gzip.compress(DICTD.encode() * 40)[:60])
    with pytest.raises(InputError, match=r"cannot read the dictionary .*eng-fin\.dict\.dz"):
        read_dictionary("fi", torn)


def _run(tmp_path, dictionary):
    data = tmp_path / "questions.jsonl"
    row = {
        "question": "What did the ferry cost?",
        "answers": ["9 crowns"],
        "documents": [{"text": "It cost 9 crowns.", "is_gold": True, "answer_spans": [[8, 16]]}],
    }
    data.write_text(json.dumps(row) + "\n")
    out = tmp_path / "out.jsonl"
    main(["--data", str(data), "--dictionary", dictionary, "--out", str(out), "--share", "1", "1"])
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_command_writes_rows_that_can_be_trained_on(tmp_path):
    words = tmp_path / "words.tsv"
    words.write_text("crown\tKrone\nferry\tFähre\n", encoding="utf-8")
    (row,) = _run(tmp_path, f"de={words}")
    (document,) = row["documents"]
    start, end = document["answer_spans"][0]
    assert document["text"][start:end] == "9 Krone" and row["answers"] == ["9 Krone"]


def test_a_dictionary_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"LANGUAGE=FILE with a file that exists, got 'de=none\.tsv'"):
        _run(tmp_path, "de=none.tsv")
