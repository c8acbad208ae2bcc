"""What stands behind a full stop and belongs to its sentence: pictures, marks of notes; and measures before one."""

from __future__ import annotations

import pytest
from test_units import assert_split, units
from test_units_field import leaning


@pytest.mark.parametrize(
    "marked",
    [
        "The gate is open. ✅¶\nBoats may pass. 🚤 🎉¶",
        "Kim mended it! 🙏🏽¶\n\nThe flag is up. 🇳🇴¶",
        "The level rose.(2)¶ No rain fell.[3]¶ It sank by 3%.(1)¶ See (2) below.¶",
        "The pump takes up to 10 A.¶ Put it on a dry floor.¶",
        "It is fed with less than 12.5 V.¶ Keep it cool.¶",
    ],
)
def test_what_belongs_to_the_sentence_before_it(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "It opens. 🚤 Boats may pass now.",
        "In 1926 A. Bell wrote to J. R. Hale.",
        "The gate opens at f(x).",
    ],
)
def test_what_does_not(marked: str) -> None:
    assert "🚤 Boats may pass now." in units(marked) or len(units(marked)) == 1


def test_a_clause_that_ends_with_the_mark_of_a_note_is_no_heading() -> None:
    clauses = "2.1 The tenant pays in advance.\n2.2 Late rent bears interest.(1)"
    found = leaning(f"LEASE\n\n{clauses}\n\n3. Repairs. The owner pays.")
    assert found["The owner pays."] == "3. Repairs."
    assert found["3. Repairs."] == "LEASE"


def test_a_counted_title_of_html_behind_its_anchor_is_whole() -> None:
    page = '<html><body><p>Weirs.</p><h2><a name="m"></a>1. Mills</h2><p>They turn.</p>'
    found = leaning(page)
    assert found["<p>They turn.</p>"] == '<h2><a name="m"></a>1. Mills</h2>'


def test_a_heading_behind_an_empty_element_is_one() -> None:
    page = '<html><body><p>Weirs.</p><span id="g"></span><h3 class="s">Gates</h3><p>They open.</p>'
    assert leaning(page)["<p>They open.</p>"] == '<span id="g"></span><h3 class="s">Gates</h3>'


@pytest.mark.parametrize("mark", ["ADVERTISEMENT", "Advertisement", "Sponsored content", "ANZEIGE"])
def test_the_name_of_an_ad_is_no_title_of_what_follows(mark: str) -> None:
    found = leaning(f"The weir broke at night.\n\n{mark}\n\nNobody was hurt.\n\nKim mends it.")
    assert found["Nobody was hurt."] is None


def test_titles_with_a_link_for_editors_are_headings() -> None:
    found = leaning("Weir\n\nIt is old.\n\nGates[edit]\n\nThey are of oak.\n\nMills[edit | edit source]\n\nThey turn.")
    assert (found["They are of oak."], found["They turn."]) == ("Gates[edit]", "Mills[edit | edit source]")
    found = leaning("Weir\nIt is old.\nGates\n[edit]\nThey are of oak.\nMills\n[Bearbeiten]\nThey turn.\n[edit]\nNow.")
    assert (found["They are of oak."], found["They turn.\n[edit]\nNow."]) == ("Gates\n[edit]", "Mills\n[Bearbeiten]")


def test_a_counted_title_that_is_underlined_is_a_heading() -> None:
    found = leaning("1. Gates\n--------\n\nThey are of oak.\n\n2. Mills\n--------\n\nThey turn.")
    assert found["They are of oak."] == "1. Gates\n--------"


def test_a_rule_below_an_item_makes_no_heading_of_it() -> None:
    found = leaning("1. Shut the gate before the water rises above the sill\n---\n\nKim keeps the weir.")
    assert found["Kim keeps the weir."] is None


def test_three_dots_before_a_page_begin_no_sentence() -> None:
    assert_split("Gates ...... 4¶\nMills ... 11¶\nHours ........ 12¶")


def test_the_bars_of_a_module_in_pydoc_are_no_table() -> None:
    page = """\
CLASSES
    class Weir(Gate)
     |  Weir(name)
     |
     |  A gate that stays open. It has
     |  one keeper.
     |
     |  drain(self)
     |      Let the water out.
     |
     |  shut(self)
     |      Close it.
"""
    found = leaning(page)
    assert any(unit.replace("|", " ").split() == ["A", "gate", "that", "stays", "open."] for unit in found)
    assert found["|      Close it."].split() == ["|", "shut(self)"]
