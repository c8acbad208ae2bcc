"""What overlapping documents share is kept once: cuts of chunks, whole copies, and what only looks alike."""

from dataclasses import replace
from itertools import accumulate
from random import Random
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_select import choose

from ctxprune import Context, Document, load
from ctxprune.errors import InputError
from ctxprune.select import Policy, note_untouched
from ctxprune.select.budget import Units
from ctxprune.select.repeats import repeats_of
from ctxprune.text import split_sentences
from ctxprune.types import Extract, Span

SENTENCES = (
    "The loom was brought to the valley in 1832.",
    "Six weavers worked at it by the light of oil lamps.",
    "Their cloth went by mule to the port of Savona.",
    "A flood carried the shed away in the winter of 1871.",
    "What is left of the loom stands in the town hall.",
)
TEXT = " ".join(SENTENCES)


def context(*texts, scores=None, titles=None):
    """Each text a document of sentences that all pass, or that score as `scores` has them, document by document."""
    pieces = []
    for place, text in enumerate(texts):
        units = split_sentences(text)
        mine = [0.9] * len(units) if scores is None else scores[place]
        units = tuple(replace(unit, score=score) for unit, score in zip(units, mine, strict=True))
        document = Document(text, title=titles[place] if titles else "")
        pieces.append(Extract(document, units, (True,) * len(units), index=place))
    return Context("What became of the loom?", tuple(pieces))


def texts(chosen):
    return [extract.text for extract in chosen.extracts]


def once(given, **rules):
    return texts(choose(given, **{"threshold": 0.5, "repeats": False} | rules))


def test_the_overlap_of_two_chunks_is_kept_once_and_the_whole_sentence_rather_than_half_of_it():
    first, second = TEXT[: TEXT.index("away in the")], TEXT[TEXT.index("worked at it") :]
    assert once(context(first, second)) == [" ".join(SENTENCES[:3]), " ".join(SENTENCES[3:])]
    assert texts(choose(context(first, second), threshold=0.5, repeats=True)) == [first.strip(), second]
    assert once(context(second, first)) == [
        second.removeprefix("worked at it by the light of oil lamps. "),
        " ".join(SENTENCES[:2]),
    ]


def test_a_copy_is_left_out_and_white_space_makes_no_other_text():
    given = context(TEXT, TEXT.replace(". ", ".\n"), " ".join(SENTENCES[1:3]))
    assert once(given) == [TEXT, "", ""]


def test_the_document_that_scores_better_keeps_what_both_have():
    low, high = [0.6] * 3, [0.8, 0.7, 0.7]
    given = context(" ".join(SENTENCES[:3]), " ".join(SENTENCES[1:4]), scores=[low, high])
    assert once(given) == [SENTENCES[0], " ".join(SENTENCES[1:4])]


def test_an_overlap_of_short_lines_is_kept_once():
    lines = ["Ferry pier", "Berth 4", "Gate 12", "Dock C", "Ramp 2", "Ask the mate at the bar for a key."]
    page = "\n\n".join(lines)
    first, second = page[: page.index("the bar")], page[page.index("th 4") :]
    kept = [text.split("\n\n") for text in once(context(first, second, titles=("Pier", "Pier")))]
    assert kept == [lines[:5], lines[5:]]
    assert once(context(first, second, titles=("Pier", "Port"))) == [first.strip(), second]


def test_a_heading_that_a_cut_parted_from_its_text_is_kept_above_the_text():
    heading, steps = "## How the loom is threaded", "1. Wind the warp.\n2. Lift the heddles.\n"
    first, second = f"{SENTENCES[0]}\n\n{heading}", f"{heading}\n\n{steps}"
    given = context(first, second, scores=[[0.9, 0.9], [0.8, 0.7, 0.7]])
    assert once(given, companions=True) == [SENTENCES[0], second.strip()]
    assert once(context(heading, second)) == ["", second.strip()]


@pytest.mark.parametrize("limits", [{"threshold": 0.5}, {"threshold": 0.5, "budget": 200}])
def test_a_step_that_two_chunks_share_is_kept_among_the_other_steps(limits):
    steps = ["1. Wind the warp on the beam.", "2. Lift the heddles one by one.", "3. Throw the shuttle."]
    first, second = "## Threading\n\n" + "\n".join(steps[:2]), f"{steps[1]}\n{steps[2]}\n\nRest."
    given = context(second, first, scores=[[0.9, 0.1, 0.1], [0.8, 0.8, 0.7]])
    assert once(given, companions=True, **limits) == ["", first]
    assert once(given, companions=True, protect=("heddles",), **limits) == [steps[1], first]
    assert once(given, **limits) == [steps[1], f"## Threading\n\n{steps[0]}"]


