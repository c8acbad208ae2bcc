"""Every threshold at once: critical thresholds, operating points and calibration against choices made one by one."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality import __main__ as quality
from benchmarks.quality.curve import Curve, Removal, ScriptWords, emptied_at, removed_at
from benchmarks.quality.figures import calibration, evaluate
from benchmarks.quality.measure import BATCH_CHARACTERS, batches, bin_sums
from benchmarks.quality.report import render
from benchmarks.quality.sets import LONG_RUNGS, QUESTIONS, SHORT_RUNGS, Ladder, around_answer, manual_questions
from ctxprune.compressors.base import ScoringCompressor, narrow
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.eval import judge
from ctxprune.eval.metrics import (
    Bin,
    answer_in_context,
    answer_places,
    covered,
    expected_calibration_error,
    relevant_units,
)
from ctxprune.select import Policy, select
from ctxprune.text import split_sentences
from ctxprune.types import Document, Span

WORDS = ScriptWords()


class Fixed(ScoringCompressor):
    """Scores the nth sentence of a context by a fixed list, over and over; documents by their best sentence."""

    name = "fixed"
    default_threshold = 0.5

    def __init__(self, scores, **options):
        super().__init__(**options)
        self.scores, self.calls = scores, 0

    def score(self, contexts):
        self.calls += 1
        return [self._scored(context) for context in contexts]

    def _scored(self, context):
        pieces, nth = [], 0
        for extract in context.extracts:
            units = []
            for unit in split_sentences(extract.source.text):
                units.append(Span(unit.start, unit.end, self.scores[nth % len(self.scores)]))
                nth += 1
            pieces.append(narrow(extract, units, score=max((unit.score for unit in units), default=0.0)))
        return replace(context, pieces=tuple(pieces))


def question(*texts, answers=(), spans=(), relevant=((),), gold=(0,), answerable=True, id="q"):
    documents = [
        LabelledDocument(
            Document(text),
            is_gold=answerable and place in gold,
            answer_spans=tuple(spans) if place in gold and answerable else (),
            relevant=tuple(relevant[place]) if place < len(relevant) else (),
        )
        for place, text in enumerate(texts)
    ]
    return Question(id, "What is it?", tuple(answers), answerable, tuple(documents))


NUMBERS = "One cat sat down. Two dogs ran off. Three birds flew away. Four fish swam by."


def at(text, part):
    return text.index(part), text.index(part) + len(part)


scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
cases = st.tuples(
    st.lists(scores, min_size=1, max_size=8),
    st.sampled_from(["dogs", "dogs ran off. Three", "One", "by.", "Two dogs ran off. Three birds flew"]),
    st.sampled_from([(), ("birds",), ("a cat",), ("missing",)]),
)


@settings(deadline=None)
@given(cases)
def test_a_curve_says_what_choosing_at_each_threshold_says(case):
    values, part, answers = case
    asked = question(NUMBERS, "No. Not here. Birds of prey.", answers=answers, spans=[at(NUMBERS, part)])
    check(asked, values)


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=8), st.lists(st.integers(0, 3), min_size=1, unique=True))
def test_a_curve_of_a_written_answer_counts_relevant_sentences(values, wanted):
    sentences = [(unit.start, unit.end) for unit in split_sentences(NUMBERS)]
    check(question(NUMBERS, answers=["Some animals."], relevant=[[sentences[place] for place in wanted]]), values)


def check(asked, values):
    reference = judge.Reference.of(asked, split=split_sentences, counter=WORDS)
    (scored,) = Fixed(values).score([judge.context_of(asked)])
    curve = Curve.of(reference, scored, WORDS)
    removal = Removal.of([curve])
    for threshold in sorted({0.0, 0.3, 1.01, *values}):
        pruned = select(scored, threshold=threshold, budget=None, counter=WORDS, policy=Policy(keep_title=False))
        judged = reference.judge(pruned, counter=WORDS)
        assert np.mean(curve.steps >= threshold) == pytest.approx(judged.answer_kept)
        assert removal.shares(threshold)[0] == pytest.approx(judged.removed)
        assert (curve.top < threshold) == judged.emptied


def curve_of(values, words, steps):
    order = np.argsort(-np.array(values, float))
    return Curve(np.array(values, float)[order], np.array(words)[order], np.array(steps, float))


def test_removed_at_takes_the_highest_threshold_that_keeps_enough():
    curves = [curve_of([0.9, 0.2], [10, 90], [0.9]), curve_of([0.4, 0.3], [50, 50], [0.3])]
    half = removed_at(curves, 0.5, resamples=50, seed=0)
    assert (half.threshold, half.kept) == (0.9, 0.5)
    assert half.removed == pytest.approx((0.9 + 1.0) / 2)
    everything = removed_at(curves, 0.98, resamples=50, seed=0)
    assert (everything.threshold, everything.kept) == (0.3, 1.0)
    assert everything.removed == pytest.approx((0.9 + 0.0) / 2)
    # a resample of one question alone may choose that question's own threshold: .9 -> .9, .3 -> 0
    assert set(everything.resampled.round(6)) == {0.9, 0.45, 0.0}


def test_a_level_out_of_reach_is_no_figure():
    lost = removed_at([curve_of([0.5], [5], [-math.inf]), curve_of([0.5], [5], [0.5])], 0.98, resamples=5, seed=0)
    assert math.isnan(lost.removed)
    assert math.isnan(lost.threshold)
    nothing = removed_at([Curve(np.zeros(1), np.ones(1, int), None)], 0.98, resamples=5, seed=0)
    assert (nothing.n, math.isnan(nothing.removed)) == (0, True)


def test_emptied_at_pays_no_more_than_the_cost():
    answerable, unanswerable = [place / 100 for place in range(100)], [0.01, 0.03, 0.045, 0.5]
    found = emptied_at(answerable, unanswerable, 0.05, resamples=200, seed=0)
    assert (found.threshold, found.answerable, found.unanswerable) == (0.05, 0.05, 0.75)
    assert 0 <= found.low <= 0.75 <= found.high <= 1
    tied = emptied_at([0.2] * 10, [0.1, 0.2], 0.05, resamples=20, seed=0)
    assert (tied.answerable, tied.unanswerable) == (0.0, 0.5)
    assert math.isnan(emptied_at([0.1], [], 0.05, resamples=5, seed=0).unanswerable)


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=6), min_size=1, max_size=5))
def test_calibration_by_question_is_that_of_all_sentences(questions):
    outcomes = [pair for each in questions for pair in each]
    row = calibration([bin_sums(each) for each in questions], resamples=10, seed=0)
    groups = {}
    for score, flag in outcomes:
        groups.setdefault(min(int(10 * score), 9), []).append((score, flag))
    bins = [
        Bin(
            place / 10, (place + 1) / 10, len(group), *(sum(column) / len(group) for column in zip(*group, strict=True))
        )
        for place, group in sorted(groups.items())
    ]
    assert row["sentences"] == len(outcomes)
    assert [each["count"] for each in row["bins"]] == [each.count for each in bins]
    if outcomes:
        assert row["ece"] == pytest.approx(expected_calibration_error(bins))
        assert row["ece_interval"]["low"] <= row["ece_interval"]["high"]


def test_calibration_refuses_what_is_no_probability():
    with pytest.raises(InputError, match="probability"):
        bin_sums([(1.5, True)])


spans = st.lists(st.integers(0, 40), min_size=2, max_size=12, unique=True).map(
    lambda ends: list(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
)


@given(spans, spans)
def test_covered_and_relevant_are_those_of_the_metrics(units, others):
    assert judge._covered(units, others) == [covered(unit, others) for unit in units]
    assert judge._relevant(units, others) == relevant_units(units, others)


def test_span_figures_count_characters():
    asked = question("abcdefghij", "klmnopqrst", relevant=[[(0, 4), (2, 6)], []])
    precision, recall, f2 = judge.span_figures(asked, [[(4, 8)], [(0, 2)]])
    assert (precision, recall) == (2 / 6, 2 / 6)
    assert f2 == pytest.approx(1 / 3)
    assert judge.span_figures(asked, [[(0, 6)], []]) == (1.0, 1.0, 1.0)
    empty = judge.span_figures(asked, [[], []])
    assert math.isnan(empty[0])
    assert empty[1:] == (0.0, 0.0)
    assert all(map(math.isnan, judge.span_figures(question("abc", relevant=[[]]), [[(0, 3)]])))


@given(st.text("ab .1,é", max_size=20), st.lists(st.text("ab .1,", max_size=4), max_size=3))
def test_answer_places_are_where_answers_are_seen(text, answers):
    places = answer_places(text, answers)
    assert bool(places) == answer_in_context(text, answers)
    assert all(answer_in_context(text[start:end], answers) for start, end in places)


def test_words_of_scripts_without_spaces():
    assert WORDS.count(["two words", "東京に行く", "ที่", ""]) == [2, 5, 3, 0]


def test_batches_are_bounded_by_characters():
    long, short = question("x" * BATCH_CHARACTERS), question("x")
    assert [len(batch) for batch in batches([short, short, long, short, short, short], 2)] == [2, 1, 2, 1]
    assert list(batches([], 2)) == []


def three():
    first = question(
        NUMBERS, answers=["dogs"], spans=[at(NUMBERS, "dogs")], relevant=[[at(NUMBERS, "Two dogs ran off.")]]
    )
    other = question(NUMBERS, answers=["birds"], spans=[at(NUMBERS, "birds")], id="r")
    return [first, other, question(NUMBERS, answerable=False, id="s")]


def test_defaults_are_the_compressors_own_and_scores_are_made_once():
    compressor = Fixed([0.1, 0.9, 0.2, 0.1], policy=Policy(min_keep=2))
    figures = evaluate(three(), {"fixed": compressor}, thresholds=[0.05, 0.95], resamples=50)
    assert compressor.calls == 1
    (row,) = figures["defaults"]
    assert row["answer_kept"]["mean"] == 1.0  # the policy keeps the two best
    assert row["removed"]["mean"] == pytest.approx(1 - 8 / 16)
    (at_98,) = [each for each in figures["removed_at"] if each["level"] == 0.98]
    assert (at_98["threshold"], at_98["removed"]["mean"]) == (0.2, pytest.approx(0.5))
    low, high = figures["thresholds"]
    assert low["span_recall"]["mean"] == 1.0
    assert high["span_f2"]["n"] == 1  # one question has a relevant sentence
    assert [each["unanswerable_emptied"]["mean"] for each in figures["emptied_at"]] == [0.0, 0.0]


def test_two_models_are_compared_question_by_question():
    pair = {"new": Fixed([0.1, 0.9, 0.2, 0.1]), "old": Fixed([0.9, 0.9, 0.9, 0.9])}
    figures = evaluate(three(), pair, thresholds=[0.5], resamples=50)
    rows = {row["measure"]: row for row in figures["model_differences"]}
    assert rows["answer kept at the defaults"]["mean"] == -0.5
    assert rows["removed at the defaults"]["mean"] == pytest.approx(0.75)
    assert (rows["removed at 98% kept"]["mean"], rows["removed at 98% kept"]["verdict"]) == (pytest.approx(0.5), "win")
    markdown = render({"command": "x", "sets": {"toy": figures}})
    assert "## new − old" in markdown
    assert "| toy | new | 3 | 0.500 [0.000, 1.000] |" in markdown


TOPICS = [
    "harbour",
    "mill",
    "garden",
    "tower",
    "school",
    "bridge",
    "market",
    "station",
    "library",
    "castle",
    "forest",
    "valley",
]


def town(name, number):
    """Questions on twelve paragraphs of one article; each answer stands in its own paragraph alone."""
    found = []
    for nth, topic in enumerate(TOPICS):
        text = f"{name} is a town. It has a {topic}. The {topic} opened in {number}{nth:02d} or so. Many visit it."
        sentence = f"The {topic} opened in {number}{nth:02d} or so."
        labelled = LabelledDocument(
            Document(text, id=f"{name}:{nth}", title=name),
            is_gold=True,
            answer_spans=(at(text, f"{number}{nth:02d}"),),
            relevant=(at(text, sentence),),
        )
        found.append(
            Question(
                f"{name}{nth}", f"When did the {topic} of {name} open?", (f"{number}{nth:02d}",), True, (labelled,)
            )
        )
    return found


@pytest.fixture(scope="module")
def towns():
    return [
        asked
        for nth, name in enumerate(["Aden", "Bree", "Cork", "Dunn", "Elst", "Faro"])
        for asked in town(name, 13 + nth)
    ]


def test_a_ladder_asks_the_same_questions_with_more_text(towns):
    rungs = dict(Ladder(towns[::-1], limit=12, long_limit=3).rungs())
    assert list(rungs) == [*SHORT_RUNGS, *LONG_RUNGS]
    assert [len(questions) for questions in rungs.values()] == [12] * 4 + [3] * 2
    assert [q.id for q in rungs["3 sentences"]] == [q.id for q in rungs["10 paragraphs"]]
    originals = {asked.id: asked for asked in towns}
    for questions in rungs.values():
        for asked in questions:
            gold = [labelled for labelled in asked.documents if labelled.is_gold]
            assert len(gold) == 1
            text = gold[0].document.text
            assert [text[slice(*span)] for span in gold[0].answer_spans] == list(originals[asked.id].answers)
            assert len([text[slice(*span)] for span in gold[0].relevant]) == 1
    counts = {name: [len(asked.documents) for asked in questions] for name, questions in rungs.items()}
    assert set(counts["10 paragraphs"]) == {10}
    assert set(counts["whole article"]) == {1}
    assert set(counts["5 articles"]) == {5}
    article = rungs["whole article"][0].documents[0].document.text
    assert article.count("is a town.") == 12
    assert article.index("harbour") < article.index("mill") < article.index("valley")  # in the order of the ids


def test_around_the_answer_stops_at_the_ends_of_the_paragraph(towns):
    text = "Born in May. She left in June. It rained."
    labelled = LabelledDocument(Document(text), True, (at(text, "May"),), (at(text, "Born in May."),))
    asked = Question("q", "When?", ("May",), True, (labelled,))
    assert around_answer(asked, 0).documents[0].document.text == "Born in May."
    assert around_answer(asked, 1).documents[0].document.text == "Born in May. She left in June."
    assert around_answer(asked, 9).documents[0].document.text == text


def test_no_ladder_without_suited_questions():
    with pytest.raises(InputError, match="ten paragraphs"):
        Ladder(three(), limit=None, long_limit=5)


def test_manuals_hold_their_answers():
    questions, missing = manual_questions()
    assert len(questions) + len(missing) == sum(map(len, QUESTIONS.values()))
    assert len({asked.documents[0].document.title for asked in questions}) >= 10
    assert len(missing) <= len(QUESTIONS)  # another Python words a few things otherwise
    for asked in questions:
        (labelled,) = asked.documents
        assert {labelled.document.text[slice(*span)] for span in labelled.answer_spans} == set(asked.answers)
        assert labelled.relevant


def test_a_manual_without_the_answer_is_named():
    questions, missing = manual_questions({"heapq": [("What?", "no such words"), ("Which?", "a[0] is always")]})
    assert [asked.id for asked in questions] == ["heapq:1"]
    assert missing == ["heapq: What? ('no such words' does not stand in this Python's text)"]


@pytest.fixture
def loaded(monkeypatch):
    models = []

    def load(name, **options):
        models.append((name, options))
        return Fixed([0.1, 0.9, 0.2, 0.1])

    monkeypatch.setattr("ctxprune.load", load)
    return models


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_command_climbs_a_ladder_with_two_models(tmp_path, towns, loaded, capsys):
    file = write(tmp_path / "towns.jsonl", map(row_from_question, towns))
    options = ["--compressors", f"provence,provence:{tmp_path}/export-2", "--limit", "4", "--long-limit", "2"]
    assert quality.main(["--ladder", file, *options, "--resamples", "20", "--budgets", "10"]) == 0
    out = capsys.readouterr().out
    assert loaded == [("provence", {}), ("provence", {"model": f"{tmp_path}/export-2"})]
    assert "## provence − provence:export-2" in out
    assert "| towns rung 5: whole article | provence | 2 |" in out
    assert str(tmp_path) not in out
    assert "--ladder towns.jsonl --compressors provence,provence:export-2" in out


def test_command_by_a_field(tmp_path, loaded, capsys):
    rows = [row_from_question(asked) | {"lang": lang} for lang in ("fr", "de") for asked in three()]
    plain = write(tmp_path / "plain.jsonl", map(row_from_question, three()))
    file = write(tmp_path / "many.jsonl", rows)
    assert quality.main(["--data", file, plain, "--by", "lang", "--compressors", "fixed", "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("## ")][1:] == [
        "## many: de",
        "## many: fr",
        "## plain",
    ]


def test_command_with_manuals(loaded, capsys):
    assert quality.main(["--manuals", "--limit", "3", "--compressors", "fixed", "--resamples", "20"]) == 0
    assert "| manuals | fixed | 3 |" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--manuals", "--limit", "0"], ["--manuals", "--long-limit", "-1"]])
def test_command_refuses(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        quality.main(options)
    assert capsys.readouterr().err


def test_two_models_of_one_name_are_refused(tmp_path, loaded, capsys):
    assert quality.main(["--manuals", "--compressors", "provence:a/export,provence:b/export"]) == 1
    assert "both be called 'provence:export'" in capsys.readouterr().err
    assert loaded == []


def test_command_names_a_file_without_a_ladder(tmp_path, loaded, capsys):
    file = write(tmp_path / "three.jsonl", map(row_from_question, three()))
    assert quality.main(["--ladder", file, "--compressors", "fixed"]) == 1
    assert "three.jsonl: no question for a ladder" in capsys.readouterr().err
