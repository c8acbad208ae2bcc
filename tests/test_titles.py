"""Titles right above their text, numbered clauses and what leads in a list are units that the rest leans on."""

from __future__ import annotations

import time

import pytest
from test_units import assert_split, units
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

BODY = (
    "Kim opens the upper gate at seven and closes it when the last boat has gone through to the basin.\n"
    "Nobody may pass by night without a light."
)


@pytest.mark.parametrize(
    "title",
    ["3. Opening hours", "III. Opening hours", "3 Opening hours", "Opening hours", "When does it open?", "Öffnung"],
)
def test_a_title_right_above_its_text_is_a_heading(title: str) -> None:
    found = leaning(f"Weirs of the valley are old.\n\n{title}\n{BODY}\n\nThe end of it is near.")
    assert found["Nobody may pass by night without a light."] == title
    assert list(found)[1] == title


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ms Bell\nThe gate is shut since Monday, and nobody of us knows for how long it will be.",
        "The gate of the upper weir, which Kim has\nOpened for years, is shut since the flood of May.",
        "Kim Bell\nMill Lane 4\nWeir Town",
        "Copyright 2004 Kim Bell\nPermission is granted to copy this text as often as anybody wishes to do it.",
        "He said.\nThe gate is shut since Monday, and nobody of us knows for how long it will be.",
        "Instructions\n\n1. Drain the race\nOpen the lower gate, then wait until the wheel stands still in the bed.",
        "1. Oats\n2. Rye that was ground at the upper mill, which has the better stones of the two.",
    ],
)
def test_another_short_first_line_is_no_heading(text: str) -> None:
    spans = split_sentences(text)
    assert "heading" not in {role.kind for role in structure(text, spans)}


@pytest.mark.parametrize("mark", ["- ", "* ", "1. "])
def test_items_lean_on_the_words_right_above_them(mark: str) -> None:
    items = f"{mark}oats\n{mark.replace('1', '2')}rye"
    text = f"The mill grinds.\n\nTools for the mill\n{items}\n\nKim sells it."
    assert leaning(text)[f"{mark}oats"] == "Tools for the mill"


def test_a_title_stands_below_the_headings_with_marks() -> None:
    text = f"# Weirs\n\n## Upper\n\nOpening hours\n{BODY}\n\n## Lower\n\nIt leaks."
    assert leaning(text)["Opening hours"] == "## Upper"
    assert leaning(text)["## Lower"] == "# Weirs"


def test_named_sections_are_headings_without_blank_lines() -> None:
    text = (
        "Section 1 - Boats\nBoats wait.\nSection 2 - Tolls\nTolls are due as told in\nSection 1 of this text. We wait."
    )
    assert units(text) == [
        "Section 1 - Boats",
        "Boats wait.",
        "Section 2 - Tolls",
        "Tolls are due as told in\nSection 1 of this text.",
        "We wait.",
    ]
    assert leaning(text)["We wait."] == "Section 2 - Tolls"


def test_clauses_with_and_without_full_stops_are_units_below_their_title() -> None:
    text = (
        "7. TOLLS\n7.1 Each boat pays two pounds at the gate\n7.2 The keeper may let a boat pass free:\n"
        "    (a) if it carries the mail; or\n    (b) by day, if it is empty.\n7.3. Tolls fall due at once.\n"
        "8. NIGHT\nNobody passes by night. The gate is locked."
    )
    assert units(text) == [line.strip() for line in text.replace("night. The", "night.\nThe").split("\n")]
    found = leaning(text)
    assert found["7.1 Each boat pays two pounds at the gate"] == "7. TOLLS"
    assert found["(b) by day, if it is empty."] == "7.2 The keeper may let a boat pass free:"
    assert found["The gate is locked."] == "8. NIGHT"


def test_a_number_in_wrapped_prose_begins_no_clause() -> None:
    assert_split(
        "The gate was mended as told in chapter\n7.1 of the mill book, and it was tarred as told in\n9.4 of it.¶"
    )


def test_a_short_line_in_small_letters_is_not_cut_at_a_shortened_word() -> None:
    assert_split("Stir in\n\n- 2 tsp. of salt¶\n- 1 pkg. yeast¶".replace("in\n", "in¶\n"))


def test_lines_of_wrapped_capitals_are_no_verse() -> None:
    text = "THE GATE IS OPENED WITHOUT ANY WARRANTY, SUCH OR\nIMPLIED, AND WHOEVER PASSES\nMUST SHOW A LIGHT."
    assert units(text) == [text]


def test_a_line_with_a_full_stop_alone_parts_paragraphs() -> None:
    assert units(" Kim may copy it\n .\n Lou may sell it") == ["Kim may copy it\n .", "Lou may sell it"]


@pytest.mark.parametrize("piece", ["A\nB.\n\n", "A\n- b\n", "1.1 a b c d\n", "1. A\n1.1 b\n", " .\n", "2.2. A. "])
def test_work_grows_with_the_length_of_odd_titles(piece: str) -> None:
    """Four times the text may take eight times as long, in one of several tries."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        structure(text, split_sentences(text))
        return time.process_time() - started

    assert any(seconds(20_000) <= 8 * seconds(5_000) + 0.05 for _ in range(8))
