"""Units of bibliographies: an entry of BibTeX or RIS is one record; text that only looks like one is left as it was."""

from __future__ import annotations

import pytest

from ctxprune.text import split_sentences
from ctxprune.text.layout import layout

BOOK = "@book{ott21,\n  author = {Ott, Jan},\n  title = {Moss. A Guide},\n  year = 2021,\n}"
ABSTRACT = "@misc{fern,\n  title = {Ferns},\n  abstract = {There are many. We saw ten.\n\n  Two are rare.},\n}"
ONE_LINE = "@online{tide, title={Tide tables. North}, url={https://example.org/tide}}"
NEVER_CLOSED = "@book{reed,\n  title = {Reeds\n\nThe reed grows in water. It is tall."
JOURNAL = "TY  - JOUR\nAU  - Vale, Mia\nTI  - Owls at dusk\nAB  - Owls call. They wait.\nER  - "
LEFT_OPEN = "TY  - BOOK\nAU  - Ott, Jan\nTI  - Moss. A Guide"


def units(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text)]


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([BOOK, ABSTRACT], id="a blank line within a field"),
        pytest.param([ONE_LINE, BOOK], id="an entry on one line"),
        pytest.param([BOOK.replace("@book", "@BOOK"), BOOK.replace("  ", "\t")], id="capitals and tabs"),
        pytest.param(['@string{pub = "North Press"}', BOOK], id="an abbreviation"),
        pytest.param([JOURNAL, JOURNAL.replace("dusk", "dawn")], id="RIS"),
        pytest.param([LEFT_OPEN, JOURNAL], id="RIS without an end"),
    ],
)
@pytest.mark.parametrize("between", ["\n", "\n\n"], ids=["close", "apart"])
def test_an_entry_of_a_bibliography_is_one_unit(entries: list[str], between: str) -> None:
    assert units(between.join(entries)) == [entry.strip() for entry in entries]


def test_prose_beside_an_entry_is_still_sentences() -> None:
    assert units(f"Cite it so. Mind the key.\n\n{BOOK}\n\nThanks to all.") == [
        "Cite it so.",
        "Mind the key.",
        BOOK,
        "Thanks to all.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("@Component({\n  selector: 'reed',\n})\nexport class Reed {}", id="a decorator"),
        pytest.param("@media{print, screen}\nInk is dear. Print less.", id="braces without a field"),
        pytest.param(NEVER_CLOSED, id="an entry that never closes"),
        pytest.param("TY  - thank you\n\nSee you soon. Bring cake.", id="one tag alone"),
    ],
)
def test_what_only_looks_like_an_entry_is_not_touched(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = layout(text)[1]
    monkeypatch.setattr("ctxprune.text.layout.mark_references", lambda lines, kinds: None)
    assert found == layout(text)[1]
