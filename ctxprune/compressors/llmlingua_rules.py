"""How llmlingua 0.2.2 turns token probabilities into kept words: chunks, words, a percentile a chunk.

Pure functions of strings and numbers, kept apart from the library's own rules (`select`, `word_scores`), so that
whoever moves over from llmlingua gets the decisions they know. docs/llmlingua-differences.md lists where they differ.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ctxprune.compressors.word_model import Array
from ctxprune.compressors.word_scores import TokenToWord

_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Item:
    """A token of the text, or a whole forced string.

    ids: what the model reads for it, none for a forced line break it has no token for. spelling: as the tokenizer
    spells it, or the forced string. start, end: characters of the text.
    """

    ids: tuple[int, ...]
    spelling: str
    start: int
    end: int
    forced: bool = False
    unknown: bool = False


@dataclass(slots=True)
class Word:
    """scores: of its tokens, 1.0 where forced. plain: the same without forcing. A word of unknown tokens has no say in
    the threshold, as llmlingua passes over it."""

    spelling: str
    start: int
    end: int
    scores: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """How a tokenizer marks words: `mark` opens a word ("▁"), or continues one ("##", `continues` True)."""

    mark: str
    continues: bool

    def pure(self, spelling: str) -> str:
        return spelling.lstrip(self.mark)

    def begins(self, spelling: str, force_tokens: Collection[str]) -> bool:
        """Whether a token opens a word; punctuation does where tokens do not say that they continue one."""
        if self.continues:
            return self.pure(spelling) in force_tokens or not spelling.startswith(self.mark)
        return spelling in string.punctuation or spelling in force_tokens or spelling.startswith(self.mark)


def chunk_bounds(spellings: Sequence[str], room: int, enders: Collection[str]) -> list[tuple[int, int]]:
    """(first, last + 1) of chunks of at most `room` + 1 tokens, cut after the last ender in reach if there is one."""
    cuts = [0]
    while cuts[-1] < len(spellings):
        start, end = cuts[-1], cuts[-1] + room
        if end > len(spellings) - 1:
            cuts.append(len(spellings))
            break
        back = next((back for back in range(room) if spellings[end - back] in enders), 0)
        cuts.append(max(start, end - back) + 1)
    return list(pairwise(cuts))


def merge_words(
    items: Sequence[Item], keep: Sequence[float], style: Style, *, force_tokens: Collection[str], digits: bool
) -> list[Word]:
    """keep: P(keep) of each item. digits: tokens with a digit score 1.0."""
    words: list[Word] = []
    for item, score in zip(items, keep, strict=True):
        if item.unknown and not style.continues and words and words[-1].end == item.start:
            words[-1].end = item.end  # part of the word it stands in, without a say in its score
            continue
        forced = item.forced or (digits and _DIGIT.search(item.spelling) is not None)
        if item.forced or item.unknown or not words or style.begins(item.spelling, force_tokens):
            forced = forced or style.pure(item.spelling) in force_tokens
            words.append(Word(item.spelling, item.start, item.end, unknown=item.unknown))
        else:
            words[-1].spelling += style.pure(item.spelling)
            words[-1].end = item.end
        words[-1].scores.append(1.0 if forced else score)
        words[-1].plain.append(score)
    return words


def word_score(scores: Sequence[float], how: TokenToWord) -> float:
    """The mean of the tokens' scores, or the first."""
    return scores[0] if how == "first" else sum(scores) / len(scores)


def keep_flags(
    words: Sequence[Word],
    counts: Sequence[int],
    *,
    rate: float,
    how: TokenToWord,
    force_tokens: Collection[str],
    drop_consecutive: bool,
) -> list[bool]:
    """Which words of one chunk stay at `rate`.

    counts: tokens of each word's spelling; a word's score stands so many times among those whose percentile is the
    threshold, which must be exceeded.
    """
    voters = [place for place, word in enumerate(words) if not word.unknown]
    scores = np.array([word_score(word.scores, how) for word in words], np.float64)
    reduce_rate = max(0.0, 1.0 - rate)
    if drop_consecutive and voters:
        _sink_repeats([words[place] for place in voters], voters, scores, force_tokens, reduce_rate)
    repeated = np.repeat(scores[voters], [counts[place] for place in voters])
    if not len(repeated):
        return [rate > 0.0] * len(words)
    threshold = float(np.percentile(repeated, min(100, int(100 * reduce_rate + 1))))
    flags = [score > threshold or (threshold == 1.0 and score == threshold) for score in scores.tolist()]
    return _without_echo(words, flags, force_tokens) if drop_consecutive else flags


def _sink_repeats(
    words: Sequence[Word], places: Sequence[int], scores: Array, force_tokens: Collection[str], reduce_rate: float
) -> None:
    """Score 0 for a forced word that repeats the forced word before it with no likely word between."""
    threshold = np.percentile(scores[list(places)], int(100 * reduce_rate))
    between, previous = False, None
    for place, word in zip(places, words, strict=True):
        if word.spelling in force_tokens:
            if not between and word.spelling == previous:
                scores[place] = 0.0
            between, previous = False, word.spelling
        else:
            between = between or bool(scores[place] > threshold)


def _without_echo(words: Sequence[Word], flags: Sequence[bool], force_tokens: Collection[str]) -> list[bool]:
    """A forced word right after the same kept word goes as well."""
    kept, last = [], None
    for word, flag in zip(words, flags, strict=True):
        stays = flag and not (word.spelling in force_tokens and word.spelling == last)
        last = word.spelling if stays else last
        kept.append(stays)
    return kept
