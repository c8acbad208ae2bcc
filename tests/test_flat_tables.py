"""Tables whose text has every cell on a line of its own: rows get their cells back, headers are told, lists are not."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length

from ctxprune.text import split_sentences
from ctxprune.text.layout import layout
from ctxprune.text.structure import structure


def rows(text: str) -> list[tuple[str, str]]:
    """(kind, text) of the units that are of a table, and the header each row leans on."""
    units = split_sentences(text)
    roles = structure(text, units)
    shown = [" / ".join(text[unit.start : unit.end].split("\n")) for unit in units]
    return [
        (
            shown[at],
            "" if role.leans_on is None or roles[role.leans_on].kind != "table header" else shown[role.leans_on],
        )
        for at, role in enumerate(roles)
        if role.kind == "table row"
    ]


KILNS = "Length\n9.2 m\nFuel\nwood\nChambers\n4\nSmoke holes\n12\n"


@pytest.mark.parametrize(
    "text", [f"Kiln data\n{KILNS}", f"It is old.\n\n{KILNS}\nAsk at the gate.", KILNS.replace("\n", "\n\n")]
)
def test_names_and_their_values_are_rows(text: str) -> None:
    shown = [row.replace(" /  / ", " / ") for row, _ in rows(text)]
    assert shown == ["Length / 9.2 m", "Fuel / wood", "Chambers / 4", "Smoke holes / 12"]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Clay\nShrinks\nPrice", ["Red\n8%\n3.10", "White\n6%\n4.00", "Black\n9%\nask us"]),
        ("Hour\nHall\nYard", ["10:15\nThrowing\nRaku", "11:45\nGlazing\nrest", "14:00\nTalk\nKiln tour"]),
        ("Kiln\n31\n32\n33", ["Loaded\n7:00\n8:00\n-", "Lit\n9:10\n9:50\n11:30", "Opened\n18:00\n-\n20:15"]),
    ],
)
def test_rows_of_several_cells_lean_on_their_header(header: str, body: list[str]) -> None:
    text = "Week of the kilns\n" + "\n".join([header, *body]) + "\n"
    shown = [each.replace("\n", " / ") for each in (header, *body)]
    assert rows(text) == [(row, shown[0]) for row in shown[1:]]


def test_a_table_ends_where_another_one_or_a_title_begins() -> None:
    text = (
        f"{KILNS}Opening hours\nMonday\n9-12\nTuesday\n9-17\nFriday\n13-17\nHow to find us\nTake the bus to the mill.\n"
    )
    assert [row for row, _ in rows(text)][3:] == [
        "Smoke holes / 12",
        "Monday / 9-12",
        "Tuesday / 9-17",
        "Friday / 13-17",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "00:12\nso we start with clay\n00:31\nand wedge it well\n00:52\nlike this\n",
        "Potter Ann\n2 hours ago\nMy kiln broke.\nBen\n1 hour ago\nMine too.\nCem\n9 minutes ago\nOh no.\n",
        "4 bricks\n2 bags of clay\n1 shelf\n3 cones\n1 lid\n9 stilts\n",
        "1 Clay\n2 Glaze\n2.1 Ash\n2.2 Salt\n3 Firing\n4 Kilns\n",
        "a = 1\nb = c\nd = 2\ne = f\ng = 3\nh = k\n",
        "Roses are red\nfor 10 summers long\nViolets are blue\nfor 20 songs\nso sings he\nfor 30 pence\n",
    ],
)
def test_other_lines_with_numbers_in_turn_are_no_table(text: str) -> None:
    assert not {"row", "header"} & set(layout(text)[1])


@pytest.mark.parametrize("piece", ["Fuel\n4\n", "Fuel\n4\n5\n", "4\n", "Fuel\n", "A\n1\nB\nC\n2\n"])
def test_work_grows_with_the_length(piece: str) -> None:
    assert_work_grows_with_length(lambda text: layout(text), piece, size=10_000)
