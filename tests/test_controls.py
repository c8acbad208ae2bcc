"""Controls of web pages in their text: cookie banners, buttons, share bars and menus are units that score nothing."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length

from ctxprune.text import split_sentences
from ctxprune.text.controls import controls
from ctxprune.text.quiet import hushed
from ctxprune.text.structure import structure
from ctxprune.types import Span


def quiet(text: str) -> list[str]:
    """The units whose score is taken away."""
    units = [Span(unit.start, unit.end, 0.9) for unit in split_sentences(text)]
    return [text[unit.start : unit.end] for unit in hushed(text, units) if unit.score <= 0]


REST = "\n\nThe weir was built in 1902.\n\nIt is twelve metres long."


@pytest.mark.parametrize(
    "banner",
    [
        'Our site uses cookies for statistics.\n\nChoose "Allow all" if that suits you.\n\nAllow all\nCookie settings',
        "Cookies help us to show you more.\nReject all | Accept all",
        "We use cookies so that your visit is remembered.",
        "Wir setzen Cookies für Statistik ein.\n\nMit „Alle zulassen“ sind Sie einverstanden.\n\nAlle zulassen",
        "Nous utilisons des cookies pour mesurer nos visites.\n\n* [Tout refuser](#)\n* [Tout accepter](#)",
    ],
)
def test_a_banner_about_cookies_scores_nothing_above_its_buttons_or_at_the_top(banner: str) -> None:
    assert "".join("".join(quiet(banner + REST)).split()) in "".join(banner.split())
    assert sum("ookie" in unit for unit in quiet(banner + REST)) == sum("ookie" in each for each in banner.split("\n"))


def test_what_a_policy_says_of_cookies_keeps_its_score() -> None:
    policy = (
        "# Privacy\n\n## Cookies\n\nThe shop keeps your basket in a cookie. It is deleted after a week. You may refuse "
        "cookies in your browser.\n\n## Logs\n\nWe use cookies to tell robots from people.\n\nLogs are kept for a day."
    )
    assert quiet(policy) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Share on\nXing\nTelegram\nE-Mail{REST}", ["Share on", "Xing", "Telegram", "E-Mail"]),
        (f"Partager [Facebook](/f) [WhatsApp](/w){REST}", ["Partager [Facebook](/f) [WhatsApp](/w)"]),
        (f"Like · Reply · Report{REST}", ["Like · Reply · Report"]),
        (f"Old weir\nToggle navigation{REST}", ["Toggle navigation"]),
        (
            f"A fish pass.\n\nWas this answer helpful?\n\nYes (3) / No (0){REST}",
            ["Was this answer helpful?", "Yes (3) / No (0)"],
        ),
        (f"Add to cartAdd to favourites{REST}", ["Add to cartAdd to favourites"]),
        (f"Write to us on\n\nFacebook\n\nTelegram{REST}", []),
        ("# Buttons\n\n- Reply\n\n  Writes an answer.\n\n- Search\n\n  Finds a word.", []),
        ("Which key ends it?\n\nClose", []),
        ("To share this, press the arrow. Reply to all of them.", []),
        (">>> print\nprint\n", []),
    ],
)
def test_buttons_and_share_bars_score_nothing_and_the_same_words_elsewhere_do(text: str, expected: list[str]) -> None:
    assert quiet(text) == expected


def test_a_button_is_no_part_of_the_sentence_above_it() -> None:
    text = "Weirs of the upper Lind and their keepers\nShare this\nThe oldest weir is at Hale.\n"
    units = split_sentences(text)
    assert [text[unit.start : unit.end] for unit in units] == text.strip().split("\n")
    assert structure(text, units)[2].leans_on != 1


@pytest.mark.parametrize(
    ("top", "title"),
    [
        ("Skip to content\n\nWeirs\n\n* [Maps](/m)\n* [Fishing permits](/p)\n\nAsk us", "# The weir at Hale"),
        ("Zum Hauptinhalt springen\nWehre\nKarten\nAngeln", "Das Wehr in Hale wurde 1902 gebaut."),
        ("Ir al contenido\nPresas\nMapas", "Desde 1902"),
    ],
)
def test_names_between_a_skip_link_and_the_title_or_text_are_a_menu(top: str, title: str) -> None:
    assert quiet(f"{top}\n{title}{REST}") == [line for line in top.split("\n") if line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[Rivers](/r) > [Lind](/r/l) > [Weirs](/r/l/w){REST}", ["[Rivers](/r) > [Lind](/r/l) > [Weirs](/r/l/w)"]),
        (f"[Rivers](/r) » [Upper\nLind](/r/upper lind){REST}", ["[Rivers](/r) » [Upper\nLind](/r/upper lind)"]),
        (f"Rivers › Lind\n\n# Weirs{REST}", ["Rivers › Lind"]),
        (f"Open Tools > Weirs.\n\n# Weirs{REST}", []),
        (f"Rivers > Lind\n\nWeirs{REST}", []),
    ],
)
def test_a_trail_of_links_or_right_above_a_title_scores_nothing(text: str, expected: list[str]) -> None:
    assert quiet(text) == expected


def test_what_a_reader_of_pages_writes_above_the_text_scores_nothing_and_heads_nothing() -> None:
    head = "Title: Weirs\n\nURL Source: https://weir.example/\n\nPublished Time: 2024-05-01\n\nMarkdown Content:\n"
    text = f"{head}Hale has two weirs.\n\nTitle: see above."
    assert quiet(text) == [line for line in head.split("\n") if line]
    roles = structure(text, split_sentences(text))
    assert [role.leans_on for role in roles] == [None] * len(roles)
    assert quiet("Title: Weirs\n\nHale has two weirs.") == []


@pytest.mark.parametrize(
    ("contents", "entries"),
    [
        ("Contents\n1 Weirs\n1.1 Fish passes\n2 Locks", ["1 Weirs", "1.1 Fish passes", "2 Locks"]),
        (
            "On this page\n\n* Weirs\n* A title of the next chunk\n* Locks",
            ["* Weirs", "* A title of the next chunk", "* Locks"],
        ),
        ("Inhalt:\n\n- Weirs\n- Locks\n- A float\n", ["- Weirs", "- Locks"]),
        ("Contents of the box\n\n- Weirs\n- Locks", []),
        ("Contents\n\n- 2 floats\n- 1 line", []),
    ],
)
def test_a_list_of_the_titles_below_scores_nothing(contents: str, entries: list[str]) -> None:
    page = "## Weirs\n\nThere are two.\n\n### Fish passes\n\nOne is of wood.\n\n## Locks\n\nThere is none."
    assert quiet(f"{contents}\n\n{page}") == entries


def test_a_word_on_a_button_scores_nothing_beside_a_menu() -> None:
    assert quiet(f"Search\n[Rivers](/r) > [Lind](/r/l)\n\n# Weirs{REST}") == ["Search", "[Rivers](/r) > [Lind](/r/l)"]


@pytest.mark.parametrize(
    "piece", ["Reply\n", "Share ", "cookies\n", "Skip to content\n", "[a](b) > ", "a > b\n\n", "Contents\n"]
)
def test_work_grows_with_the_length(piece: str) -> None:
    assert_work_grows_with_length(lambda text: controls(text, split_sentences(text)), piece, size=10_000)
