"""What points at a note brings it, within the budget; lists, emphasis and references are no notes."""

from __future__ import annotations

import pytest
from test_companions import choose, lines, scored

from ctxprune.text import split_sentences
from ctxprune.text.footnotes import footnotes


def noted(text: str) -> dict[str, list[str]]:
    """For each unit that points at notes, the units of those."""
    units = split_sentences(text)
    texts = [text[unit.start : unit.end] for unit in units]
    return {texts[at]: [texts[each] for each in notes] for at, notes in footnotes(text, units).items()}


@pytest.mark.parametrize(
    ("pointer", "note"),
    [
        ("The weir closes at nine.*", "* On Sundays at ten."),
        ("The weir closes at nine.*", "*Not on Sundays."),
        ("Boats† pay four euros.", "† Those above ten metres."),
        ("The level rose by 3%.(2)", "(2) Against the mean of ten years."),
        ("The level rose by a third.²", "² Against the mean of ten years."),
        ("The level rose by a third [4].", "[4] Against the mean of ten years."),
        ("The level rose by a third.[^rise]", "[^rise]: Against the mean of ten years."),
        ("The level rose (2024: 10 cm).1", "1 Against the mean of ten years."),
        ("| Mill | 40 cm [b] |", "[b] Against the mean of ten years."),
        ("Mill      09:30   15:30 (A)", "(A) Not on Sundays."),
    ],
)
def test_a_unit_points_at_its_note(pointer: str, note: str) -> None:
    assert noted(f"Kim keeps the weir.\n\n{pointer}\n\nAll of it is old.\n\n{note}") == {pointer: [note]}


def test_a_tag_that_raises_a_number_points_at_the_note_with_the_same() -> None:
    page = "<html><body><p>It closes at nine.<sup>1</sup></p><p>Kim keeps it.</p><p><sup>1</sup> On Sundays at ten.</p>"
    assert list(noted(page)) == ["<html><body><p>It closes at nine.<sup>1</sup></p>"]


def test_all_sentences_of_a_note_belong_to_it() -> None:
    text = "Children* go free.\n\n* Up to twelve years. Bring a paper. Ask Kim. Or Lou.\n\nDogs pay."
    assert noted(text)["Children* go free."] == ["* Up to twelve years.", "Bring a paper.", "Ask Kim."]


@pytest.mark.parametrize(
    "text",
    [
        "Bring these*:\n\n* boots\n* a coat\n* a lamp",
        "The *old* weir* is shut.\n\n* Since May.",
        "See weir(2) for more.\n\n(2) The gate opens.",
        "Under section 4(2) the keeper pays.\n\n(2) The keeper pays for the gate.",
        "* Since May.\n\nThe weir is shut.*",
        "The basin has 40 m² of ice.\n\n3 Boats lie in it.",
    ],
)
def test_other_marks_point_at_nothing(text: str) -> None:
    assert noted(text) == {}


FARES = """\
The boat runs all year.

Route       Adult    Child*
Upper pool  12.00    6.00
Mill        9.50     4.75
Basin       8.00     4.00

* From 4 to 15 years.

Dogs travel free.
"""


def test_a_row_brings_the_note_of_its_header_where_there_is_room() -> None:
    context = scored(FARES, {"Mill": 0.9})
    everything = ["Route       Adult    Child*", "Mill        9.50     4.75", "* From 4 to 15 years."]
    assert lines(choose(context, threshold=0.5)) == everything
    assert lines(choose(context, budget=12, floor=0.5)) == everything
    assert lines(choose(context, budget=7, floor=0.5)) == everything[:2]


def test_an_entry_of_a_list_of_references_is_not_brought() -> None:
    text = "Weirs rot from below [2].\n\nReferences\n\n[1] A. Bell, Gates, 1999.\n[2] C. Hale, Rot in wood, 2004.\n"
    assert lines(choose(scored(text, {"rot from": 0.9}), threshold=0.5)) == ["Weirs rot from below [2]."]
