"""Compare a summary with its sources, word by word: what it says that they do not, numbers and names above all.

Plain string matching, no model: it finds what was made up of new words and figures, not what was put together wrongly
from words that the sources have.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

from ctxprune.text import split_sentences
from ctxprune.text.atoms import numbers
from ctxprune.text.words import STOP_WORDS, index_terms, tokenise
from ctxprune.types import Faithfulness, Summary

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


#: Names are shortened and inflected, so one strange name among a few is no proof; a strange number is.
MIN_NAMES: Final = 0.5

#: Summaries count what a source lists ("the two brothers"), so a smaller number in words need not stand in it.
_LEAST_SPELLED = 10

_WORD = re.compile(r"(?<!\w)[^\W\d_]\w*(?:['’-]\w+)*")
#: Open a sentence with a capital and are no names, beside the stop words.
_OPENERS = frozenset(
    {
        *("according", "additionally", "although", "another", "besides", "despite", "either", "even", "every"),
        *("first", "furthermore", "given", "however", "indeed", "instead", "last", "later", "like", "many", "moreover"),
        *("much", "neither", "nothing", "one", "others", "overall", "second", "several", "similarly", "since", "still"),
        *("third", "though", "thus", "today", "together", "two", "unlike", "various", "whether", "within", "without"),
        *("yes", "yet"),
    }
)


def check_faithfulness(summary: str, sources: Iterable[str]) -> Faithfulness:
    """How much of the summary stands in the sources; what stands in the question alone does not.

    Words are compared lower-cased, stemmed, without numbers and English stop words; pairs are neighbours among those.
    Numbers are compared by value (see `find_numbers`), without their units; a rounded number is another number, and
    those spelled out below ten are not looked for. A name is a run of capitalised words of at least two letters, found
    when each of its words is; an ordinary noun with a capital counts as one, as all nouns do in German.
    An empty summary is faithful.
    """
    texts = list(sources)
    known = {term for text in texts for term in index_terms(text)}
    known_pairs = {pair for text in texts for pair in pairwise(_content(text))}
    values = {number.value for text in texts for number in find_numbers(text)}
    words, names = _content(summary), list(_names(summary))
    numbers = [each for each in find_numbers(summary) if not each.spelled or each.value >= _LEAST_SPELLED]
    strange_numbers = [number.text for number in numbers if number.value not in values]
    strange_names = [name for name in names if not _stands_in(name, texts, known)]
    return Faithfulness(
        words=_share(sum(word in known for word in words), len(words)),
        pairs=_share(sum(pair in known_pairs for pair in pairwise(words)), len(words) - 1),
        numbers=_share(len(numbers) - len(strange_numbers), len(numbers)),
        names=_share(len(names) - len(strange_names), len(names)),
        unsupported_numbers=tuple(dict.fromkeys(strange_numbers)),
        unsupported_names=tuple(dict.fromkeys(strange_names)),
    )


def checked(summary: Summary) -> Summary:
    """The summary with its comparison with its sources, whole documents with their titles."""
    sources = [f"{source.title}\n{source.text}" for source in summary.sources]
    return replace(summary, faithfulness=check_faithfulness(summary.text, sources))


def unfaithful(report: Faithfulness, *, min_names: float = MIN_NAMES) -> bool:
    """True for any number that is not in the sources, and when less than `min_names` of the names are."""
    return bool(report.unsupported_numbers) or report.names < min_names


def _share(found: int, total: int) -> float:
    return found / total if total > 0 else 1.0


def _content(text: str) -> list[str]:
    """Content words in order; numbers are left out, since "1,000" and "1000" are not the same words."""
    return [term for term in tokenise(text) if not term.isdecimal()]


def _stands_in(name: str, texts: Sequence[str], known: set[str]) -> bool:
    """As written, or each word of it somewhere: "President Obama" stands in "Barack Obama, the president"."""
    return any(name in text for text in texts) or known.issuperset(index_terms(name))


def _names(text: str) -> Iterator[str]:
    """Runs of capitalised words within a sentence, in order."""
    for sentence in split_sentences(text):
        yield from _names_of(text[sentence.start : sentence.end])


def _names_of(sentence: str) -> Iterator[str]:
    start = end = 0  # of the run so far
    for place, match in enumerate(_WORD.finditer(sentence)):
        name = _is_name(match.group(), opens=place == 0)
        if end > start and not (name and sentence[end : match.start()] == " "):
            yield _unpossessed(sentence[start:end])
            start = end
        if name:
            start = start if end > start else match.start()
            end = match.end()
    if end > start:
        yield _unpossessed(sentence[start:end])


def _is_name(word: str, *, opens: bool) -> bool:
    if not word[0].isupper() or len(word) < 2:
        return False
    plain = word.lower()
    return not (opens and (plain in STOP_WORDS or plain in _OPENERS or plain.endswith(("ly", "ing"))))


def _unpossessed(name: str) -> str:
    return re.sub(r"['’]s?$", "", name)
