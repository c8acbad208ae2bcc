"""A number at the start of a wrapped line that belongs to the sentence before it."""

import pytest

from ctxprune.text import split_sentences


def units(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text)]


@pytest.mark.parametrize(
    "text",
    [
        "The tenant may object within the time that is named in clause\n14. The landlord answers in writing.",
        "The rates are set out in table\n   3. They hold until June.",
        "Näheres regelt der Vertrag in Abschnitt\n8. Er liegt bei.",
        "The fee is shown on page\n40. It rises each year.",
        "a) Notices go to the address in section\n   12. Those by mail take a day.\nb) Fees are due.",
    ],
)
def test_a_wrapped_reference_stays_in_its_sentence(text):
    first = units(text)[0]
    assert first.split()[-1].rstrip(".").isdigit()
    assert len(units(text)) == 2 + text.count("\nb)")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("You need:\n1. flour\n2. water\n3. salt", 4),
        ("Open the valve.\n2. Wait a minute.\n3. Close it.", 3),
        ("1. What we speak of\n2. What we are silent about", 2),
    ],
)
def test_lists_stay_lists(text, number):
    assert len(units(text)) == number
