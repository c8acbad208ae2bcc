"""Titles that a blank line parts from their text are headings; other short lines alone are none."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

HENS = "Hens lay in the morning, and most of them lay in the same nest."
DUCKS = "Ducks lay before sunrise. Nobody finds the eggs."


def headings(text: str) -> list[str]:
    spans = split_sentences(text)
    roles = structure(text, spans)
    return [text[span.start : span.end] for span, role in zip(spans, roles, strict=True) if role.kind == "heading"]


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        (f"The yard is open.\n\nHens\n\n{HENS}\n\nDucks and geese\n\n{DUCKS}", ["Hens", "Ducks and geese"]),
        (f"Les poules\n\n{HENS}\n\n{DUCKS}", ["Les poules"]),
        (
            f"The yard is open.\n\nFeed\n\n- oats\n- peas\n\nWater\n\n1. of the well\n2. of the race\n\n{HENS}",
            ["Feed", "Water"],
        ),
        (f"2. Hens\n\n{HENS}\n\n3. Ducks\n\n{DUCKS}", ["2. Hens", "3. Ducks"]),
        (f"4. Poultry\n\n4.1 Hens\n{HENS}\n\n4.2 Ducks\n{DUCKS}", ["4. Poultry", "4.1 Hens", "4.2 Ducks"]),
        ("1. FOWL\n\na. Hens lay by day.\n\nb. Ducks lay by night.", ["1. FOWL"]),
        (
            "henhouse (1.4-2)\n\n  * A wider door.\n\nhenhouse (1.4-1)\n\n  * A door.",
            ["henhouse (1.4-2)", "henhouse (1.4-1)"],
        ),
        (
            "henhouse 1.4\n\n  The door is wider and\n  opens by itself.\n\nhenhouse 1.3\n\n  A door.",
            ["henhouse 1.4", "henhouse 1.3"],
        ),
    ],
)
def test_a_short_line_alone_over_its_text_is_a_heading(text: str, titles: list[str]) -> None:
    assert headings(text) == titles
    assert list(leaning(text).values())[-1] == titles[-1]


@pytest.mark.parametrize(
    "text",
    [
        f"The yard is open.\n\nHens\n\n{HENS}\n\n{DUCKS}",  # the only one, and not the first
        f"{HENS}\n\nRead more\n\n{DUCKS}\n\nRead more\n\n{HENS}",
        f"{HENS}\n\nShare this page\n\n{DUCKS}\n\nBy Kim Bell\n\n{HENS}",
        f"They lay\n\nHens and\n\n{HENS}\n\nkim@yard.example\n\n{DUCKS}",
        "Kim Bell\n\nMill Lane 4\n\nYard Town",
        "1. Hens\n\n2. Ducks\n\n3. Geese\n\nAll of them are fed by Kim in the morning.",
        f"What we keep:\n\n1. Hens\n\n{DUCKS}",
        f"3. Juni 2024\n\n{HENS}",
        f"How to feed them\n{HENS}\n\n1. Fill the trough\n\n{DUCKS}\n\n2. Shut the gate\n\n{HENS}",
        "Run the mill with\n\n    grind oats\n\nor, if it is wet, with\n\n    grind peas",
    ],
)
def test_other_lines_alone_are_no_headings(text: str) -> None:
    assert [title for title in headings(text) if not title.startswith("How to")] == []


GATE = "What the keeper of the upper gate asks of everybody who brings a boat at night"
HOURS = "The bell is rung twice. Nobody passes before the lamp\nat the bow is lit, and the toll is paid by day."


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        (f"{GATE}\n\n{HOURS}\n\n{HENS}", [GATE]),
        (f"Geese\n\n{HENS}\n\n{GATE}, and of swimmers\n\n{HOURS}", ["Geese", f"{GATE}, and of swimmers"]),
        (f"{GATE}\n\n- a lamp\n- a rope\n\n{HENS}", [GATE]),
        (f"{HENS}\n\n{GATE}\n\n{HOURS}", []),  # the only one, and not the first
        (f"{GATE}.\n\n{HOURS}", []),
        (f"{GATE} \n\n{HOURS}", []),
        (f"{GATE},\n\n{HOURS}", []),
        (f"{GATE} (if it is dark\n\n{HOURS}", []),
        (f"{GATE}\n\nA lamp.", []),
        (f"{GATE}\n\nand not only then, but whenever the bell is rung a second time from the upper gate.", []),
        (f"Figure 2. {GATE}\n\n{HOURS}", []),
        (f"{GATE * 2}\n\n{HOURS}", []),
    ],
)
def test_a_whole_line_that_ends_no_sentence_is_a_heading_over_more_text(text: str, titles: list[str]) -> None:
    assert headings(text) == titles


@pytest.mark.parametrize(
    "piece", ["A b\n\nC d e.\n\n", "1. A\n\n", "a 1\n\n  b\n\n", "A\n\n- b\n- c\n\n", f"{GATE}\n\n{HOURS}\n\n"]
)
def test_work_grows_with_the_length_of_odd_titles(piece: str) -> None:
    assert_structure_grows_with_length(piece)


CONTENTS = "\n".join(
    ["CONTENTS", "", "1. THE YARD", "1.1. What is a yard?", "1.2. Gates", "", "2. HENS", "", "2.1. Feed", "2.2. Water"]
)


def test_the_entries_of_a_list_of_contents_are_no_headings() -> None:
    text = f"{CONTENTS}\n\n1. THE YARD\n\n1.1. What is a yard?\n\n{HENS}\n\n1.2. Gates\n\n{DUCKS}"
    assert headings(text) == ["CONTENTS", "1. THE YARD", "1.1. What is a yard?", "1.2. Gates"]
    assert leaning(text)[HENS] == "1.1. What is a yard?"


def test_counted_titles_over_text_stay_headings() -> None:
    text = f"1. THE YARD\n\n1.1. Gates\n\n{HENS}\n\n2. HENS\n\n2.1. Feed\n\n{DUCKS}\n\n3. GEESE\n\n3.1. Feed\n\n{DUCKS}"
    assert headings(text) == ["1. THE YARD", "1.1. Gates", "2. HENS", "2.1. Feed", "3. GEESE", "3.1. Feed"]
