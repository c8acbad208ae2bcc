"""Buttons, fields and icons in the source of web pages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxprune.text import split_sentences
from ctxprune.text.quiet import hushed

ICON = '<svg viewBox="0 0 32 32"><path d="M4 4c9 0 9 9 0 9z"/></svg>'
DRAWING = '<svg viewBox="0 0 9 9">'


def _heard(source: str) -> str:
    """What keeps a score of .9."""
    units = hushed(source, [replace(unit, score=0.9) for unit in split_sentences(source)])
    return " ".join(source[unit.start : unit.end] for unit in units if unit.score > 0)


def _page(*parts: str) -> str:
    return (
        "<html><body>\n<p>It stays shut by night.</p>\n"
        + "\n".join(parts)
        + "\n<p>The sluice opens at dawn.</p>\n</body></html>"
    )


@pytest.mark.parametrize(
    "control",
    [
        '<button title="Look through the book">Find</button>',
        f'<li role="none"><button class="theme">Coal</button>{ICON}</li>',
        "<select><option>Metres</option><option>Feet</option></select>",
    ],
)
def test_a_control_alone_in_a_page_says_nothing(control: str) -> None:
    assert (
        _heard(_page(control))
        == "<html><body>\n<p>It stays shut by night.</p> <p>The sluice opens at dawn.</p>\n</body></html>"
    )


@pytest.mark.parametrize(
    "words",
    [
        f"<p>Press {ICON} to open the sluice.</p>",
        "<p><button>Find</button> looks through the book.</p>",
        f'{DRAWING}<text x="1">Depth in metres</text></svg>',
        '<img alt="The sluice at dawn" src="sluice.png">',
    ],
)
def test_words_beside_a_control_and_in_a_drawing_stay(words: str) -> None:
    assert words.removeprefix(DRAWING) in _heard(_page(words))


def test_where_markup_is_the_subject_a_button_is_what_is_asked_for() -> None:
    snippet = "<button class='save'>Save</button>"
    text = f"How to make a button:\n\n<div>\n{snippet}\n</div>\n\n<div>\n<p>One more.</p>\n</div>\n"
    assert snippet in _heard(text)


def test_no_tag_of_a_long_stretch_is_torn() -> None:
    link = '<a class="try" title="open it; shut it, and open it again; then go">try it</a> '
    for padding in range(0, 400, 9):
        stretch = "a bare list of things without an end " + "x" * padding + " " + (link * 12).rstrip()
        source = f"<html><body><div>{stretch}</div><p>One.</p><p>Two.</p></body></html>"
        pieces = [source[unit.start : unit.end] for unit in split_sentences(source)]
        assert len(pieces) > 4
        assert all(piece.count('<a class="try"') == piece.count('then go">') for piece in pieces)
