"""The numbers of a text by value, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from ctxprune.text.atoms import numbers

_SCALES = {"thousand": 3, "k": 3, "million": 6, "m": 6, "billion": 9, "bn": 9, "b": 9, "trillion": 12}
_SCALE = re.compile(r"\s?(thousand|million|billion|trillion|bn)\b", re.IGNORECASE)
_MONEY_SCALE = re.compile(r"\s?(k|m|bn|b)\b", re.IGNORECASE)
_CURRENCY = "$€£¥₹₩"
_GROUPED = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}")
_FIGURE = re.compile(r"\d(?:[\d.,]*\d)?")
_NARROW_GAP = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("zero", *_UNITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SPELLED = (
    {word: value for value, word in enumerate(_TEENS)}
    | {word: value for value, word in zip(range(20, 100, 10), _TENS, strict=True)}
    | {
        f"{ten}-{unit}": 20 + 10 * place + 1 + more
        for place, ten in enumerate(_TENS)
        for more, unit in enumerate(_UNITS)
    }
)
_SPELLED_WORD = re.compile(
    rf"\b(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS)}))?|{'|'.join(_TEENS)})\b", re.IGNORECASE
)


class Number(NamedTuple):
    """A number as the text writes it, sign and unit included, and its value without the unit."""

    text: str
    value: Decimal
    spelled: bool = False


def find_numbers(text: str) -> Iterator[Number]:
    """Every number of the text; a date, range or version gives one a part, each with the whole as its text.

    "1,000", "1000", "1 000" with a narrow blank and "1.0 thousand" have one value, so have "$5m" and "5 million" and so
    have "forty-two" and "42" (English, up to 99). Digits within a word ("B12") are no number. Linear in the text.
    """
    text = unicodedata.normalize("NFKC", _NARROW_GAP.sub("", text))  # which would make narrow blanks plain ones
    for start, end in numbers(text):
        written = text[start:end]
        scale = _scale(written, text[end : end + 10])
        # a hyphen inside "COVID-19" is no minus
        negative = written[0] in "-−" and not text[max(start - 1, 0) : start].strip("( \t\n")
        for figure in _FIGURE.findall(written):
            for value in _values(figure):
                yield Number(written, (-value if negative else value).scaleb(scale))
    for match in _SPELLED_WORD.finditer(text):
        word = match.group()
        yield Number(word, Decimal(_SPELLED[word.lower().replace(" ", "-")]), spelled=True)


def _scale(written: str, following: str) -> int:
    """The power of ten in the word after a number; a short one only after a currency sign, where "m" is no metre."""
    tail = written.lstrip("+-−±#" + _CURRENCY).lstrip("0123456789.,:/–−- ") + following
    found = _SCALE.match(tail) or (_MONEY_SCALE.match(tail) if written[0] in _CURRENCY else None)
    return _SCALES[found.group(1).lower()] if found else 0


def _values(figure: str) -> Sequence[Decimal]:
    """What a run of digits, commas and stops says: grouped thousands, a decimal fraction, else each part alone."""
    if _GROUPED.fullmatch(figure):
        return [Decimal(figure.replace("," if "," in figure else ".", ""))]
    parts = re.split("[.,]", figure)
    return [Decimal(".".join(parts))] if len(parts) <= 2 else [Decimal(part) for part in parts if part]
