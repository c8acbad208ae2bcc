"""Find which words of a source text a teacher kept, when the teacher answers with text instead of positions.

After section 3.2 of Pan et al., "LLMLingua-2" (ACL 2024): every teacher word is looked for outward from the last match,
within a window. Teachers change case, endings and punctuation though told not to, so words are compared by form first
and by stem next. The source is the text as the model will see it, not a lemmatised copy, so labels fall where they
should.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctxprune.errors import InputError
from ctxprune.text import split_words
from ctxprune.text.lexical import stem

_EDGE = re.compile(r"^[\W_]+|[\W_]+$")
_INNER = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Alignment:
    """kept: one flag for each unit of `split_words(source)`. matched: the source word of each teacher word, None if it
    has none. hits: source words whose form or stem is anywhere in the teacher's text."""

    kept: tuple[bool, ...]
    matched: tuple[int | None, ...]
    hits: int

    @property
    def variation_rate(self) -> float:
        """Share of the teacher's words that the source does not hold near where they should be; 0 is faithful."""
        return sum(place is None for place in self.matched) / len(self.matched) if self.matched else 0.0

    @property
    def alignment_gap(self) -> float:
        """Hitting rate less matching rate: the share of source words that the teacher used but that stayed unmarked.
        High when the text repeats words and the alignment may have marked the wrong ones."""
        return (self.hits - sum(self.kept)) / len(self.kept) if self.kept else 0.0

    @property
    def kept_share(self) -> float:
        """Share of the source's words that are kept; 0 for an empty source."""
        return sum(self.kept) / len(self.kept) if self.kept else 0.0


def align(source: str, compressed: str, *, window: int = 150) -> Alignment:
    """Mark the source words that a compressed text kept.

    window: how many words before and after the last match to search. Of several candidates the nearest wins; one that
    lies behind counts twice its distance, for teachers delete more often than they reorder. A source word serves one
    teacher word. Linear in the texts but for the candidates of frequent words. Raises InputError for a window below 1.
    """
    if window < 1:
        raise InputError(f"window must be at least 1 word, got {window}; the default is 150")
    words = [source[word.start : word.end] for word in split_words(source)]
    wanted = [compressed[word.start : word.end] for word in split_words(compressed)]
    places = _places(words)
    free = [True] * len(words)
    matched: list[int | None] = []
    last = 0
    for word in wanted:
        nearest = (_nearest(places.get(key, ()), free, last, window) for key in _keys(word))
        found = next((place for place in nearest if place is not None), None)
        matched.append(None if found is None else found - 1)
        if found is not None:
            free[found - 1] = False
            last = found
    seen = {key for word in wanted for key in _keys(word)}
    hits = sum(not seen.isdisjoint(_keys(word)) for word in words)
    return Alignment(tuple(not each for each in free), tuple(matched), hits)


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    """Where each key stands, counted from 1, ascending. A number with its unit or "1990-95" also stands under its
    parts, for a teacher may have kept one of them."""
    found: dict[str, list[int]] = {}
    for place, word in enumerate(words, 1):
        for key in dict.fromkeys([*_keys(word), *_part_keys(word)]):
            found.setdefault(key, []).append(place)
    return found


def _keys(word: str) -> Iterator[str]:
    """The forms under which a word is compared, strictest first; they are marked, so that kinds do not mix."""
    form = unicodedata.normalize("NFKC", word).casefold()
    bare = _EDGE.sub("", form)
    yield f"form {bare or form}"
    if bare:
        yield f"stem {stem(bare)}"


def _part_keys(word: str) -> Iterator[str]:
    parts = [part for part in _INNER.split(unicodedata.normalize("NFKC", word).casefold()) if part]
    if len(parts) > 1:
        yield from (f"form {part}" for part in parts)


def _nearest(candidates: Sequence[int], free: Sequence[bool], last: int, window: int) -> int | None:
    """The best free candidate around the last match; positions count from 1, so 0 stands for no match yet."""
    low, high = bisect_left(candidates, last - window), bisect_right(candidates, last + window)
    usable = (at for at in candidates[low:high] if free[at - 1])
    return min(usable, key=lambda at: (_distance(at, last), at <= last), default=None)


def _distance(place: int, last: int) -> int:
    """In words from the one after the last match; doubled behind it."""
    return place - last if place > last else 2 * (last + 1 - place)
