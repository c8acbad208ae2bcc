"""Lists of references as people write them: an entry is a unit, however many full stops it has."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length
from test_units import units

from ctxprune.text import split_sentences

OTT = "Ott, J. and Vale, M. 2019. Moss and fern. J. Veg. Sci. 4(2), 1-9."
REED = "Reed, K. et al. (2021). Owls at dusk. In Proc. of Birds, pp. 3-8. https://example.org/owl.x"
WRAPPED = "Holt, A. (2008). A very long title of a book on\n    weirs. North Press, Kaub."
TEXT = "Moss grows slowly [1]. Ott et al. saw it. Owls wait."


def entries(text: str) -> list[str]:
    return units(text)[3:]


@pytest.mark.parametrize(
    "head", ["References", "## References", "REFERENCES", "6. Bibliography", "Literatur", "参考文献"]
)
@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_an_entry_is_a_unit(head: str, gap: str) -> None:
    found = entries(f"{TEXT}\n\n{head}\n{gap.join([OTT, WRAPPED, REED])}")
    assert found == [head, OTT, WRAPPED, REED]


@pytest.mark.parametrize("mark", ["[{}] ", "{}. "])
def test_numbers_begin_entries(mark: str) -> None:
    listed = [mark.format(at) + entry for at, entry in enumerate([OTT, WRAPPED.replace("    ", ""), REED], 1)]
    assert entries(f"{TEXT}\n\nReferences\n\n" + "\n".join(listed)) == ["References", *listed]


def test_what_stands_below_the_next_heading_is_text_again() -> None:
    found = units(f"# References\n\n{OTT}\n\n{REED}\n\n# Thanks\n\nKim helped. Lou waited in 2019.")
    assert found[-3:] == ["# Thanks", "Kim helped.", "Lou waited in 2019."]


@pytest.mark.parametrize(
    "text",
    [
        "References\n\nKim was asked for some. None came. We wait.",
        "References\nThe book of Ott (2019) is old, and so is the\nother. Neither tells how the moss\ngrows. We wait.",
    ],
)
def test_prose_below_such_a_heading_is_prose(text: str) -> None:
    assert units(text)[-1] == "We wait."


@pytest.mark.parametrize("piece", ["References\n", "References\nA 2019.\n", "[1] A 2019.\n", "# References\n\n\nA\n"])
def test_work_grows_with_the_length_of_odd_lists(piece: str) -> None:
    assert_work_grows_with_length(split_sentences, piece, before="References\n")
