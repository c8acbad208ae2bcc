"""Titles right above their text, numbered clauses and what leads in a list are units that the rest leans on."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_units import assert_split, units
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

BODY = (
    "Kim opens the upper gate at seven and closes it when the last boat has gone through to the basin.\n"
    "Nobody may pass by night without a light."
)


@pytest.mark.parametrize(
    "title",
    ["3. Opening hours", "III. Opening hours", "3 Opening hours", "Opening hours", "When does it open?", "Öffnung"],
)
def test_a_title_right_above_its_text_is_a_heading(title: str) -> None:
    found = leaning(f"Weirs of the valley are old.\n\n{title}\n{BODY}\n\nThe end of it is near.")
    assert found["Nobody may pass by night without a light."] == title
    assert list(found)[1] == title


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ms Bell\nThe gate is shut since Monday, and nobody of us knows for how long it will be.",
        "The gate of the upper weir, which Kim has\nOpened for years, is shut since the flood of May.",
        "Kim Bell\nMill Lane 4\nWeir Town",
        "Copyright 2004 Kim Bell\nPermission is granted to copy this text as often as anybody wishes to do it.",
        "He said.\nThe gate is shut since Monday, and nobody of us knows for how long it will be.",
        "Instructions for him.\n\n1. Drain the race\nOpen the gate, then wait until the wheel stands still in the bed.",
        "1. Oats\n2. Rye that was ground at the upper mill, which has the better stones of the two.",
    ],
)
def test_another_short_first_line_is_no_heading(text: str) -> None:
    spans = split_sentences(text)
    assert "heading" not in {role.kind for role in structure(text, spans)}


@pytest.mark.parametrize("mark", ["- ", "* ", "1. "])
def test_items_lean_on_the_words_right_above_them(mark: str) -> None:
    items = f"{mark}oats\n{mark.replace('1', '2')}rye"
    text = f"The mill grinds.\n\nTools for the mill\n{items}\n\nKim sells it."
    assert leaning(text)[f"{mark}oats"] == "Tools for the mill"


def test_a_title_stands_below_the_headings_with_marks() -> None:
    text = f"# Weirs\n\n## Upper\n\nOpening hours\n{BODY}\n\n## Lower\n\nIt leaks."
    assert leaning(text)["Opening hours"] == "## Upper"
    assert leaning(text)["## Lower"] == "# Weirs"


def test_named_sections_are_headings_without_blank_lines() -> None:
    text = (
        "Section 1 - Boats\nBoats wait.\nSection 2 - Tolls\nTolls are due as told in\nSection 1 of this text. We wait."
    )
    assert units(text) == [
        "Section 1 - Boats",
        "Boats wait.",
        "Section 2 - Tolls",
        "Tolls are due as told in\nSection 1 of this text.",
        "We wait.",
    ]
    assert leaning(text)["We wait."] == "Section 2 - Tolls"


@pytest.mark.parametrize(
    ("text", "unit", "title"),
    [
        ("TOOLS\n1 rake\n2 spades, small\n1 broom\n\nWORK\nRake the bank.", "2 spades, small", "TOOLS"),
        ("HAVE READY\n• a rake\n• two spades\nDO NOT BRING\n• dogs", "• two spades", "HAVE READY"),
        ("HAVE READY\n• a rake\n• two spades\nDO NOT BRING\n• dogs", "• dogs", "DO NOT BRING"),
        ("§ 4\nMaut\n\nJedes Boot zahlt zwei Pfund.", "Jedes Boot zahlt zwei Pfund.", "§ 4\nMaut"),
        ("Čl. II\nMýto\n\nLoď platí dvě libry.", "Loď platí dvě libry.", "Čl. II\nMýto"),
        (
            "Sec. 4-12. Tolls of the weir.\n(a) Boats pay.\n(b) Rafts do not.",
            "(b) Rafts do not.",
            "Sec. 4-12. Tolls of the weir.",
        ),
        ("Weir\n\nUpper gate\nMonday: 9 to 5\nSunday: shut", "Sunday: shut", "Upper gate"),
        ("GET /gates/{id}\nGives one gate. It may be shut.", "Gives one gate.", "GET /gates/{id}"),
        ("CHAPTER IV\nOF TOLLS\n\nEach boat pays.", "Each boat pays.", "CHAPTER IV\nOF TOLLS"),
        ("二、通行费\n每条船付两镑。夜间不得通行。", "夜间不得通行。", "二、通行费"),
        ("三、步骤\n1. 关上门。\n2. 放水。", "2. 放水。", "三、步骤"),
        ("通行料\n船は一艘につき二ポンドを門で払います。夜は通れません。", "夜は通れません。", "通行料"),
        ("道具\n・熊手\n・小さな鋤", "・小さな鋤", "道具"),
        (f"1. Who may open the gates of the weir by day\nKim does.\n\n2. By night\n{BODY}", "Kim does.", None),
        (
            f"2. By night\n{BODY}\n\n3. How to pass\nShow a light: it is the rule.",
            "Show a light: it is the rule.",
            None,
        ),
    ],
)
def test_titles_in_capitals_in_series_and_in_other_scripts(text: str, unit: str, title: str | None) -> None:
    above = text.split(f"\n{unit}")[0].rsplit("\n", 1)[-1]
    assert leaning(text)[unit] == (above if title is None else title)


def test_a_word_in_capitals_below_a_marked_heading_is_its_text() -> None:
    assert leaning("# Weir\n\n## Owner\n\nNRA\n\n## Tolls\n\nNone.") == {
        "# Weir": None,
        "## Owner": "# Weir",
        "NRA": "## Owner",
        "## Tolls": "# Weir",
        "None.": "## Tolls",
    }
    assert leaning("# Weir\n\n## Tolls\n\nBOATS\n\nTwo pounds.")["BOATS"] == "## Tolls"


def test_an_option_in_bold_with_its_argument_is_a_heading() -> None:
    text = "## OPTIONS\n\n**--race**, **-r** *number*\n\nWhich race.\n\n**--dry** [*hours*]\n\nFor so long."
    found = leaning(text)
    assert (found["Which race."], found["For so long."]) == ("**--race**, **-r** *number*", "**--dry** [*hours*]")
    assert leaning("## USE\n\n**weir** *gate*\n\n## SEE\n\nNobody.")["Nobody."] == "## SEE"


def test_letters_in_turn_are_items_and_one_alone_is_none() -> None:
    text = "The weir has two doors:\n\na. the upper one, of oak\n\nb. the lower one, of larch"
    assert leaning(text)["b. the lower one, of larch"] == "The weir has two doors:"
    assert_split("It was shut by a man called\nd. Bell in those days, as people say.¶")


def test_clauses_with_and_without_full_stops_are_units_below_their_title() -> None:
    text = (
        "7. TOLLS\n7.1 Each boat pays two pounds at the gate\n7.2 The keeper may let a boat pass free:\n"
        "    (a) if it carries the mail; or\n    (b) by day, if it is empty.\n7.3. Tolls fall due at once.\n"
        "8. NIGHT\nNobody passes by night. The gate is locked."
    )
    assert units(text) == [line.strip() for line in text.replace("night. The", "night.\nThe").split("\n")]
    found = leaning(text)
    assert found["7.1 Each boat pays two pounds at the gate"] == "7. TOLLS"
    assert found["(b) by day, if it is empty."] == "7.2 The keeper may let a boat pass free:"
    assert found["The gate is locked."] == "8. NIGHT"


def test_a_number_in_wrapped_prose_begins_no_clause() -> None:
    assert_split(
        "The gate was mended as told in chapter\n7.1 of the mill book, and it was tarred as told in\n9.4 of it.¶"
    )


def test_a_short_line_in_small_letters_is_not_cut_at_a_shortened_word() -> None:
    assert_split("Stir in\n\n- 2 tsp. of salt¶\n- 1 pkg. yeast¶".replace("in\n", "in¶\n"))


def test_lines_of_wrapped_capitals_are_no_verse() -> None:
    text = "THE GATE IS OPENED WITHOUT ANY WARRANTY, SUCH OR\nIMPLIED, AND WHOEVER PASSES\nMUST SHOW A LIGHT."
    assert units(text) == [text]


def test_a_line_with_a_full_stop_alone_parts_paragraphs() -> None:
    assert units(" Kim may copy it\n .\n Lou may sell it") == ["Kim may copy it\n .", "Lou may sell it"]


@pytest.mark.parametrize(
    "piece", ["A\nB.\n\n", "A\n- b\n", "1.1 a b c d\n", "1. A\n1.1 b\n", " .\n", "2.2. A. ", "§ 1\nA\n\n"]
)
def test_work_grows_with_the_length_of_odd_titles(piece: str) -> None:
    assert_structure_grows_with_length(piece)


def titles(text: str) -> list[str]:
    spans = split_sentences(text)
    roles = structure(text, spans)
    return [text[at.start : at.end] for at, role in zip(spans, roles, strict=True) if role.kind == "heading"]


@pytest.mark.parametrize("title", ["TOP 2: Gebühren", "Punkt 2: Opłaty", "Punto 2 – Cuotas", "Agenda item 2: Fees"])
def test_the_points_of_minutes_are_titles(title: str) -> None:
    first = title.replace("2", "1")
    text = f"{first}\nThe chair opens the meeting.\n\n{title}\nThe fee rises to nine crowns.\n"
    assert titles(text) == [first, title]


@pytest.mark.parametrize(
    ("line", "is_title"),
    [
        ("ПОРЯДОК ОПЛАТЫ", True),
        ("Уважаемые соседи!", False),
        ("ΚΑΝΟΝΙΣΜΟΣ", True),
        ("Βόλος, 8 Μαΐου", False),
        ("水門の規則", True),
        ("水門は夜に閉じます。", False),
        ("令和5年3月1日", False),
        ("السادة الجيران،", False),
    ],
)
def test_a_line_alone_in_another_script_is_a_title_unless_it_is_a_sentence_or_greeting(
    line: str, is_title: bool
) -> None:
    text = f"abc.\n\n{line}\n\nabc def.\n"
    assert (line in titles(text)) == is_title
