"""Menus of web pages: what leads to other pages answers nothing, be it written as HTML or as a line of text."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length

from ctxprune.text import split_sentences
from ctxprune.text.navigation import menus
from ctxprune.text.quiet import hushed
from ctxprune.types import Span

BODY = "<main><h1>The ferry</h1><p>It sails at noon.</p><p>A ticket is 4 euros.</p></main>"


def quiet(text: str) -> list[str]:
    """The units whose score is taken away."""
    units = [Span(unit.start, unit.end, 0.9) for unit in split_sentences(text)]
    return [text[unit.start : unit.end] for unit in hushed(text, units) if unit.score <= 0]


@pytest.mark.parametrize(
    "menu",
    [
        "<nav><a href='/'>Pier</a> <a href='/t'>Tickets</a> <a href='/w'>When it sails</a></nav>",
        "<nav><b>Ferry</b> <button>Open the list</button><a href='/t'>Tickets</a></nav>",
        "<div role='navigation'><div><a href='/'>Pier</a></div><p><a href='/t'>Tickets</a></p></div>",
        "<div class='page-breadcrumbs'><a href='/'>Pier</a> <a href='/t'>Tickets</a> Noon</div>",
    ],
)
def test_a_menu_scores_nothing_and_the_page_keeps_its_scores(menu: str) -> None:
    text = f"<body>{menu}{BODY}</body>"
    assert quiet(text) and all(unit in f"<body>{menu}" for unit in quiet(text))
    assert "".join(quiet(text)).count("Tickets") == 1


def test_links_of_a_footer_score_nothing_but_its_words_numbers_and_addresses_do() -> None:
    footer = (
        "<footer><p>Ask the mate <a href='/mate'>on board</a>.</p><p>Run by Bell.</p><a href='/i'>Imprint</a> | "
        "<a href='/t'>Terms</a><ul><li><a href='/n'>News</a></li><li><a href='tel:077'>077</a></li></ul></footer>"
    )
    assert [unit[-30:] for unit in quiet(BODY + footer)] == [
        "f='/i'>Imprint</a> | <a href='/t'>Terms</a>"[-30:],
        "<ul><li><a href='/n'>News</a></li>"[-30:],
    ]


def test_rules_and_bars_score_nothing_and_other_signs_do() -> None:
    text = "Ferry\n\n* * *\n\n|   |   |\n\n~~~~~\n\n─────\n\n...\n\n👍\n\n§ 4\n\n∅\n"
    assert quiet(text) == ["* * *", "|   |   |", "~~~~~", "─────", "..."]


def test_links_within_a_page_of_markdown_and_badges_score_nothing() -> None:
    text = (
        "# Ferry\n\n[![tide](https://tide.example/t.svg)](https://tide.example) [![moon](m.png)](/moon)\n\n"
        "- [When it sails](#when-it-sails)\n  1. [At noon](#at-noon)\n\n## When it sails\n\n"
        "It sails [at noon](#at-noon).\n\n- [A ticket](https://ferry.example/t)\n- ![The pier](pier.png)\n"
    )
    assert [unit.split("(")[0] for unit in quiet(text)] == ["[![tide]", "- [When it sails]", "1. [At noon]"]


@pytest.mark.parametrize("name", ["id='cookie-banner'", 'class="site consent_popup dark"', "id=gdpr-notice"])
def test_a_banner_about_cookies_scores_nothing(name: str) -> None:
    banner = f"<div {name}><p>This site sets cookies.</p><p>You may say no.</p><button>I agree</button></div>"
    assert "".join(quiet(f"<body>{banner}{BODY}</body>")) == f"<body>{banner}"
    biscuits = f"<div id='cookie-recipes'>{BODY}</div>"
    assert quiet(f"<body>{biscuits}</body>") == []


@pytest.mark.parametrize(
    "text",
    [
        "<nav><p>The ferry sails at noon and at six, never on Sundays.</p><a href='/t'>Tickets</a></nav>" + BODY,
        "<ul><li><a href='/1'>Noon</a></li><li><a href='/2'>Six</a></li></ul>" + BODY,
        "<nav><a href='/'>Pier</a><a href='/t'>Tickets</a>" + BODY,
        "To close a menu write `</nav>` below `<nav><a href='/'>Pier</a>`.",
        "<footer><p>Questions? See <a href='/t'>the tickets</a>.</p></footer>" + BODY,
    ],
)
def test_other_links_keep_their_scores(text: str) -> None:
    assert quiet(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Home > Pier > Ferry\n\nIt sails at noon.", ["Home > Pier > Ferry"]),
        ("It sails.\n\nStartseite › Hafen › Fähre\n\nNoon.", ["Startseite › Hafen › Fähre"]),
        ("Home | Pier | Ferry | Ask us", ["Home | Pier | Ferry | Ask us"]),
        ("Home | Away | Date\nPier | Weir | May\nWeir | Pier | June\n", []),
        ("Home / Pier / 4 euros\n\nIt sails.", []),
        ("Home is where the ferry is.", []),
        ("Home > Pier\n\nIt sails.", []),
    ],
)
def test_a_trail_from_the_first_page_scores_nothing(text: str, expected: list[str]) -> None:
    assert quiet(text) == expected


@pytest.mark.parametrize("piece", ["<nav>", "</nav>", "<nav><a>x", "<nav class='", "Home > a > b\n\n", "<div></nav>"])
def test_work_grows_with_the_length_of_odd_pages(piece: str) -> None:
    assert_work_grows_with_length(
        lambda text: (menus(text), hushed(text, [Span(0, len(text), 0.5)])),
        piece,
        before="<nav></nav><p></p><p></p>",
        size=10_000,
    )
