"""Which first rows name the columns of a table, and what a line above rows says of them."""

from __future__ import annotations

import pytest
from test_units_field import leaning


@pytest.mark.parametrize(
    "rows",
    [
        "%q     the keeper of the lock\n%r     the rise of the water\n%t     the time of the tide",
        "/gate    opens the gate\n/weir    lowers the weir\n/bell    rings the bell",
        "Lesson 1    Knots\nLesson 3    Sails in a light wind\nLesson 9    The open sea",
        "-g    the gate\n-w    the weir\n-b    the bell",
    ],
)
def test_a_first_row_like_those_below_names_no_columns(rows: str) -> None:
    found = leaning(f"These are all.\n\n{rows}\n\nThere are no others.")
    first, *others = rows.split("\n")
    assert all(found[row] != first for row in others)


@pytest.mark.parametrize(
    "rows",
    [
        "Sign    Meaning    Since\n%q      keeper     2001\n%r      rise       2004",
        "Lesson      Subject    Hours\nLesson 3    Sails      2\nLesson 9    Ropes      4",
    ],
)
def test_a_first_row_that_names_columns_is_the_header_of_the_others(rows: str) -> None:
    found = leaning(f"These are all.\n\n{rows}\n\nThere are no others.")
    first, *others = rows.split("\n")
    assert [found[row] for row in others] == [first] * len(others)


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_rows_lean_on_the_words_above_them(gap: str) -> None:
    rows = "Upper lock    07:10  09:10  11:10\nMill          07:25  09:25  11:25\nBasin         07:40  09:40  11:40"
    text = f"The boat has two seasons.\n\nSummer{gap}{rows}\n\nWinter{gap}{rows.replace('07', '08')}\n\nDogs pay half."
    found = leaning(text)
    assert found["Mill          07:25  09:25  11:25"] == "Summer"
    assert found["Mill          08:25  09:25  11:25"] == "Winter"
    assert found["Dogs pay half."] is None


def test_a_sentence_above_rows_is_no_title_of_them() -> None:
    rows = "Upper lock    07:10  09:10\nMill          07:25  09:25\nBasin         07:40  09:40"
    assert leaning(f"The boat leaves at these hours.\n\n{rows}")["Mill          07:25  09:25"] is None


FRAME = """\
┌──────────┬──────────────────────┐
│Gate      │ What it is for       │
├──────────┼──────────────────────┤
│upper     │ keeps the water of   │
│          │ the pool from the    │
│          │ mill                 │
├──────────┼──────────────────────┤
│lower     │ lets boats into the  │
│          │ basin                │
└──────────┴──────────────────────┘"""


@pytest.mark.parametrize("frame", [FRAME, FRAME.translate(str.maketrans("┌├└─│┼┬┴┐┤┘", "╔╠╚═║╬╦╩╗╣╝"))])
def test_the_lines_of_a_cell_in_a_frame_are_one_row(frame: str) -> None:
    found = leaning(f"There are two gates.\n\n{frame}\n\nThey are of oak.")
    header = "\n".join(frame.split("\n")[:3])
    rows = [unit for unit in found if "mill" in unit or "basin" in unit]
    assert [len(row.split("\n")) for row in rows] == [4, 3]
    assert [found[row] for row in rows] == [header, header]
