"""Units and roles of papers that people send: forms, exams, reports, leaflets, web shops in several languages."""

import pytest

from ctxprune import Context, Policy
from ctxprune.select import select
from ctxprune.text import split_sentences
from ctxprune.text.navigation import leads_elsewhere
from ctxprune.text.structure import structure
from ctxprune.tokens import WordCounter
from ctxprune.types import Document, Extract, Span


def parts(text):
    return [text[unit.start : unit.end] for unit in split_sentences(text)]


def roles(text):
    """(kind, what it leans on) of each unit, by its text."""
    units = split_sentences(text)
    texts = [text[unit.start : unit.end] for unit in units]
    found = structure(text, units)
    return {
        mine: (role.kind, None if role.leans_on is None else texts[role.leans_on])
        for mine, role in zip(texts, found, strict=True)
    }


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Box 12. Pension paid abroad. Enter it in euros.\n", "Box 12. Pension paid abroad."),
        (
            "Rule 7b. Offside is judged by the referee. No appeal is heard.\n",
            "Rule 7b. Offside is judged by the referee.",
        ),
        ("Abbildung 3.1. Der Kessel von vorn. Er ist grün.\n", "Abbildung 3.1. Der Kessel von vorn."),
        (
            "7. GOVERNING LAW. The law of Malta applies. Courts sit there.\n",
            "7. GOVERNING LAW. The law of Malta applies.",
        ),
        ("Apollo 11. It flew in July.\n", "Apollo 11."),
        ("2. Wait. Then open the lid.\n", "2. Wait."),
        ("He was born in May 1950. Then he moved. He died.\n", "He was born in May 1950."),
        ("The box has room for 12. Pensions are paid abroad.\n", "The box has room for 12."),
        ("The file is No. BX4471 of the court. It is closed.\n", "The file is No. BX4471 of the court."),
        ("Did it rain? No. Bread was dry.\n", "Did it rain?"),
        ("Was it a no. Bread was dry.\n", "Was it a no."),
    ],
)
def test_what_a_paragraph_is_called_by_is_no_sentence(text, first):
    assert parts(text)[0] == first


@pytest.mark.parametrize("line", ["." * 30, "_" * 24, "……………", ". " * 12])
def test_a_line_to_write_on_is_apart_from_the_question(line):
    text = (
        f"4. (a) Name a metal that floats.\n   {line}\n   [1 mark]\n   (b) Say why it does.\n   {line}\n   [2 marks]\n"
    )
    assert parts(text) == [
        "4. (a) Name a metal that floats.",
        line.strip(),
        "[1 mark]",
        "(b) Say why it does.",
        line.strip(),
        "[2 marks]",
    ]
    assert roles(text)["(b) Say why it does."] == ("list item", "4. (a) Name a metal that floats.")


def test_sections_of_settings_are_still_told_from_marks():
    assert parts("[server]\nport = 80\n[client]\nretries = 3\n") == ["[server]", "port = 80", "[client]", "retries = 3"]


REPORT = """{caption}

Division          2023      2024     2025e
Cranes            81.0      90.4      95.0
Winches           12.7      11.9      12.5
"""


@pytest.mark.parametrize(
    ("caption", "intro"),
    [
        ("Table 2. Sales of the divisions in millions", True),
        ("Tabelle 2: Umsatz der Sparten in Millionen", True),
        ("Tableau 2. Ventes par division, en millions", True),
        ("The table of the divisions follows here below.", False),
    ],
)
def test_years_name_columns_and_a_caption_introduces_its_table(caption, intro):
    found = roles(REPORT.format(caption=caption))
    header = "Division          2023      2024     2025e"
    assert found["Winches           12.7      11.9      12.5"] == ("table row", header)
    assert found[header] == ("table header", caption if intro else None)


def test_rows_that_hold_years_have_no_header_of_years():
    found = roles("Anna      1971      Oslo\nBerta     1980      Bergen\nCarl      1992      Voss\n")
    assert {kind for kind, _ in found.values()} == {"table row"}


