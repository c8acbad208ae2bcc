"""Commands at a prompt are records with what they printed; titles between the lists of a change log are headings."""

from __future__ import annotations

import pytest
from test_units import assert_split, units
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure


@pytest.mark.parametrize("prompt", ["$ ", "kim@mill:~/weir$ ", "root@mill:/srv# ", "(venv) $ "])
def test_a_command_comes_with_its_output(prompt: str) -> None:
    assert_split(
        f"The gate did not answer.¶\n\n{prompt}gatectl status\n● upper - open\n  since 09:12, by hand¶\n"
        f"{prompt}gatectl level --all\nupper   2.10 m\nlower   0.92 m¶\n{prompt}gatectl shut upper¶\n\nIt was shut.¶"
    )


def test_long_output_is_cut_into_its_lines() -> None:
    printed = [f"gate {number} open" for number in range(20)]
    found = units("$ gatectl list\n" + "\n".join(printed) + "\n$ gatectl shut 3\n")
    assert found[0] == "\n".join(["$ gatectl list", *printed[:8]])
    assert found[1:] == [*printed[8:], "$ gatectl shut 3"]


@pytest.mark.parametrize("text", ["$ 4.50 for a boat\n$ 2.00 for a dog", "$ gatectl list\nIt shuts all of them."])
def test_prices_and_a_prompt_alone_are_no_session(text: str) -> None:
    spans = split_sentences(text)
    assert "record" not in [role.kind for role in structure(text, spans)]


CHANGES = """\
# Lock 2

2.1.0 - 2026-04-05
Fixed
- The gate of the upper pool leaks no more
- Names with a dash
Added
- A bell

2.0.9
Fixed
- Doors that hang
"""


def test_titles_between_the_lists_of_a_change_log_are_headings() -> None:
    found = leaning(CHANGES)
    assert found["- A bell"] == "Added"
    assert found["- Names with a dash"] == "Fixed"
    assert found["Added"] == "2.1.0 - 2026-04-05"
    assert found["2.0.9"] == "# Lock 2"


def test_a_wrapped_item_goes_on_in_the_line_below() -> None:
    text = "Bring:\n- a coat for the rain that falls at the weir in\nMay\n- boots"
    assert "- a coat for the rain that falls at the weir in\nMay" in units(text)
