"""Two-hop questions composed of two single ones."""

from __future__ import annotations

import json

import pytest

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.trainers.provence.compose import compose, main, noun_phrase
from ctxprune.types import Document


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("Who painted the ceiling of Orlo Hall?", "the one who painted the ceiling of Orlo Hall"),
        ("What island lies off Cape Derren?", None),
        ("Which city hosted the 1954 regatta?", "the city that hosted the 1954 regatta"),
        ("What is the capital of Ostmark?", "the capital of Ostmark"),
        ("What was the name of the first ferry?", "the first ferry"),
        ("Which lake did Mira Holt swim across?", "the lake that Mira Holt did swim across"),
        ("What is often held on market days?", None),
        ("What did Mira Holt paint?", None),
        ("Who was Mira Holt?", None),
        ("How deep is the lake?", None),
    ],
)
def test_a_question_becomes_a_noun_phrase_where_its_shape_is_known(question, phrase):
    assert noun_phrase(question) == phrase


def _question(name, text, answer, passage, title):
    start = passage.index(answer)
    end = passage.index(".", start) + 1
    document = Document(passage, id=name, title=title)
    gold = LabelledDocument(document, True, ((start, start + len(answer)),), ((0, end),))
    return Question(name, text, (answer,), True, (gold,))


FIRST = _question(
    "a",
    "Who painted the ceiling of Orlo Hall?",
    "Mira Holt",
    "Mira Holt painted the ceiling of Orlo Hall.",
    "Orlo Hall",
)
SECOND = _question(
    "b", "Where did the Mira Holt of Dern study?", "Ulm", "She studied in Ulm. She came home late.", "Mira Holt"
)
OTHERS = [
    Document(f"The hall number {n} is painted, a place of study.", id=str(n), title=f"Hall {n}") for n in range(9)
]


def _made(questions, **options):
    return list(
        compose(questions, [item.document for each in questions for item in each.documents] + OTHERS, **options)
    )


def test_the_entity_gives_way_to_the_first_question_and_both_passages_stand_among_distractors():
    (made,) = _made([FIRST, SECOND], limit=5, distractors=3)
    assert made.text == "Where did the one who painted the ceiling of Orlo Hall of Dern study?"
    assert made.answers == ("Ulm",)
    gold = {item.document.id: item for item in made.documents if item.is_gold}
    assert set(gold) == {"a", "b"} and len(made.documents) == 5
    assert gold["a"].relevant and not gold["a"].answer_spans
    assert gold["b"].answer_spans


def test_a_distractor_holds_neither_answer():
    told = [Document("Mira Holt painted no ceiling.", id="x"), Document("The hall of Ulm is old.", id="y")]
    made = next(compose([FIRST, SECOND], [*told, *OTHERS], limit=1, distractors=4))
    assert not {"x", "y"} & {item.document.id for item in made.documents}


def test_what_the_first_passage_or_question_gives_away_makes_no_question():
    told = _question("a", FIRST.text, "Mira Holt", "Mira Holt of Ulm painted the ceiling of Orlo Hall.", "Orlo Hall")
    assert _made([told, SECOND], limit=5) == []


@pytest.mark.parametrize("text", ["What did the Mira Holt Museum buy?", "Who met the young Lady Mira Holt?"])
def test_part_of_a_longer_name_is_left_alone(text):
    second = _question("b", text, "Ulm", "She studied in Ulm.", "Mira Holt")
    assert _made([FIRST, second], limit=5) == []


def test_one_name_is_asked_for_a_few_times_only():
    seconds = [
        _question(
            str(n),
            f"In which town of the {n}th county did Mira Holt live?",
            f"Town{n}",
            f"She lived in Town{n}.",
            "Mira Holt",
        )
        for n in range(6)
    ]
    assert len(_made([FIRST, *seconds], limit=50)) == 2


def test_the_same_seed_makes_the_same_questions():
    rows = [FIRST, SECOND]
    assert _made(rows, limit=3, seed=4) == _made(rows, limit=3, seed=4)


def test_the_command_writes_rows_that_the_trainer_reads(tmp_path, capsys):
    from ctxprune.data.questions import row_from_question

    data, out = tmp_path / "single.jsonl", tmp_path / "two.jsonl"
    data.write_text("".join(json.dumps(row_from_question(each)) + "\n" for each in (FIRST, SECOND)))
    corpus = tmp_path / "more.jsonl"
    corpus.write_text("".join(json.dumps({"id": each.id, "text": each.text}) + "\n" for each in OTHERS))
    assert main(["--data", str(data), "--corpus", str(corpus), "--out", str(out), "--distractors", "2"]) == 0
    assert "1 questions of two hops, of 2 of one" in capsys.readouterr().err
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(row["documents"]) == 4


def test_no_pair_is_an_error_that_says_what_to_do(tmp_path):
    from ctxprune.data.questions import row_from_question

    data = tmp_path / "single.jsonl"
    data.write_text(json.dumps(row_from_question(SECOND)) + "\n")
    with pytest.raises(InputError, match="give more files with --data"):
        main(["--data", str(data), "--out", str(tmp_path / "two.jsonl")])
