"""Compare a summary with its sources, word by word: what it says that they do not, numbers and names above all.

Plain string matching, no model: it finds what was made up of new words and figures, not what was put together wrongly
from words that the sources have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from ctxprune.compressors.number_values import find_numbers
from ctxprune.text import split_sentences
from ctxprune.text.lexical import STOP_WORDS, index_terms, tokenise
from ctxprune.types import Faithfulness, Summary

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