def test_what_was_not_chosen_in_one_document_stays_in_the_other():
    given = context(" ".join(SENTENCES[:2]), " ".join(SENTENCES[1:3]), scores=[[0.9, 0.4], [0.8, 0.9]])
    assert once(given) == [SENTENCES[0], " ".join(SENTENCES[1:3])]


@pytest.mark.parametrize(
    ("first", "second", "titles"),
    [
        (f"The T7 is light. {SENTENCES[2]} It is red.", f"The T9 is heavy. {SENTENCES[2]} It is blue.", None),
        (TEXT, TEXT, ("Loom of Carcare", "Loom of Millesimo")),
        ("Ask us. Call now.", "Call now. Or write.", None),
    ],
    ids=["a sentence that two texts happen to share", "titles that differ", "a few letters"],
)
def test_documents_that_do_not_overlap_keep_what_they_have(first, second, titles):
    assert once(context(first, second, titles=titles)) == [first, second]


def test_a_number_of_units_is_filled_up_with_others_than_repeats():
    given = context(" ".join(SENTENCES[:2]), TEXT, scores=[[0.9, 0.8], [0.9, 0.8, 0.7, 0.6, 0.2]])
    assert once(given, top_n=3) == ["", " ".join(SENTENCES[:3])]
    assert texts(choose(given, threshold=0.5, top_n=3, repeats=True)) == [" ".join(SENTENCES[:2]), SENTENCES[0]]


def test_a_budget_buys_a_shared_sentence_once():
    chunks = [" ".join(SENTENCES[:3]), " ".join(SENTENCES[2:])]
    given = context(*chunks, scores=[[0.2, 0.2, 0.9], [0.9, 0.8, 0.2]])
    rules = {"threshold": 0.5, "budget": 22}
    assert texts(choose(given, repeats=True, **rules)) == [SENTENCES[2], SENTENCES[2]]
    assert once(given, **rules) == [SENTENCES[2], SENTENCES[3]]


def test_a_copy_that_stands_for_a_better_one_is_judged_by_its_score():
    held, holder = SENTENCES[1], " ".join(SENTENCES[:3])
    given = context(held, holder, SENTENCES[4], scores=[[0.9], [0.6, 0.55, 0.6], [0.8]])
    assert once(given, top_n=1) == ["", held, ""]
    assert once(given, budget=12) == ["", held, ""]
    assert [unit.score for unit in choose(given, threshold=0.5, repeats=False).extracts[1].units] == [0.6, 0.55, 0.6]


def test_as_many_as_are_asked_for_are_kept_and_none_of_them_twice():
    given = context(TEXT, TEXT, scores=[[0.9, 0.8, 0.3, 0.2, 0.1]] * 2)
    assert once(given, threshold=0.95, min_keep=3) == [" ".join(SENTENCES[:3]), ""]
    assert once(context(*[SENTENCES[0]] * 3, scores=[[0.4]] * 3), min_keep=2) == [SENTENCES[0], "", ""]


def test_units_may_begin_and_end_with_white_space():
    texts_in = (f"\n {SENTENCES[3]}\n", f" {SENTENCES[3]}", " \n ", "")
    pieces = tuple(
        Extract(Document(text), (Span(0, len(text), 0.9),), (True,), index=at) for at, text in enumerate(texts_in)
    )
    chosen = choose(Context("When?", pieces), threshold=0.5, repeats=False)
    assert [any(extract.kept) for extract in chosen.extracts] == [True, False, True, True]


def test_protected_text_stays_wherever_it_stands():
    given = context(" ".join(SENTENCES[:3]), " ".join(SENTENCES[2:]))
    assert once(given, protect=("Savona",)) == [" ".join(SENTENCES[:3]), " ".join(SENTENCES[2:])]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6), st.data())
