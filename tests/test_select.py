"""Choosing units: thresholds nest, budgets hold, and the fast choice equals a slow one that counts every step."""

import math
import sys
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctxprune.errors import BudgetError, InputError
from ctxprune.prompt import count_contexts, render_context
from ctxprune.select import Policy, select
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary

WORDS = WordCounter()


class ThirdsCounter:
    """Three characters a token, rounded up: the parts of a text add up to more than the text."""

    name, exact = "thirds", True

    def count(self, texts):
        return [math.ceil(len(text) / 3) for text in texts]


class FusingCounter:
    """Nothing is a token until it is long: the parts of a text add up to less than the text."""

    name, exact = "fusing", True

    def count(self, texts):
        return [len(text) // 3 for text in texts]


def extract(sentences, scores, *, title="", score=None, index=0):
    """An extract with one unit a sentence, sentences joined by a space."""
    spans, start = [], 0
    for sentence, unit_score in zip(sentences, scores, strict=True):
        spans.append(Span(start, start + len(sentence), unit_score))
        start += len(sentence) + 1
    source = Document(" ".join(sentences), title=title)
    return Extract(source, tuple(spans), (True,) * len(spans), score=score, index=index)


def choose(context, *, threshold=None, budget=None, counter=WORDS, **policy):
    relevant = policy.pop("relevant", None)
    return select(
        context, threshold=threshold, budget=budget, counter=counter, policy=Policy(**policy), relevant=relevant
    )


def kept(context):
    return [(e.index, at) for e in context.extracts for at, flag in enumerate(e.kept) if flag]


@st.composite
def extracts(draw, index=0):
    sentences = draw(st.lists(st.text("ab .\n", min_size=1, max_size=9), max_size=6))
    scores = [draw(st.sampled_from([-1.0, 0.0, 0.1, 0.5, 0.5, 0.9])) for _ in sentences]
    made = extract(sentences, scores, title=draw(st.sampled_from(["", "T", "long title here"])), index=index)
    return replace(
        made,
        kept=tuple(draw(st.booleans()) or draw(st.booleans()) for _ in sentences),
        score=draw(st.none() | st.floats(0, 1)),
    )


@st.composite
def contexts(draw):
    pieces = [draw(extracts(index)) for index in range(draw(st.integers(0, 4)))]
    if draw(st.booleans()):
        pieces.append(Summary(draw(st.sampled_from(["", "a short summary"])), (), index=len(pieces)))
    return Context("why?", tuple(pieces))


policies = st.fixed_dictionaries(
    {
        "keep_title": st.booleans(),
        "order": st.sampled_from(["document", "rank"]),
        "fill": st.sampled_from(["skip", "stop"]),
        "on_empty": st.sampled_from(["drop", "keep_top1", "original"]),
        "length_exponent": st.sampled_from([0.0, 0.5, 1.0]),
    }
)
counters = st.sampled_from([WORDS, ThirdsCounter(), FusingCounter()])


def test_threshold_keeps_units_at_or_above_it():
    context = Context("q", (extract(["a", "b", "c"], [0.1, 0.5, 0.9]),))
    assert kept(choose(context, threshold=0.5)) == [(0, 1), (0, 2)]


@settings(deadline=None)
@given(contexts(), st.tuples(*[st.floats(-1, 1)] * 2))
def test_a_higher_threshold_keeps_a_subset(context, thresholds):
    low, high = (set(kept(choose(context, threshold=value))) for value in sorted(thresholds))
    assert high <= low


@settings(deadline=None)
@given(contexts(), st.none() | st.floats(0, 1), st.none() | st.integers(1, 30), counters, policies)
def test_nothing_removed_comes_back_and_units_stay_put(context, threshold, budget, counter, policy):
    result = choose(context, threshold=threshold, budget=budget, counter=counter, **policy)
    before = {extract.index: extract for extract in context.extracts}
    assert sorted(before) == sorted(extract.index for extract in result.extracts)
    for after in result.extracts:
        assert after.units == before[after.index].units
        assert all(was for was, now in zip(before[after.index].kept, after.kept, strict=True) if now)
    if policy["order"] == "document":
        assert [piece.index for piece in result.pieces] == [piece.index for piece in context.pieces]


@settings(max_examples=150, deadline=None)
@given(contexts(), st.none() | st.floats(0, 1), st.integers(1, 30), st.integers(0, 2), counters, policies)
def test_the_budget_holds_unless_a_warning_says_what_exceeds_it(context, threshold, budget, least, counter, policy):
    result = choose(context, threshold=threshold, budget=budget, counter=counter, min_keep=least, **policy)
    used = counter.count([render_context(result)])[0]
    assert len(kept(result)) >= min(least, len(kept(context)))
    if used > budget:
        assert len(kept(result)) == min(least, len(kept(context)))
    assert (used > budget) == any("exceeded" in warning for warning in result.warnings)


@settings(max_examples=200, deadline=None)
@given(contexts(), st.integers(1, 40), policies)
def test_equals_the_slow_greedy_choice_that_counts_the_whole_text_each_step(context, budget, policy):
    context = replace(context, pieces=context.extracts)
    # white space alone is rendered without its title, which the estimate cannot know
    assume(all(e.source.text[unit.start : unit.end].strip() for e in context.extracts for unit in e.kept_units()))
    result = choose(context, budget=budget, **policy)

    def rank(piece):
        return -piece.score if piece.score is not None else 1.0

    def priority(place, at):
        unit = pieces[place].units[at]
        words = max(len(pieces[place].source.text[unit.start : unit.end].split()), 1) ** policy["length_exponent"]
        return unit.score / words if unit.score >= 0 else unit.score * words

    pieces = [replace(piece, titled=policy["keep_title"]) for piece in context.pieces]
    pieces = sorted(pieces, key=rank) if policy["order"] == "rank" else pieces
    order = [(place, at) for place, piece in enumerate(pieces) for at, flag in enumerate(piece.kept) if flag]
    order.sort(key=lambda unit: -priority(*unit))
    chosen = set()
    for place, at in order:
        trial = chosen | {(place, at)}
        flagged = [
            replace(piece, kept=tuple((p, n) in trial for n in range(len(piece.units))))
            for p, piece in enumerate(pieces)
        ]
        if WORDS.count([render_context(replace(context, pieces=tuple(flagged)))])[0] <= budget:
            chosen = trial
        elif policy["fill"] == "stop":
            break
    assert set(kept(result)) == {(pieces[place].index, at) for place, at in chosen}


def test_titles_count_and_the_first_unit_of_a_document_pays_for_its_own():
    context = Context(
        "q", (extract(["one two", "three"], [0.9, 0.8], title="a b c"), extract(["four"], [0.1], index=1))
    )
    assert kept(choose(context, budget=5)) == [(0, 0)]
    assert kept(choose(context, budget=4)) == [(0, 1)]
    assert kept(choose(context, budget=3)) == [(1, 0)]
    assert kept(choose(context, budget=4, keep_title=False)) == [(0, 0), (0, 1), (1, 0)]
    assert not choose(context, threshold=0.0, keep_title=False).extracts[0].titled


def test_threshold_comes_before_the_budget():
    context = Context("q", (extract(["a", "b", "c"], [0.2, 0.9, 0.8]),))
    assert kept(choose(context, threshold=0.5, budget=2)) == [(0, 1), (0, 2)]
    assert kept(choose(context, threshold=0.5, budget=1)) == [(0, 1)]


def test_skip_goes_on_after_a_unit_that_does_not_fit_and_stop_truncates():
    context = Context("q", (extract(["a", "b c d e", "f"], [0.9, 0.8, 0.7]),))
    assert kept(choose(context, budget=2, fill="skip")) == [(0, 0), (0, 2)]
    assert kept(choose(context, budget=2, fill="stop")) == [(0, 0)]


def test_length_exponent_prefers_the_most_score_a_token():
    context = Context("q", (extract(["a b c d", "e", "f"], [0.9, 0.5, 0.4]),))
    assert kept(choose(context, budget=4)) == [(0, 0)]
    assert kept(choose(context, budget=4, length_exponent=1.0)) == [(0, 1), (0, 2)]


def test_length_exponent_ranks_long_text_lower_below_zero_too():
    context = Context("q", (extract(["a b c", "d"], [-1.0, -2.0]),))
    assert kept(choose(context, budget=3, length_exponent=1.0)) == [(0, 1)]


def test_ties_go_to_the_earlier_unit():
    context = Context("q", (extract(["a", "b"], [0.5, 0.5]), extract(["c"], [0.5], index=1)))
    assert kept(choose(context, budget=2)) == [(0, 0), (0, 1)]
    assert kept(choose(context, threshold=0.9, min_keep=1)) == [(0, 0)]


def test_an_emptied_context_says_so_and_how_far_off_it_was():
    context = Context("q", (extract(["a.", "b."], [0.1, 0.034]),))
    assert choose(context, threshold=0.5).warnings == (
        "nothing scores at least 0.5 (the best: 0.1): the context is empty",
    )
    assert choose(context, budget=9, floor=0.2).warnings == (
        "nothing scores at least 0.2 (the best: 0.1): the context is empty",
    )
    assert choose(Context("q", ()), threshold=0.5).warnings == ()
    for on_empty in ("keep_top1", "original"):
        (warning,) = choose(context, threshold=0.5, on_empty=on_empty).warnings
        assert warning.endswith(f"kept, as on_empty='{on_empty}' asks")


@pytest.mark.parametrize("number", [0, 1, 10_000])
@pytest.mark.parametrize(
    "rules", [{"top_p": 0.5}, {"gap": (1, 5)}, {"top_n": 3}, {"budget": 20, "floor": 0.1}, {"companions": True}]
)
def test_contexts_of_no_unit_of_one_and_of_ten_thousand(number, rules):
    scores = [(n * 7919 % 10_007) / 10_007 for n in range(number)]
    context = Context("q", (extract([f"Line {n}." for n in range(number)], scores),))
    chosen = choose(context, relevant=0.1, **rules)
    assert len(kept(chosen)) <= number
    assert number == 0 or kept(chosen) or max(scores) < 0.1


def test_protected_text_over_the_budget_is_kept_without_titles_and_said():
    context = Context("q", (extract(["a b c d", "e"], [0.1, 0.9], title="t u"),))
    result = choose(context, budget=5, protect=("a",))
    assert render_context(result) == "a b c d"
    assert "titles are left out" in result.warnings[0]
    result = choose(context, budget=3, protect=("a",))
    assert kept(result) == [(0, 0)]
    assert "budget of 3 tokens is exceeded" in result.warnings[0]


def test_a_budget_too_small_for_any_unit_keeps_nothing_and_says_what_the_shortest_needs():
    result = choose(Context("q", (extract(["a b c", "d e f g"], [0.1, 0.9], title="t"),)), budget=2)
    assert kept(result) == []
    assert "the shortest takes about 4" in result.warnings[0]


def test_rank_puts_the_most_relevant_document_first_and_unjudged_ones_last():
    pieces = [extract(["x"], [0.5], score=score, index=i) for i, score in enumerate([0.2, None, 0.9, 0.2])]
    assert [piece.index for piece in choose(Context("q", tuple(pieces)), threshold=0.0, order="rank").pieces] == [
        2,
        0,
        3,
        1,
    ]


def test_summaries_and_soft_tokens_take_their_share_of_the_budget():
    import numpy as np

    soft = SoftTokens(np.zeros((2, 4), np.float32), Document("x"), "generator", index=1)
    context = Context("q", (Summary("one two three", (), index=0), soft, extract(["a b", "c"], [0.9, 0.1], index=2)))
    result = choose(context, budget=7)
    assert result.pieces[:2] == context.pieces[:2]
    assert kept(result) == [(2, 0)]
    assert count_contexts([result], WORDS) == [7]


@pytest.mark.parametrize("counter", [ThirdsCounter(), FusingCounter()])
def test_a_budget_that_holds_everything_removes_nothing_even_when_estimates_are_off(counter):
    context = Context("q", (extract(["ab", "cd", "efg"] * 3, [0.1] * 9, title="t"), extract(["hi"], [0.2], index=1)))
    needed = counter.count([render_context(context)])[0]
    assert len(kept(choose(context, budget=needed, counter=counter))) == 10
    assert len(kept(choose(context, budget=needed - 1, counter=counter))) < 10


class LineCounter(WordCounter):
    """Words and blank lines: a separator costs a token, and parts add up to the whole."""

    def __init__(self):
        self.calls = 0

    def count(self, texts):
        self.calls += 1
        return [len(text.split()) + text.count("\n\n") for text in texts]


@pytest.mark.parametrize("summaries", [(), (Summary("short", (), index=9),)])
def test_estimates_that_add_up_need_one_exact_count(summaries):
    counter = LineCounter()
    pieces = tuple(extract(["a b c", "d e"], [0.9, 0.8 - n / 10], title="t", index=n) for n in range(5))
    result = choose(Context("q", (*pieces, *summaries)), budget=13, counter=counter)
    assert counter.calls == 3  # the units, what is not chosen from, the result
    assert counter.count([render_context(result)]) == [13]


def test_a_budget_is_used_up_even_when_parts_say_less_than_the_whole():
    context = Context("q", (extract(["abcd"] * 400, [n % 7 / 7 for n in range(400)]),))
    counter = FusingCounter()
    result = choose(context, budget=200, counter=counter)
    assert 190 <= counter.count([render_context(result)])[0] <= 200


class CharacterCounter(WordCounter):
    """Words, and how many characters were given to be counted."""

    def __init__(self):
        self.characters = 0

    def count(self, texts):
        self.characters += sum(map(len, texts))
        return super().count(texts)


def work_of(number, *, documents, **policy):
    """(calls of functions, characters counted) that a choice among so many words takes; the same on any machine."""
    scores = [(n * 7919 % 10_007) / 10_007 for n in range(number)]
    size = number // documents
    words = [f"w{n % 997}" for n in range(number)]
    pieces = tuple(
        extract(words[n : n + size], scores[n : n + size], title="t", index=n // size) for n in range(0, number, size)
    )
    calls, counter = 0, CharacterCounter()

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        result = choose(Context("q", pieces), budget=number // 5, counter=counter, **policy)
    finally:
        sys.setprofile(None)
    assert count_contexts([result], WORDS) == [number // 5]
    return calls, counter.characters


@pytest.mark.parametrize("documents", [1, 100])
def test_four_times_the_words_take_about_four_times_the_work(documents):
    small = work_of(5_000, documents=documents)
    large = work_of(20_000, documents=documents)
    for before, after in zip(small, large, strict=True):
        assert after < 5 * before


def test_bad_numbers_are_refused():
    context = Context("q", (extract(["a", "b"], [0.1, math.nan], index=3),))
    with pytest.raises(InputError, match="score nan, the first in document 3"):
        choose(context, threshold=0.1)
    with pytest.raises(InputError, match="threshold must be a number"):
        choose(Context("q", ()), threshold=math.nan)
    with pytest.raises(BudgetError, match="budget must be positive, got 0"):
        choose(Context("q", ()), budget=0)
