"""Tables with blank lines in them: rows are rows, and lean on the header above them, however far apart they stand."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

ROWS = {
    "commas": ("Weir,Drop,Keeper", "Upper,2.1,Kim", "Lower,0.9,Lou", "Mill,1.4,Ann"),
    "bars": ("| Weir | Drop |", "| Upper | 2.1 |", "| Lower | 0.9 |", "| Mill | 1.4 |"),
    "tabs": ("Weir\tDrop\tKeeper", "Upper\t2.1\tKim", "Lower\t0.9\tLou", "Mill\t1.4\tAnn"),
    "columns": ("Weir      Drop    Keeper", "Upper     2.1 m   Kim", "Lower     0.9 m   Lou", "Mill      1.4 m   Ann"),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("gaps", ["\n\n|\n|\n", "\n\n|\n\n|\n\n", "\n|\n\n|\n", "\n \n|\n|\n"])
def test_rows_lean_on_the_header_over_blank_lines(rows: tuple[str, ...], gaps: str) -> None:
    parts = [rows[0], *(part for pair in zip(gaps.split("|"), rows[1:], strict=True) for part in pair)]
    text = "The weirs are these.\n\n" + "".join(parts) + "\n\nAll of them leak."
    found = leaning(text)
    assert [found[row] for row in rows[1:]] == [rows[0]] * 3
    assert found["All of them leak."] != rows[0]


@pytest.mark.parametrize(
    "text",
    [
        "Weirs leak, as a rule.\n\nKim mends them, or Lou.\n\nNobody pays, I fear.",
        "Two of them.  They leak.\n\nKim knows.  Lou does not.\n\nNobody pays for it.  Ever.",
        "Kim, Lou\n\nUpper,2.1,7\nLower,0.9,8\nMill,1.4,9",
        "Price: 3, as agreed\n\nUpper,2.1,7\nLower,0.9,8\nMill,1.4,9",
    ],
)
def test_what_only_stands_above_rows_is_no_header(text: str) -> None:
    spans = split_sentences(text)
    assert "table header" not in {role.kind for role in structure(text, spans)}


def test_another_table_does_not_lean_on_the_header_of_the_first() -> None:
    text = "Weir,Drop,Keeper\nUpper,2.1,Kim\nLower,0.9,Lou\n\n1;2;3;4\n5;6;7;8\n9;10;11;12"
    assert leaning(text)["5;6;7;8"] is None


@pytest.mark.parametrize("piece", ["a,b\n\n", "a  b\n\n", "a,b\n\na,b\nc,d\n\n", "| a |\n\n", "a\tb\n\n1\t2\n3\t4\n\n"])
def test_work_grows_with_the_length_of_odd_tables(piece: str) -> None:
    assert_structure_grows_with_length(piece)


def test_tabs_that_set_paragraphs_in_part_no_cells() -> None:
    text = (
        "Hens\n\n\tThe hens of the lower yard\n\tlay in the barn. Nobody\n\tknows why.\n\n\tOne of them is black.\n\n"
    )
    text += "\tIt bites.\n"
    spans = split_sentences(text)
    assert {role.kind for role in structure(text, spans)} <= {"prose", "heading"}
    assert "\tlay" in text[spans[1].start : spans[1].end]