def test_nothing_that_passes_is_lost_whatever_the_chunks(cuts, data):
    chunks = [" ".join(SENTENCES[min(pair) : max(pair) + 1]) for pair in cuts]
    number = [len(split_sentences(chunk)) for chunk in chunks]
    scores = [data.draw(st.lists(st.sampled_from([0.1, 0.6, 0.9]), min_size=n, max_size=n)) for n in number]
    given = context(*chunks, scores=scores)
    passing = {
        extract.source.text[unit.start : unit.end]
        for extract in given.extracts
        for unit in extract.units
        if unit.score >= 0.5
    }
    kept = [sentence for text in once(given) for sentence in SENTENCES if sentence in text]
    assert set(kept) == passing
    # neighbours share no more than what one of them left out
    assert len(kept) <= sum(unit.score >= 0.5 for extract in given.extracts for unit in extract.units)


def test_a_document_that_only_repeats_another_is_named():
    chosen = choose(context(SENTENCES[0], TEXT, TEXT), threshold=0.5, repeats=False)
    assert chosen.warnings == ("documents 1, 3 are left out: all of each stands in another document too",)
    assert choose(context(TEXT[:120], TEXT[50:]), threshold=0.5, repeats=False).warnings == ()


def test_a_warning_names_no_more_copies_than_a_person_reads():
    [warning] = choose(context(*[TEXT] * 40), threshold=0.5, repeats=False).warnings
    assert warning.startswith("documents 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 29 more are left out")


def test_where_repeats_went_nobody_is_told_that_nothing_did():
    long = "\n".join(f"Pane {number} of the greenhouse was set by hand." for number in range(200))
    scored, other = (replace(context(long, text), warnings=()) for text in (long, long.replace("Pane", "Post")))
    assert note_untouched(scored, choose(scored, threshold=0.5, repeats=False), 0.5).warnings == (
        "document 2 is left out: all of it stands in another document too",
    )
    [warning] = note_untouched(other, choose(other, threshold=0.5, repeats=False), 0.5).warnings
    assert warning.startswith("nothing of a long context was removed")


def test_long_texts_that_share_sentences_in_another_order_take_time_by_their_length():
    lines = [f"Voucher {number} of the box was stamped on the left." for number in range(40_000)]
    mixed = lines.copy()
    Random(5).shuffle(mixed)
    pieces = []
    for index, each in enumerate((lines, mixed)):
        ends = [*accumulate(len(line) + 1 for line in each)]
        units = tuple(Span(end - len(line) - 1, end - 1, 0.9) for line, end in zip(each, ends, strict=True))
        pieces.append(Extract(Document("\n".join(each)), units, (True,) * len(units), index=index))
    given = Context("Which?", tuple(pieces))
    began = process_time()
    repeats = repeats_of(given, Units.of(given), np.ones(80_000, np.bool_))
    assert not repeats.again.any()
    assert process_time() - began < 10  # 3 s; 30 s when each sentence had the texts compared to their ends


def test_texts_that_are_all_alike_are_compared_once():
    given = context("mi" * 150_000, "mi" * 150_000, "mi" * 149_000)
    began = process_time()
    assert [any(extract.kept) for extract in choose(given, threshold=0.5, repeats=False).extracts].count(True) == 1
    assert process_time() - began < 5  # 0.3 s; 15 s when each of the shifts at which they are the same was looked at


def test_many_copies_of_a_long_text_are_as_quick_as_one():
    lines = [f"Entry {number} of the ledger was paid in full at noon." for number in range(1500)]
    given = context(*["\n".join(lines)] * 8)
    chosen = choose(given, threshold=0.5, repeats=False)
    assert [sum(extract.kept) for extract in chosen.extracts] == [1500] + [0] * 7


def test_pruners_keep_shared_sentences_once_and_choosers_of_words_do_not_take_the_rule():
    chunks = [Document(" ".join(SENTENCES[:4])), Document(" ".join(SENTENCES[3:]))]
    given = Context.of("What carried the shed away, and when?", chunks)
    [after] = load("provence").compress([given], threshold=0.0)
    assert " ".join(texts(after)) == TEXT
    [after] = load("provence", policy=Policy(repeats=True)).compress([given], threshold=0.0)
    assert texts(after) == [chunk.text for chunk in chunks]
    with pytest.raises(InputError, match="llmlingua2 does not choose sentences"):
        load("llmlingua2", policy=Policy(repeats=False))
    with pytest.raises(InputError, match=r"Policy\.repeats must be true, false or None, got 'no'"):
        Policy(repeats="no")


def test_scores_are_those_of_the_model_whatever_repeats():
    given = Context.of("What carried the shed away?", [Document(TEXT), Document(TEXT)])
    [after] = load("provence").compress([given])
    first, second = ([unit.score for unit in extract.units] for extract in after.extracts)
    assert np.allclose(first, second, atol=1e-3)