LONG = "Wash it by hand in lukewarm water and let it dry in the shade, never in a tumble drier and never on a radiator."


@pytest.mark.parametrize("end", ["", "."])
def test_where_no_line_is_wrapped_a_longer_title_is_one_too(end):
    title = f"Reinigung und Aufbewahrung der Wolldecken im Winterlager{end}"
    text = f"Wool care\n\n{LONG} Iron it cold.\n\n{title}\n{LONG} Ask us if in doubt.\n"
    assert roles(text)[title][0] == ("prose" if end else "heading")


def test_where_lines_are_wrapped_a_line_that_is_full_is_no_title():
    full = "Blankets are washed by hand in the big basins of the Winterlager"
    text = f"{LONG} {LONG}\n\nThe room is dry and the light in it\nis good for wool.\n\n{full}\nReinhausen. Ask us.\n"
    assert f"{full}\nReinhausen." in roles(text)


@pytest.mark.parametrize(
    ("text", "title", "below"),
    [
        (
            "■ ご注意\n火のそばに置かないでください。乾いた布で拭いてください。\n",
            "■ ご注意",
            "火のそばに置かないでください。",
        ),
        ("◆ 包装内容\n・杯子一个\n・说明书一份\n", "◆ 包装内容", "・杯子一个"),
        ("▶ Delivery\nWe ship on Mondays. Parcels are insured.\n", "▶ Delivery", "We ship on Mondays."),
        (
            "送料はいくらですか？\n全国一律500円です。離島は別料金です。\n",
            "送料はいくらですか？",
            "全国一律500円です。",
        ),
    ],
)
def test_a_sign_or_a_question_makes_a_title(text, title, below):
    found = roles(text)
    assert found[title][0] == "heading" and found[below][1] == title


def test_items_with_such_a_sign_are_none():
    found = roles("■ Bread\n■ Butter\n■ Jam from the garden\nAll of it is sold on Friday.\n")
    assert "heading" not in {kind for kind, _ in found.values()}


FOLDED = (
    "<main><h1>Help</h1><details><summary>Lost card</summary><p>Call us. We block it.</p></details>"
    "<details><summary>New card</summary><p>It costs 4 euros.</p></details><p>Bring an identity card.</p></main>"
)


def test_what_a_page_folds_away_has_its_summary_as_heading():
    found = roles(FOLDED)
    assert found["<p>Call us."][1].endswith("Lost card</summary>")
    assert found["<p>It costs 4 euros.</p></details>"][1].endswith("New card</summary>")
    assert found["<p>Bring an identity card.</p></main>"][1].endswith("<h1>Help</h1>")


@pytest.mark.parametrize(
    "pair",
    [
        "Late parcels are sent back. In that case we refund the price.",
        "The pump may run dry. Because of this it has a fuse.",
        "The court heard two offers of 900 and of 1,200. It fixed\nthat amount.",
        "Der Pass ist abgelaufen. In diesem Fall hilft das Amt.",
        "Le vol est annulé. Dans ce cas, le billet est remboursé.",
        "El tren llega tarde. En ese caso se devuelve el billete.",
        "The door may be locked. If so, ring the bell.",
    ],
)
def test_a_sentence_that_points_back_leans_on_the_one_before(pair):
    before, after = parts(pair)
    assert roles(pair)[after][1] == before


@pytest.mark.parametrize(
    "pair",
    [
        "Parcels are sent back. In this section we list the fees.",
        "Parcels are sent back. In the case of snow we wait.",
        "Parcels are sent back. Under These Rules nobody waits.",
        "Parcels are sent back. Nobody who sends one has to fear that it will be opened by this office of ours.",
    ],
)
def test_a_sentence_that_does_not_stands_alone(pair):
    assert roles(pair)[parts(pair)[1]][1] is None


