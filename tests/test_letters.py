"""Letters: an address is one unit, a closing formula answers nothing, and the name below it says who signed."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length, assert_work_grows_with_length
from test_apart_titles import headings
from test_units import assert_split, units
from test_units_field import leaning

from ctxprune import Context, Document, Policy, load
from ctxprune.select import select
from ctxprune.text import split_sentences
from ctxprune.text.quiet import hushed
from ctxprune.tokens import load_counter
from ctxprune.types import Extract, Span

NEWS = "The weir is shut from May to June. Boats go by the lock."


def silent(text: str) -> list[str]:
    spans = [Span(span.start, span.end, 0.5) for span in split_sentences(text)]
    return [text[span.start : span.end] for span in hushed(text, spans) if span.score == 0]


@pytest.mark.parametrize(
    "address",
    [
        "Weir Office\n4 Lock Road\nMilltown\nMT4 9ZZ",
        "Ms Ida Moor\nFlat 2\n17b Ferry Lane\nMilltown, OH 44101\nUSA",
        "Frau\nIda Moor\nMühlgasse 3a\n04103 Leipzig",
        "Wehramt Süd\nPostfach 12 40\nA-5020 Salzburg\nTel.: 0662 1234",
        "Mme Ida Moor\n3 bis, quai des Moulins\n44000 Nantes",
        "Oficina del Canal\nCalle del Molino, 8\n50001 Zaragoza",
        "Mulino Alto\nVia del Ponte, 21\n10121 Torino (TO)",
        "Sluis & Zoon\nMolenweg 9\n3011 AB Rotterdam",
        "Urząd Wodny\nul. Młyńska 5/7\n80-001 Gdańsk",
    ],
)
def test_an_address_is_one_unit(address: str) -> None:
    assert units(f"{address}\n\n{NEWS}")[0] == address
    assert units(f"Send it to:\n{address}\n\n{NEWS}")[:2] == ["Send it to:", address]


@pytest.mark.parametrize(
    "marked",
    [
        "40 Boats¶\n1200 Seats¶\n3 Locks¶",
        "Boats 40¶\nSeats 12000¶\nLocks 3¶",
        "04103 Leipzig¶\n50001 Zaragoza¶\n10121 Torino¶",
        "1 Zwiebel¶\n1000 Gramm Mehl¶\n2 Eier¶",
    ],
)
def test_counts_and_lists_of_places_are_no_address(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "closing",
    [
        "Yours truly,",
        "Kind regards",
        "Thanks in advance,",
        "Beste Grüße",
        "Hochachtungsvoll",
        "Bien cordialement,",
        "Veuillez agréer, Madame, l'expression de mes sentiments distingués.",
        "Un cordial saludo,",
        "Con i migliori saluti,",
        "Distinti saluti",
        "Hartelijke groet,",
        "Z poważaniem",
        "С уважением,",
        "ด้วยความนับถือ",
        "此致\n敬礼！",
        "敬具",
    ],
)
def test_a_closing_scores_nothing_and_the_name_below_leans_on_it(closing: str) -> None:
    letter = f"{NEWS}\n\n{closing}\n\n\nIda Moor\nHead of Weirs"
    assert silent(letter) == [closing]
    assert units(letter)[-1] == "Ida Moor\nHead of Weirs"
    assert leaning(letter)["Ida Moor\nHead of Weirs"] == closing


def test_the_address_below_a_name_is_a_unit_that_leans_on_the_name() -> None:
    letter = f"{NEWS}\nBest wishes,\nIda Moor\n17 Ferry Lane\nMilltown MT4 9ZZ\nida@weir.example\n\nPS: Bring the key."
    assert units(letter)[2:] == [
        "Best wishes,",
        "Ida Moor",
        "17 Ferry Lane\nMilltown MT4 9ZZ\nida@weir.example",
        "PS: Bring the key.",
    ]
    assert leaning(letter)["17 Ferry Lane\nMilltown MT4 9ZZ\nida@weir.example"] == "Ida Moor"


@pytest.mark.parametrize(
    "text",
    [
        f"Dear Ms Moor,\n\n{NEWS}",
        f"{NEWS} Best regards go to all of the keepers, who have rowed them through.",
        f"{NEWS}\n\nThanks to Ida Moor\n\n{NEWS}",
        f"{NEWS}\n\nKind regards, Ida Moor",
    ],
)
def test_what_names_somebody_or_stands_in_a_sentence_keeps_its_score(text: str) -> None:
    assert silent(text) == []


@pytest.mark.parametrize("greeting", ["To whom it may concern:", "Sehr geehrte Damen und Herren,", "Madame, Monsieur,"])
def test_a_greeting_to_nobody_scores_nothing(greeting: str) -> None:
    assert silent(f"{greeting}\n\n{NEWS}") == [greeting]


@pytest.mark.parametrize("budget", [12, 20, 30])
def test_a_closing_takes_no_room_from_a_sentence(budget: int) -> None:
    letter = f"{NEWS}\n\nWith kind regards,\n\nIda Moor"
    spans = [Span(span.start, span.end, 0.9) for span in split_sentences(letter)]
    spans[:2] = [Span(span.start, span.end, 0.2) for span in spans[:2]]
    scored = Context("", (Extract(Document(letter), tuple(hushed(letter, spans)), (True,) * len(spans)),))
    after = select(
        scored, threshold=None, budget=budget, counter=load_counter("words"), policy=Policy(floor=0.05)
    ).extracts[0]
    assert "Ida Moor" in after.text
    assert "regards" not in after.text


@pytest.mark.parametrize(
    "letter",
    [
        f"4 May 2025\n\nDear Ms Moor,\n\nThe weir at the upper mill\n\n{NEWS}",
        f"4. Mai 2025\n\nThe weir at the upper mill\n\nSehr geehrte Frau Moor,\n\n{NEWS}",
    ],
)
def test_the_subject_beside_a_greeting_is_a_heading(letter: str) -> None:
    assert headings(letter) == ["The weir at the upper mill"]


def test_a_letter_keeps_the_name_where_the_question_is_who_signed() -> None:
    letter = f"Dear Ms Moor,\n\n{NEWS} Tolls stay as they are.\n\nYours faithfully,\n\nOdo Brink\nKeeper of the weir"
    result = load("provence").compress([Context.of("Who is the keeper of the weir?", [Document(letter)])])[0]
    assert "Yours faithfully,\n\nOdo Brink" in result.extracts[0].text


@pytest.mark.parametrize("piece", ["Yours,\n", "A 4\n1000 A\n", "Best,\n\nKim\n\n", "Dear A,\n\nB c d e f g h\n\n"])
def test_work_grows_with_the_length_of_odd_letters(piece: str) -> None:
    assert_work_grows_with_length(split_sentences, piece)
    assert_structure_grows_with_length(piece)
