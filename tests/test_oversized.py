"""Units larger than the budget: cut into clauses or words, never through an atom, offsets exact."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune import Context, Document, Extract, Pipeline, Span, load
from ctxprune.errors import InputError
from ctxprune.select.oversized import cut_oversized
from ctxprune.tokens import WordCounter

WORDS = WordCounter()
LONG = (
    "The upper mill, which the monks of the valley built in 1701 beside the old weir, was sold after the flood to Kim "
    "Park, whose family had ground corn for the town since the days of the first bridge, and it has three stones."
)


def whole(text: str, score: float = 0.5) -> Context:
    return Context(
        "Who bought the mill after the flood?", (Extract(Document(text), (Span(0, len(text), score),), (True,)),)
    )


@pytest.mark.parametrize("budget", [3, 6, 12, 20, 30])
@pytest.mark.parametrize("compressor", ["bm25-sentences", "provence"])
def test_a_part_of_the_only_sentence_is_kept_when_the_whole_does_not_fit(compressor: str, budget: int) -> None:
    pipeline = Pipeline([load(compressor, counter=WORDS)])
    (result,) = pipeline.run([Context.of("Who bought the mill after the flood?", [LONG])], budget=budget)
    (extract,) = result.after.extracts
    assert 0 < result.tokens_after <= budget
    assert all(LONG[start:end] in result.text for start, end in extract.slices())
    assert not result.warnings


def test_the_clause_with_the_words_of_the_question_comes_first() -> None:
    pipeline = Pipeline([load("bm25-sentences", counter=WORDS)])
    (result,) = pipeline.run([Context.of("Who bought the mill after the flood?", [LONG])], budget=12)
    assert "flood" in result.text


def test_a_row_of_html_is_cut_before_its_cells_and_its_rules_score_nothing() -> None:
    row = (
        "<tr><td>The upper mill</td><td>Kim Park</td><td>three stones and a wheel of larch</td><td>built 1701</td></tr>"
    )
    (extract,) = cut_oversized(whole(row), budget=5, counter=WORDS).extracts
    assert all(row[unit.start] == "<" for unit in extract.units[1:3])
    (extract,) = cut_oversized(
        whole("Mill of the flood and its weir\n==== ==== ====\nKim bought it"), budget=4, counter=WORDS
    ).extracts
    scores = {extract.source.text[unit.start : unit.end]: unit.score for unit in extract.units}
    assert {score for text, score in scores.items() if not any(map(str.isalnum, text))} == {0.0}
    assert all(score > 0.4 for text, score in scores.items() if any(map(str.isalnum, text)))


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["mill", "flood,", "https://x.org/a.b", "$ 5 million", "(so", "it)", "and", "\n"]), max_size=40
    ),
    st.integers(1, 12),
)
def test_pieces_cover_the_unit_in_order_and_keep_atoms_whole(words: list[str], budget: int) -> None:
    text = " ".join(words).strip()
    if not text:
        return
    (extract,) = cut_oversized(whole(text), budget=budget, counter=WORDS).extracts
    assert "".join("".join(text[unit.start : unit.end].split()) for unit in extract.units) == "".join(text.split())
    assert all(extract.kept) and all(0.499 < unit.score <= 0.5 for unit in extract.units)
    for atom in ("https://x.org/a.b", "$ 5 million"):
        assert sum(atom in text[unit.start : unit.end] for unit in extract.units) >= min(1, text.count(atom))


@pytest.mark.parametrize(("poor", "best"), [(0.2, 0.9), (-3.0, -1.0), (-1.0, 2.0)])
def test_a_long_unit_far_behind_the_best_is_no_store_of_crumbs(poor: float, best: float) -> None:
    text = "The choir rehearses on Mondays, and on Thursdays, and before every concert. Tea is at four."
    long, short = Span(0, 75, poor), Span(76, 91, best)
    context = Context("When is tea?", (Extract(Document(text), (long, short), (True, True)),))
    assert cut_oversized(context, budget=6, counter=WordCounter()) == context
    near = Context("When is tea?", (Extract(Document(text), (Span(0, 75, best), short), (True, True)),))
    assert len(cut_oversized(near, budget=6, counter=WordCounter()).extracts[0].units) > 2


def test_what_fits_stays_as_it_is() -> None:
    context = whole("The mill turns.")
    assert cut_oversized(context, budget=3, counter=WORDS) is context


def test_removed_units_and_blobs_stay_whole() -> None:
    blob = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgA5" * 40
    text = f"{LONG} {blob}"
    spans = (Span(0, len(LONG), 0.1), Span(len(LONG) + 1, len(text), 0.9))
    extract = Extract(Document(text), spans, (False, True))
    context = cut_oversized(Context("q", (extract,)), budget=3, counter=load_counter_of_bytes())
    assert context.extracts == (extract,)


def load_counter_of_bytes() -> WordCounter:
    class Bytes(WordCounter):
        def count(self, texts):  # type: ignore[no-untyped-def]
            return [len(text.encode()) for text in texts]

    return Bytes()


def test_lead_takes_no_kind_of_units() -> None:
    with pytest.raises(InputError, match="lead chooses words"):
        load("lead", units="lines")


def test_load_passes_the_kind_of_units_on() -> None:
    text = "It turns. It is old.\nIt has\nthree stones."
    for name in ("provence", "bm25-sentences", "recomp-extractive", "random"):
        (scored,) = load(name, units="lines").score([Context.of("How old?", [text])])  # type: ignore[attr-defined]
        (extract,) = scored.extracts
        assert [text[unit.start : unit.end] for unit in extract.units] == text.split("\n")