ENTRIES = {
    "en": "adze (n.) a tool for dressing timber. [OE adesa]\nauger, a tool for boring; also\n  a drill.\nawl, a point.",
    "de": "Abzug, der: Rabatt. Auch: Waffe.\nAchse, die: gedachte Linie [lat. axis]\nAdel, der: Stand.",
    "ru": "весло (ср.) то, чем гребут\nветер (м.) движение воздуха\nвода, жидкость без цвета",
    "unordered": "mint, fresh from the bed\nanise (whole seeds)\nbasil, dried in bunches",
}


@pytest.mark.parametrize(("language", "ordered"), [("en", True), ("de", True), ("ru", True), ("unordered", False)])
def test_lines_in_the_order_of_the_alphabet_are_entries(language, ordered):
    found = roles(ENTRIES[language] + "\n")
    begins = [line.split()[0] for line in ENTRIES[language].splitlines() if not line.startswith(" ")]
    items = [text.split()[0] for text, (kind, _) in found.items() if kind == "list item"]
    assert (items == begins) == ordered
    if language == "en":
        assert found["[OE adesa]"][1] == "adze (n.) a tool for dressing timber."


def test_prose_with_lines_that_happen_to_begin_so_is_none():
    text = "We like\napples, which grow in rows, and\nbread (of rye) sold at the gate of\nclay pits, an hour away.\n"
    assert len(parts(text)) == 1


def test_dots_before_a_price_end_no_sentence():
    menu = (
        "Pike, dill butter ............ 19.50\nBreast of duck, plums ... 24.00\nDumplings .................... 12.80\n"
    )
    assert parts(menu) == menu.splitlines()
    assert parts("He paid ... 5 of them did not. It was late.\n")[-1] == "It was late."


def test_a_question_of_a_quiz_has_its_number_in_its_title_and_one_in_greek_is_one():
    found = roles("Frage 2\nWelcher Fluss ist der längste?\nA) Rhein\nB) Wolga\n")
    assert found["A) Rhein"] == ("list item", "Frage 2\nWelcher Fluss ist der längste?")
    found = roles("Υπάρχει στάση;\nΝαι, στην πλατεία. Περνά κάθε ώρα.\n")
    assert found["Ναι, στην πλατεία."][1] == "Υπάρχει στάση;"


@pytest.mark.parametrize(
    ("unit", "files"),
    [
        ("{{Reflist}}\n[[Category:Mills]]", True),
        ("[[Datei:Mühle.jpg|mini]]", True),
        ("{{convert|5|km}}", False),
        ("[[Mill]]", False),
    ],
)
def test_what_files_a_page_of_a_wiki_says_nothing(unit, files):
    assert leads_elsewhere(unit, [Span(0, len(unit))], tags=False) == [files]


@pytest.mark.parametrize(
    "menu", ["Strona główna | Oferta | Cennik | Blog", "Anasayfa › Ürünler › Sabunlar", "Hem > Nyheter > Arkiv"]
)
def test_a_trail_of_links_is_told_in_more_languages(menu):
    text = f"Acme\n\n{menu}\n\nBread is sold on Fridays.\n"
    start = text.index(menu)
    assert leads_elsewhere(text, [Span(start, start + len(menu))], tags=False) == [True]


@pytest.mark.parametrize(
    ("label", "stays"), [("6. Changes", False), ("§ 12 Haftung", False), ("3) Fees", False), ("12 g salt", True)]
)
def test_the_number_of_a_title_makes_it_no_statement(label, stays):
    text = f"{label}\n\nBread is sold on Fridays.\n"
    end = len(label)
    units = (Span(0, end, 0.06), Span(end + 2, len(text) - 1, 0.9))
    context = Context("q", (Extract(Document(text), units, (True, True)),))
    result = select(
        context,
        threshold=None,
        budget=50,
        counter=WordCounter(),
        policy=Policy(floor=0.01, companions=False),
        relevant=0.1,
    )
    assert result.extracts[0].kept == (stays, True)
