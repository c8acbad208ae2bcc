"""Terms of manuals and help texts: names over the text that is set in below them, on one line or on several."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_companions import choose, lines, scored
from test_units_field import leaning

MANUAL = """\
DUTIES
       Feeding the hens
\t   Give them oats at seven. They wait for it.

       Letting the hens out when nobody of the house is awake yet and it rains
\t   Open the lower door. They come by themselves when it is light.

       Collecting eggs
\t   Look under the stairs too.
"""


def test_the_first_term_may_stand_right_below_a_heading() -> None:
    found = leaning(MANUAL)
    assert found["They wait for it."] == "Feeding the hens"
    assert found["Feeding the hens"] == "DUTIES"


def test_a_long_title_that_is_set_in_heads_its_text_as_short_ones_do() -> None:
    title = "Letting the hens out when nobody of the house is awake yet and it rains"
    found = leaning(MANUAL)
    assert found[title] == "DUTIES"
    assert found["They come by themselves when it is light."] == title
    alone = leaning(f"{title}\n    Open the lower door. They come by themselves.\n\nThe hens are brown.")
    assert title not in alone  # no short one beside it says that titles stand so


@pytest.mark.parametrize(
    "term",
    [
        "feed [-q|--quiet] [--oats|--peas] [(-n|--nest) <nest>]\n       [--from <bin> [--to <bin>]]\n       [<hen>...]",
        "-n, --nest=NEST\n       --box=NEST",
        "--nest=NEST\n       -n NEST",
        "‘-n NEST’\n       ‘--nest=NEST’",
        "-n\n       --nest\n       --box",
    ],
)
def test_a_term_of_several_lines_is_one(term: str) -> None:
    text = f"OPTIONS\n       -q, --quiet\n\t   Say nothing.\n\n       {term}\n\t   Feed one nest. The others wait.\n\n"
    text += "       -v\n\t   Say more.\n"
    found = leaning(text)
    assert found["The others wait."] == term
    assert found["Say nothing."] == "-q, --quiet"
    assert found["Say more."] == "-v"


def test_options_with_their_meaning_on_the_line_are_no_names_of_the_next() -> None:
    found = leaning("Options:\n  -q          say nothing\n  --nest=NEST\n              feed one nest only\n")
    assert found["feed one nest only"] == "--nest=NEST"
    assert "-q          say nothing" in found


def test_dots_after_an_argument_end_no_term() -> None:
    found = leaning(
        "COMMANDS\n       wake HEN...\n\t   Wake the hens. They know why.\n\n"
        "       feed [HEN...]\n\t   Feed them, or some of them.\n"
    )
    assert found["They know why."] == "wake HEN..."
    assert found["Feed them, or some of them."] == "feed [HEN...]"


def test_a_sentence_that_trails_off_is_no_term() -> None:
    found = leaning(
        "NOTES\n       The hens were asleep...\n\t   Nobody woke them. It rained.\n\n       -q\n\t   Say nothing.\n"
    )
    assert "The hens were asleep..." not in found or found["It rained."] != "The hens were asleep..."


SETTINGS = """\
SETTINGS
       Latch=
\t   Takes a number. After so many minutes the door of the hens is shut for the night. Foxes do not wait. The rest
\t   of this is about foxes, who have been seen at the lower gate on most evenings since the bridge was mended, and
\t   about what may be done.

       Oats=
\t   Takes a weight.
"""


def test_a_term_that_answers_brings_the_beginning_of_its_definition() -> None:
    kept = lines(choose(scored(SETTINGS, {"Latch=": 0.9}), threshold=0.5))
    assert kept[:4] == [
        "SETTINGS",
        "Latch=",
        "Takes a number.",
        "After so many minutes the door of the hens is shut for the night.",
    ]
    assert not any("mended" in unit for unit in kept)


def test_a_term_that_answers_less_than_its_definition_brings_the_first_sentence() -> None:
    kept = lines(choose(scored(SETTINGS, {"Latch=": 0.6, "Foxes do": 0.9}), threshold=0.5))
    assert kept == ["SETTINGS", "Latch=", "Takes a number.", "Foxes do not wait."]


@pytest.mark.parametrize("piece", ["-x\n", " -x\n -y\n  A.\n", "a\n  B.\n\n", "-x\n[y]\n"])
def test_work_grows_with_the_length_of_terms(piece: str) -> None:
    assert_structure_grows_with_length(piece)
