"""Summaries to learn from: what is shown, which summaries are kept, and that a stopped run asks nothing twice."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.recomp.summaries import NOTHING
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import GeneratorError, InputError
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.trainers.recomp import summaries
from ctxprune.trainers.recomp.items import Shown, extracted, read_summary_targets, shortened, shown_question
from ctxprune.trainers.recomp.labels import LikelihoodJudge, MatchJudge, gold_clauses, gold_sentences
from ctxprune.trainers.recomp.summaries import (
    Outcome,
    Rules,
    gold_teacher,
    judged,
    model_teacher,
    summary_prompt,
    summary_targets,
)
from ctxprune.trainers.shared.teacher import AnswerCache
from ctxprune.types import Document

TEXT = "The moon is far. Mars has two moons. They are named after fear. Nobody lives there. It is red and cold."
GOLD = "Mars has two moons."


def labelled(text: str = TEXT, sentence: str = GOLD) -> LabelledDocument:
    start = text.index(sentence)
    answer = text.index("two")
    return LabelledDocument(
        Document(text, title="Mars"), True, ((answer, answer + 3),), ((start, start + len(sentence)),)
    )


def asked(*, gold: bool = True, answers: Sequence[str] = ("two",), name: str = "q", others: int = 3) -> Question:
    documents = [LabelledDocument(Document(f"Passage {place} is of no use."), relevant=()) for place in range(others)]
    return Question(name, "How many moons?", tuple(answers), gold, ((labelled(),) if gold else ()) + tuple(documents))


class Scripted:
    """Scores a prompt by what stands in it."""

    def __init__(self, scores: dict[str, float], default: float = -9.0) -> None:
        self.asked: list[str] = []
        self._scores, self._default = scores, default

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        self.asked += prompts
        return [next((s for part, s in self._scores.items() if part in prompt), self._default) for prompt in prompts]


MARKED = gold_teacher(gold_sentences)


def outcome(question: Question, judge: Scripted | None, rules: Rules = Rules(), teacher=MARKED):  # noqa: B008
    [decision] = summary_targets([question], teacher, judge, rules=rules, counter=WordCounter())
    return decision


@given(st.integers(1, 40), st.integers(0, 99))
def test_shortened_documents_hold_what_is_relevant_in_whole_sentences(limit: int, seed: int) -> None:
    made = shortened(labelled(), limit, counter=WordCounter(), rng=random.Random(seed))
    text = made.document.text
    assert text in TEXT
    assert [text[start:end] for start, end in made.relevant] == [GOLD]
    assert [text[start:end] for start, end in made.answer_spans] == ["two"]
    whole = {TEXT[each.start : each.end] for each in split_sentences(TEXT)}
    assert {text[each.start : each.end] for each in split_sentences(text)} <= whole
    assert len(text.split()) <= max(limit, len(GOLD.split()))


def test_documents_without_labels_are_cut_anywhere() -> None:
    document = LabelledDocument(Document(TEXT), relevant=())
    made = {shortened(document, 6, counter=WordCounter(), rng=random.Random(seed)).document.text for seed in range(30)}
    assert len(made) >= 4
    assert all(len(text.split()) <= 6 for text in made)


@given(st.integers(1, 6), st.integers(0, 50))
def test_gold_documents_are_shown_at_no_fixed_place(documents: int, seed: int) -> None:
    question = shown_question(asked(), Shown(documents=documents), counter=WordCounter(), seed=seed)
    assert len(question.documents) == min(documents, 4)
    assert sum(each.is_gold for each in question.documents) == 1
    assert question == shown_question(asked(), Shown(documents=documents), counter=WordCounter(), seed=seed)


def test_places_of_gold_documents_vary() -> None:
    made = [shown_question(asked(), Shown(), counter=WordCounter(), seed=seed) for seed in range(30)]
    assert {[each.is_gold for each in question.documents].index(True) for question in made} == {0, 1, 2, 3}


def test_gold_documents_can_be_left_out() -> None:
    question = shown_question(asked(), Shown(documents=2, gold=False), counter=WordCounter(), seed=1)
    assert [each.is_gold for each in question.documents] == [False, False]


class Keeps:
    """Keeps the units at these places of every document; all of them are its sentences."""

    name = "keeps"

    def __init__(self, *places: int) -> None:
        self._places = places

    def compress(self, contexts, *, budget=None, threshold=None):
        return [replace(each, pieces=tuple(map(self._cut, each.pieces))) for each in contexts]

    def _cut(self, piece):
        units = tuple(split_sentences(piece.source.text))
        return replace(piece, units=units, kept=tuple(place in self._places for place in range(len(units))))


@given(st.sets(st.integers(0, 4)))
def test_labels_move_with_what_is_extracted(places: set[int]) -> None:
    [made] = extracted([asked()], Keeps(*places))
    assert made.answerable == (1 in places)
    assert len(made.documents) == (4 if 0 in places else 1 if places else 0)
    for document in made.documents:
        text = document.document.text
        assert [text[start:end] for start, end in document.relevant] == ([GOLD] if GOLD in text else [])
        assert [text[start:end] for start, end in document.answer_spans] == (["two"] if GOLD in text else [])
    if made.documents and 1 in places:
        assert gold_sentences(made) == GOLD


def test_questions_without_labels_stay_answerable_when_something_goes() -> None:
    unlabelled = Question("1", "?", ("two",), True, (LabelledDocument(Document(TEXT)),))
    [made] = extracted([unlabelled], Keeps(0, 3))
    assert (made.answerable, made.documents[0].relevant) == (True, None)
    assert made.documents[0].document.text == "The moon is far. Nobody lives there."


def test_gold_sentences_are_the_marked_ones_once() -> None:
    document = labelled()
    assert gold_sentences(Question("1", "?", documents=(document, document))) == GOLD
    assert gold_sentences(asked(gold=False)) == ""


@pytest.mark.parametrize(
    ("query", "answer", "expected"),
    [
        ("What was the ferry called?", "Hopeful", "a small ferry named Hopeful"),
        ("When did the bridge open?", "1911", "The bridge, opened in 1911"),
        ("Who built the ferry?", "Moss", "a small ferry named Hopeful (built by Moss)"),
        ("Which bridge was damaged by a flood?", "bridge", "The bridge, where a flood damaged it."),
        ("When?", "1911", "The bridge, opened in 1911; a small ferry named Hopeful (built by Moss) ran before, "
         "where a flood damaged it."),
    ],
)  # fmt: skip
def test_gold_clauses_hold_the_answer_and_what_was_asked(query: str, answer: str, expected: str) -> None:
    text = (
        "The bridge, opened in 1911; a small ferry named Hopeful (built by Moss) ran before, where a flood damaged it."
    )
    start = text.index(answer)
    document = LabelledDocument(Document(text), True, ((start, start + len(answer)),), ((0, len(text)),))
    assert gold_clauses(Question("1", query, documents=(document,))) == expected


def test_gold_clauses_need_marked_sentences() -> None:
    assert gold_clauses(asked(gold=False)) == ""
    assert gold_teacher(gold_clauses)([asked(gold=False), asked()]) == [None, GOLD]


@pytest.mark.parametrize(
    ("closed", "summary", "documents", "expected"),
    [
        (-5, -4.5, None, Outcome.KEPT),
        (-5, -4.6, None, Outcome.EMPTIED),
        (-5, -4.6, -4.0, Outcome.DROPPED),
        (-5, -4.6, -5.0, Outcome.EMPTIED),
        (-5, -1, -1, Outcome.KEPT),
    ],
)
def test_a_summary_must_gain_the_margin(closed, summary, documents, expected) -> None:
    assert judged(closed, summary, documents, margin=0.5, no_gain=Outcome.EMPTIED) == expected


def test_helpful_summaries_are_kept_and_others_emptied_or_dropped() -> None:
    kept = outcome(asked(), Scripted({GOLD: -1.0}))
    assert kept.made.target == GOLD
    assert kept.made.scores == {"closed": -9.0, "summary": -1.0}
    assert outcome(asked(), Scripted({})).made.target == ""
    assert outcome(asked(), Scripted({}), Rules(no_gain=Outcome.DROPPED)).made is None
    failed = outcome(asked(), Scripted({"Nobody lives": -1.0}), Rules(score_documents=True))
    assert (failed.made, failed.reason) == (None, "dropped: does not help to the answer")


def test_unanswerable_questions_learn_to_say_nothing_unasked() -> None:
    judge = Scripted({})
    made = outcome(asked(gold=False), judge, teacher=lambda questions: [pytest.fail("asked") for _ in questions])
    assert made.made.target == ""
    assert judge.asked == []


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (None, "no relevant sentence is marked"),
        ("Mars has 37 moons.", "not faithful to its documents"),
        (f"{TEXT} " * 9, "longer than its documents"),
    ],
)
def test_unusable_summaries_are_dropped_with_a_reason(summary, reason) -> None:
    made = outcome(asked(), Scripted({"Mars": 0.0}), teacher=lambda questions: [summary])
    assert (made.made, made.reason) == (None, f"dropped: {reason}")
    assert outcome(asked(answers=[" "]), Scripted({})).reason == "dropped: no answer to judge by"
    assert outcome(asked(answers=[" "]), None).made.target == GOLD


class Teacher:
    name = "teacher"

    def __init__(self, answers: Sequence[str], fail_at: int = 99) -> None:
        self.answers, self.calls, self._fail_at = list(answers), 0, fail_at

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        self.calls += 1
        if self.calls >= self._fail_at:
            raise GeneratorError("the endpoint went away")
        return [self.answers.pop(0) for _ in prompts]


def test_a_model_teaches_by_the_compressors_own_prompt_and_is_asked_once(tmp_path) -> None:
    generator = Teacher([f" {GOLD}\n", f"{NOTHING}."])
    questions = [asked(name="1"), Question("2", "How far?", ("far",), True, asked().documents)]
    with AnswerCache(tmp_path / "answers") as cache:
        teacher = model_teacher(generator, name="t", cache=cache, max_new_tokens=9)
        assert teacher(questions) == teacher(questions) == [GOLD, ""]
    assert generator.calls == 1


class Likelihood:
    name = "tiny"

    def __init__(self) -> None:
        self.pairs = 0

    def score(self, prompts, answers):
        self.pairs += len(prompts)
        return [type("Score", (), {"nats": -float(len(prompt) + len(a))}) for prompt, a in zip(prompts, answers)]  # noqa: B905


def test_likelihoods_are_remembered(tmp_path) -> None:
    model = Likelihood()
    for _ in range(2):
        with AnswerCache(tmp_path / "scores") as cache:
            judge = LikelihoodJudge(model, cache)
            assert judge.scores(["ab", "abc", "ab"], [["x"], ["y", "z"], ["x"]]) == [-3.0, -4.0, -3.0]
    assert model.pairs == 2


def test_matches_look_for_whole_answers(tmp_path) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        judge = MatchJudge(Teacher(["It has two.", "I do not know"]), cache)
        assert judge.scores(["a", "b"], [["2", "two"], ["now"]]) == [1.0, 0.0]


def test_an_empty_summary_tells_the_generator_so() -> None:
    assert "(no relevant text was found)" in summary_prompt("Why?", "")
    assert "Context:\nMars\n" in summary_prompt("Why?", "Mars")


def write_questions(path, questions) -> None:
    path.write_text("".join(json.dumps(row_from_question(each)) + "\n" for each in questions))


def test_command(tmp_path, capsys) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "targets.jsonl"
    write_questions(data, [asked(name="1"), asked(name="2", gold=False), asked(name="3")])
    command = ["--data", str(data), "--teacher", "gold", "--out", str(out)]
    assert summaries.main([*command, "--documents", "2", "--passage-tokens", "12", "--limit", "2"]) == 0
    made = list(read_summary_targets(out))
    assert [each.target for each in made] == [GOLD, ""]
    assert [len(each.question.documents) for each in made] == [2, 2]
    report = json.loads((tmp_path / "targets.report.json").read_text())
    assert report["outcomes"] == {"kept: not judged": 1, "emptied: the documents do not answer": 1}
    assert summaries.main([*command[:-1], str(data)]) == 1
    assert "is an input file" in capsys.readouterr().err


def test_only_the_best_sentences_can_be_shown(tmp_path) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "targets.jsonl"
    write_questions(data, [asked(), asked(gold=False, name="none")])
    assert summaries.main(["--data", str(data), "--teacher", "gold", "--sentences", "1", "--out", str(out)]) == 0
    first, second = read_summary_targets(out)
    assert [document.document.text for document in first.question.documents] == [GOLD] == [first.target]
    assert len(second.question.documents) == 1 and second.target == ""


def test_an_endpoint_that_fails_midway_loses_nothing(tmp_path, monkeypatch, capsys) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "targets.jsonl"
    write_questions(data, [Question(str(n), f"How many {n}?", ("two",), True, asked().documents) for n in range(3)])
    monkeypatch.setattr(summaries, "_QUESTIONS_A_ROUND", 1)
    command = ["--data", str(data), "--endpoint", "http://localhost:1", "--model", "m", "--out", str(out)]

    def teach(generator: Teacher) -> int:
        monkeypatch.setattr(summaries, "open_teacher", lambda arguments: nullcontext(generator))
        return summaries.main(command)

    assert teach(Teacher([GOLD, GOLD], fail_at=2)) == 1
    assert "run the same command to go on" in capsys.readouterr().err
    assert not out.exists()
    second = Teacher([GOLD, GOLD])
    assert teach(second) == 0
    assert second.calls == 2
    assert len(list(read_summary_targets(out))) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "documents": []}, "field 'target' must be a string, got NoneType"),
        ({"question": "?", "documents": [], "target": "", "scores": 1}, "field 'scores' must be an object"),
        ({"question": "?", "target": ""}, "field 'documents' must be a list"),
    ],
)
def test_bad_targets_name_their_line(tmp_path, row, message) -> None:
    path = tmp_path / "targets.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match=f"targets.jsonl:1: {message}"):
        list(read_summary_targets(path))
