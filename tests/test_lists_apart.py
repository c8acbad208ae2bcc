"""Where a list ends: what introduced one, or one item of it, introduces no other list; options, Roman numbers."""

from __future__ import annotations

import pytest
from test_units import units
from test_units_field import leaning

from ctxprune.text.marks import Marks


def test_a_list_with_another_bullet_is_not_introduced_by_what_introduced_the_one_above() -> None:
    found = leaning("## Weir\n\nBring with you:\n- boots\n- a coat\n\n▪ Cars: 3 euros\n▪ Boats: 5 euros")
    assert found["- a coat"] == "Bring with you:"
    assert found["▪ Cars: 3 euros"] == found["▪ Boats: 5 euros"] == "## Weir"


def test_a_list_goes_on_over_blank_lines_with_the_same_bullet() -> None:
    found = leaning("## Weir\n\nBring with you:\n\n- boots\n\n- a coat")
    assert found["- a coat"] == "Bring with you:"


def test_what_introduces_a_list_within_an_item_does_not_introduce_the_next_items() -> None:
    text = (
        "1. Rights. The keeper has these rights, each for a year. They include the following:\n\n"
        "     i. to open the gate;\n    ii. to lower the weir;\n   iii. to ring the bell.\n\n"
        "2. Duties. The keeper sweeps the path."
    )
    found = leaning(text)
    assert found["iii. to ring the bell."] == found["i. to open the gate;"] == "They include the following:"
    assert found["2. Duties."] is None


def test_numbers_set_flush_right_stand_in_one_list() -> None:
    romans = [f"{number + '.':>6} gate {number}" for number in ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")]
    found = leaning("The keeper opens these gates:\n\n" + "\n".join(romans))
    assert [found[line.strip()] for line in romans] == ["The keeper opens these gates:"] * 8


def test_what_introduces_the_outer_list_does_so_again_behind_an_inner_one() -> None:
    text = (
        "Do this each morning:\n\n- Sweep the path.\n- Open the gate. Then lower these:\n  - the weir\n"
        "  - the bridge\n- Ring the bell."
    )
    found = leaning(text)
    assert found["- the bridge"] == "Then lower these:"
    assert found["- Ring the bell."] == "Do this each morning:"


HELP = """\
Usage: weir [OPTION]...

Examples:
  weir -o gate     # opens the gate
  weir -s gate     # shuts it again

 Main modes:
  -o, --open         opens a gate
      --force        opens it though a boat is in it
  -s, --shut         shuts a gate

 Choice of gates:
      --name=GATE    takes the gate of this name
      --all[=KIND]   takes all gates, or those of one kind,
                       however wide they are
"""


def test_a_section_of_a_help_text_is_none_of_the_examples_above_it() -> None:
    found = leaning(HELP)
    assert found["-o, --open         opens a gate"] == "Main modes:"


def test_an_option_with_a_long_name_only_stands_beside_those_with_both() -> None:
    found = leaning(HELP)
    assert found["--force        opens it though a boat is in it"] == "Main modes:"


def test_options_with_values_are_no_settings() -> None:
    found = units(HELP)
    assert "--name=GATE    takes the gate of this name" in found
    assert found[-1].startswith("--all[=KIND]   takes all gates")


@pytest.mark.parametrize("mark", ["§{} ", "§ {}. "])
def test_paragraphs_of_terms_in_a_row_are_items_with_their_sentences(mark: str) -> None:
    names = ("Boats. Those below ten metres may pass.", "Hours. The gate opens at seven.", "Fees. Each pays 4 euros.")
    lines = [mark.format(number) + name for number, name in enumerate(names, 1)]
    found = leaning("\n".join(["Rules of the weir", *lines]))
    assert found["The gate opens at seven."] == lines[1].split(".")[0] + "." if mark == "§{} " else True
    assert found["Each pays 4 euros."] is not None


def test_a_paragraph_that_a_sentence_speaks_of_is_no_item() -> None:
    text = (
        "The keeper of the gate, who pays for all of the damage that the boats do, does so under\n"
        "§ 7 of the act that the town made in the year of the great flood, when the weir broke, and\n"
        "nobody else has to."
    )
    assert units(text) == [text]


def test_names_over_what_is_said_of_them_are_terms_though_no_empty_line_parts_them() -> None:
    text = (
        "The pump takes:\n"
        "  pressure (in bar)\n    How hard it pushes. Above nine\n    the valve opens.\n"
        "  stroke (in mm)\n    How far the piston goes.\n"
        "  seal\n    Rubber or felt. Felt leaks.\n"
        "It is oiled in May.\n"
    )
    assert [unit.split("\n")[0] for unit in units(text)] == [
        *("The pump takes:", "pressure (in bar)", "How hard it pushes.", "Above nine"),
        *("stroke (in mm)", "How far the piston goes.", "seal", "Rubber or felt.", "Felt leaks."),
        "It is oiled in May.",
    ]
    found = leaning(text)
    assert found["How hard it pushes."] == "pressure (in bar)" and found["Rubber or felt."] == "seal"
    assert found["How far the piston goes."] == "stroke (in mm)"


def test_one_line_set_out_in_a_letter_is_no_term() -> None:
    text = "Dear Ann,\n    we leave on Monday.\nBring the tent\n    and the lamp, as it will be dark by then.\n"
    assert len(units(text)) <= 3


def test_clause_numbers_are_a_list_below_the_number_that_leads_to_them() -> None:
    text = "3. Berths:\n3.1 Dues are paid.\n3.2 June is free.\n4. Fuel\n"
    marks = Marks()
    assert [marks.column(text, text.index(mark), 0) for mark in ("3. ", "3.1", "3.2", "4. ")] == [0, 1, 1, 0]
