"""Recipes without marks: amounts are items of what stands over them, steps those of the line that introduces them."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_apart_titles import headings
from test_units import units
from test_units_field import leaning

from ctxprune.select.companions import introduced
from ctxprune.text import split_sentences
from ctxprune.text.structure import structure
from ctxprune.types import Document, Extract

DOUGH = "500 g rye flour\n3/4 tsp yeast\n1 1/2 cups of water\nsalt"
STEPS = "Mix all of it in a bowl.\nLet it rest over night.\nBake it for an hour."


def kinds(text: str) -> dict[str, str]:
    spans = split_sentences(text)
    return {text[s.start : s.end]: role.kind for s, role in zip(spans, structure(text, spans), strict=True)}


def listed(text: str) -> list[str]:
    return [unit for unit, kind in kinds(text).items() if kind == "list item"]


@pytest.mark.parametrize(
    "amounts",
    [
        DOUGH,
        "½ Liter Milch\n2 Eier\nca. 80 g Zucker\nZimt",
        "12 cl de lait\n2 œufs\n1 pincée de sel",
        "2-3 cebollas\n1,5 kg de patatas\n4 cucharadas de aceite",
    ],
)
def test_amounts_are_items_under_the_line_above_them(amounts: str) -> None:
    lines = amounts.split("\n")
    assert listed(f"Rye bread\n\n{amounts}\n\nIt keeps for days.") == lines
    assert headings(f"Rye bread\n\n{amounts}\n\nIt keeps for days.") == ["Rye bread"]
    found = leaning(f"What you need\n{amounts}\n\nIt keeps for days.")
    assert {found[line] for line in lines} == {"What you need"}


def test_a_short_list_of_amounts_counts_below_another() -> None:
    glaze = "For the glaze\n1 egg\n2 tsp milk"
    assert listed(f"{DOUGH}\n\n{glaze}")[-2:] == ["1 egg", "2 tsp milk"]
    assert listed(glaze) == []
    assert leaning(f"{DOUGH}\n\n{glaze}")["2 tsp milk"] == "For the glaze"


def test_steps_are_items_of_the_line_that_introduces_them_below_amounts() -> None:
    assert leaning(f"{DOUGH}\n\nMethod\n{STEPS}")["Bake it for an hour."] == "Method"
    assert listed(f"Rye bread is dark.\n\nMethod\n{STEPS}") == []
    assert listed(f"{DOUGH}\n\n{STEPS}") == DOUGH.split("\n")
    assert units(f"{DOUGH}\n\n{STEPS}")[-3:] == STEPS.split("\n")


@pytest.mark.parametrize(
    "text",
    [
        "3 boats came.\n4 boats left.\n5 boats stayed.",
        "In the year\n1911 the weir was built by\n40 masons of the upper\nvalley and its towns",
        "Weir\n2 m\nof water",
    ],
)
def test_sentences_and_prose_are_no_amounts(text: str) -> None:
    assert listed(text) == []


def test_a_line_without_a_colon_brings_the_list_that_it_introduces() -> None:
    text = f"{DOUGH}\n\nFor the glaze\n1 egg\n2 tsp milk\n\nIt keeps for days."
    spans = split_sentences(text)
    extract = Extract(Document(text), tuple(spans), (True,) * len(spans))
    [found] = introduced(extract, structure(text, spans))
    shown = [text[spans[at].start : spans[at].end] for at in (*found.above, *found.units)]
    assert shown == ["For the glaze", "1 egg", "2 tsp milk"]


@pytest.mark.parametrize("piece", ["1 a\n", "A b\n1 c\n2 d\n\n", "1 a\n2 b\n3 c\n\nA\nB c.\nD e.\nF g.\n\n"])
def test_work_grows_with_the_length_of_odd_recipes(piece: str) -> None:
    assert_structure_grows_with_length(piece)
