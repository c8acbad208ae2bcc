"""The deletion teacher: chunks at sentence ends, a cache that spares calls, targets on the words of the source."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import GeneratorError, InputError
from ctxprune.text import split_words
from ctxprune.tokens import WordCounter
from ctxprune.trainers.llmlingua2 import deletion
from ctxprune.trainers.llmlingua2.deletion import chunks, deletion_prompt, distil
from ctxprune.trainers.llmlingua2.targets import WordTargets, read_targets, write_targets
from ctxprune.trainers.shared.corpora import read_texts
from ctxprune.trainers.shared.teacher import AnswerCache

TEXT = "The moon orbits mars. A planet is red. It is of cheese and of nothing else. Two moons."


class EveryOtherWord:
    """A teacher that keeps words 0, 2, 4, ... of the text; `fails_after` calls it stops."""

    name = "every other"

    def __init__(self, fails_after: int = 1000) -> None:
        self.asked: list[str] = []
        self.fails_after = fails_after

    def generate(self, prompts, *, max_new_tokens=64):
        if len(self.asked) >= self.fails_after:
            raise GeneratorError("the endpoint went away")
        self.asked += prompts
        texts = [prompt.split("Text:\n", 1)[1].split("\n\nShortened text:")[0] for prompt in prompts]
        return [" ".join(text.split()[::2]) for text in texts]


@given(st.text(alphabet="ab. \n月", max_size=120), st.integers(1, 12))
def test_chunks_cover_all_words_in_order_within_the_limit(text, limit) -> None:
    made = chunks(text, counter=WordCounter(), max_tokens=limit)
    assert "".join("".join(text[c.start : c.end].split()) for c in made) == "".join(text.split())
    assert all(left.end <= right.start for left, right in pairwise(made))
    assert all(len(text[c.start : c.end].split()) <= limit for c in made)


def test_chunks_end_at_sentences_and_cut_only_what_is_too_long() -> None:
    made = [TEXT[c.start : c.end] for c in chunks(TEXT, counter=WordCounter(), max_tokens=8)]
    assert made == ["The moon orbits mars. A planet is red.", "It is of cheese and of nothing else.", "Two moons."]
    made = [TEXT[c.start : c.end] for c in chunks(TEXT, counter=WordCounter(), max_tokens=5)]
    assert made[2:4] == ["It is of cheese and", "of nothing else. Two moons."]
    with pytest.raises(InputError, match="max_tokens must be at least 1"):
        chunks(TEXT, counter=WordCounter(), max_tokens=0)


def test_targets_are_the_words_that_the_teacher_left(tmp_path) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        targets, report = distil([TEXT], EveryOtherWord(), model="m", cache=cache, counter=WordCounter(), max_tokens=8)
    assert [item.targets for item in targets[:1]] == [(1.0, 0.0) * 4]
    assert "".join(item.text for item in targets).replace(" ", "") == TEXT.replace(" ", "")
    assert (report.texts, report.kept) == (3, 3)
    assert report.kept_share == pytest.approx(0.5)


def test_an_interrupted_run_asks_only_what_it_does_not_know(tmp_path) -> None:
    texts = [f"Moon {number} orbits mars." for number in range(100)]
    options = {"model": "m", "counter": WordCounter()}
    with AnswerCache(tmp_path / "answers") as cache, pytest.raises(GeneratorError):
        distil(texts, EveryOtherWord(fails_after=64), cache=cache, **options)
    teacher = EveryOtherWord()
    with AnswerCache(tmp_path / "answers") as cache:
        targets, _ = distil(texts, teacher, cache=cache, **options)
    assert teacher.asked == [deletion_prompt(text) for text in texts[64:]]
    assert len(targets) == 100


def test_command_writes_targets_and_report(tmp_path, monkeypatch, capsys) -> None:
    corpus, out = tmp_path / "corpus.txt", tmp_path / "targets.jsonl.gz"
    corpus.write_text(TEXT + "\n\n" + TEXT + "\n\nAnother text.\n", encoding="utf-8")
    monkeypatch.setattr(deletion, "open_teacher", lambda arguments: Opened(EveryOtherWord()))
    assert deletion.main(["--data", str(corpus), "--local", "model", "--out", str(out)]) == 0
    assert [item.text for item in read_targets(out)] == [TEXT, "Another text."]
    report = json.loads((tmp_path / "targets.report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["kept"] == 2
    with pytest.raises(SystemExit):
        deletion.main(["--data", str(corpus), "--out", str(out)])
    assert deletion.main(["--data", str(tmp_path / "corpus.bin"), "--local", "m", "--out", str(tmp_path)]) == 1
    assert "error:" in capsys.readouterr().err


class Opened:
    def __init__(self, teacher) -> None:
        self.teacher = teacher

    def __enter__(self):
        return self.teacher

    def __exit__(self, *_: object) -> None:
        pass


def test_targets_survive_a_file_and_odd_ones_are_refused(tmp_path) -> None:
    made = [WordTargets("a moon", (0.25, None)), WordTargets("", ())]
    for name in ("t.jsonl", "t.jsonl.gz"):
        assert write_targets(tmp_path / name, made, teacher="us") == 2
        assert list(read_targets(tmp_path / name)) == made
    with pytest.raises(InputError, match="1 targets for 2 words"):
        WordTargets("a moon", (1.0,))
    with pytest.raises(InputError, match=r"targets\[1\] is 1.5"):
        WordTargets("a moon", (1.0, 1.5))
    bad = tmp_path / "bad.jsonl"
    for row, message in (({"targets": []}, "'text' must be"), ({"text": "a", "targets": [True]}, "'targets' must be")):
        bad.write_text(json.dumps(row))
        with pytest.raises(InputError, match=f"bad.jsonl:1: .*{message}"):
            list(read_targets(bad))


def test_texts_come_from_any_corpus(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n{"question": "q", "documents": ["two", {"text": "three"}, "one", " "]}\n')
    assert list(read_texts(str(rows))) == ["one", "two", "three"]
    rows.write_text('{"body": "one"}\n{"title": "none"}\n')
    with pytest.raises(InputError, match=r"rows.jsonl:2: no string 'body'"):
        list(read_texts(str(rows), column="body"))
    plain = tmp_path / "plain.md"
    plain.write_text("one\nand more\n\n\n two \n")
    assert list(read_texts(str(plain))) == ["one\nand more", "two"]
    assert len(split_words("one\nand more")) == 3


def test_a_source_that_breaks_off_or_is_none(tmp_path: Path) -> None:
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(gzip.compress(b"one\n\ntwo\n" * 99)[:-9])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_bytes(b"caf\xe9\n\nmore\n")
    for source in (cut, tmp_path / "folder"):
        with pytest.raises(InputError, match=source.name):
            list(read_texts(str(source)))
