"""Running text in two columns: no unit tears a sentence, and tables stay tables."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap

import pytest
from fixtures_growth import assert_work_grows_with_length
from test_units import units

from ctxprune import Context, Policy, load
from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

LEFT = (
    "The upper mill was built for the monks of the valley and has been turning ever since without a day of rest. Its "
    "three stones are dressed in the morning. Kim says that it is the better one of them, since it needs less water."
)
RIGHT = (
    "Boats that pass the weir at night must show a light at the bow and wait until the keeper has rung the bell. The "
    "toll is paid at the upper gate. Nobody may fish from the bridge, which is too old to bear so many people at once."
)


def beside(left: str, right: str, *, width: int = 36, gap: int = 4, indent: str = "") -> str:
    rows = zip_longest(wrap(left, width), wrap(right, width), fillvalue="")
    return "\n".join((indent + one.ljust(width + gap) + other).rstrip() for one, other in rows)


@pytest.mark.parametrize("gap", [2, 4, 9])
@pytest.mark.parametrize("indent", ["", "     "])
def test_two_columns_are_cut_at_blank_lines_alone(gap: int, indent: str) -> None:
    first, second = (beside(*pair, gap=gap, indent=indent) for pair in ((LEFT, RIGHT), (RIGHT, LEFT)))
    assert units(f"{first}\n\n{second}") == [first.strip(), second.strip()]


def test_a_unit_ends_where_both_columns_end_a_sentence() -> None:
    upper = beside(LEFT, RIGHT)
    lower = beside("It leaks, as the whole of the race does when the rain is heavy and lasts for long. " + LEFT, RIGHT)
    lines = upper.split("\n")
    lines[-1] = "less water.".ljust(40) + "at once."
    found = units("\n".join(lines) + "\n" + lower)
    assert found[0] == "\n".join(lines)
    assert found[1].startswith("It leaks") and found[1].endswith("in the morning.      many people at once.")


def test_a_short_paragraph_below_goes_on_in_two_columns() -> None:
    below = beside("The wheel of the lower mill is smaller.", "The bell hangs at the gate of the upper one.")
    assert units(f"{beside(LEFT, RIGHT)}\n\n{below}")[1:] == [below]


@pytest.mark.parametrize(
    "text",
    [
        "Kaub and the island      on the left bank of the Main\nTrier and its ford       on the right bank of the Lys\n"
        "Bonn and the ferry       on both banks of the Rhine\nCochem and the castle    above the vines of the Mosel",
        "--toll        what a boat pays that wants to\n              go through at night, in pounds\n"
        "--keeper      who opens the gate when a boat\n              comes, by his name alone\n",
        "Weir      Drop     Keeper\nUpper     2.1 m    Kim\nLower     0.9 m    Lou\nMill      1.4 m    Ann",
    ],
)
def test_cells_of_tables_are_no_columns_of_text(text: str) -> None:
    spans = split_sentences(text)
    assert len(spans) > 1
    assert {role.kind for role in structure(text, spans)} <= {"table row", "table header", "term", "list item"}


@pytest.mark.parametrize("budget", [None, 200])
def test_a_warning_names_the_documents_in_two_columns_of_which_something_is_kept(budget: int | None) -> None:
    texts = ["The keeper rings a bell.", beside(LEFT, RIGHT), beside("Nothing", "else"), "Grapes grow in the south."]
    compressor = load("bm25-sentences", policy=Policy(top_n=2))
    [after] = compressor.compress([Context.of("Who rings the bell of the keeper?", texts)], budget=budget)
    assert [warning[:14] for warning in after.warnings] == ["in document 2 "]
    [after] = compressor.compress([Context.of("Who rings the bell?", texts[:1] + texts[2:])], budget=budget)
    assert after.warnings == ()


@pytest.mark.parametrize("piece", ["aa bb cc dd    ee ff gg hh\n", "a  b\n", "aa bb cc dd  ee ff gg hh\n\n"])
def test_work_grows_with_the_length_of_odd_columns(piece: str) -> None:
    assert_work_grows_with_length(split_sentences, piece)
