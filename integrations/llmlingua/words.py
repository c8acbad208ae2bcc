"""Read texts the way llmlingua 0.2.2 does: chunks without overlap, forced strings as tokens of their own."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
from unicodedata import category

import numpy as np
from tokenizers import models, pre_tokenizers

from ctxprune.compressors.llmlingua.model import WordModel
from ctxprune.compressors.llmlingua.words import Array, TokenToWord
from ctxprune.errors import InputError
from ctxprune.models.formats import special_tokens
from ctxprune.runtime import TokenSequence, sigmoid
from ctxprune.text import model_text
from ctxprune.text.atoms import trim

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


#: Names of the extra tokens that llmlingua puts in the place of forced strings.
_MARKER = "[NEW{}]"


@dataclass(frozen=True, slots=True)
class Chunk:
    """words: with scores, in order. spelling: the chunk as the tokenizer puts it back together, to count its tokens."""

    words: tuple[Word, ...]
    spelling: str


@dataclass(frozen=True, slots=True)
class ChunkReader:
    """A model together with how its tokenizer marks words.

    unknown_ends: open and close every input with the unknown token, as llmlingua 0.2.2 does for XLM-R by mistake.
    """

    model: WordModel
    unknown_ends: bool = False

    def read(
        self, texts: Sequence[str], *, force_tokens: Sequence[str], digits: bool, chunk_end_tokens: Collection[str]
    ) -> list[list[Chunk]]:
        """The chunks of each text, in order."""
        markers = self._markers(force_tokens)
        items = self._items(texts, markers)
        enders = {*chunk_end_tokens, *(name for text, (name, _) in markers.items() if text in chunk_end_tokens)}
        room = self.model.max_length - 2
        chunks = [
            (place, self._reopened(texts[place], mine[first:last]))
            for place, mine in enumerate(items)
            for first, last in chunk_bounds([_name(item, markers) for item in mine], room, enders)
        ]
        outputs = iter(self.model.runtime.forward([self._sequence(each) for _, each in chunks]))
        read: list[list[Chunk]] = [[] for _ in texts]
        for place, each in chunks:
            logits = next(outputs)["keep"][len(self._ends()[0]) :]
            scores = _item_scores(each, sigmoid(logits.astype(np.float64)).tolist())
            words = merge_words(each, scores, self.style, force_tokens=force_tokens, digits=digits)
            read[place].append(Chunk(tuple(_placed(words, texts[place])), self._spelled(each, markers)))
        return read

    @property
    def style(self) -> Style:
        tokenizer = self.model.tokenizer
        if isinstance(tokenizer.model, models.WordPiece):
            return Style(tokenizer.model.continuing_subword_prefix, continues=True)
        return Style("Ġ" if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel) else "▁", continues=False)

    def _markers(self, force_tokens: Sequence[str]) -> dict[str, tuple[str, int | None]]:
        """Name and id of the token that stands for each forced string which is not one token by itself.

        The id is None where the checkpoint has no rows for such tokens: the string is then read as it is.
        """
        tokenizer = self.model.tokenizer
        size, specials = tokenizer.get_vocab_size(), special_tokens(tokenizer)
        found: dict[str, tuple[str, int | None]] = {}
        for place, text in enumerate(force_tokens):
            if len(tokenizer.encode(model_text(text), add_special_tokens=False).ids) != 1:
                name = _MARKER.format(place)
                row = specials.get(name, size + place)
                found[text] = name, row if row < max(self.model.rows, size) else None
        return found

    def _items(self, texts: Sequence[str], markers: Mapping[str, tuple[str, int | None]]) -> list[list[Item]]:
        # the longest first: "moons" is not "moon" and a rest
        longest = sorted(markers, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest))) if markers else None
        parts = [(place, *part) for place, text in enumerate(texts) for part in _parts(text, pattern)]
        encoded = self._encoded([texts[place][start:end] for place, start, end, _ in parts])
        items: list[list[Item]] = [[] for _ in texts]
        for (place, start, end, forced), mine in zip(parts, encoded, strict=True):
            if forced:
                row = markers[texts[place][start:end]][1]
                ids = tuple(token for item in mine for token in item.ids) if row is None else (row,)
                items[place].append(Item(ids, texts[place][start:end], start, end, forced=True))
            else:
                items[place] += [replace(item, start=item.start + start, end=item.end + start) for item in mine]
        return items

    def _reopened(self, text: str, items: list[Item]) -> list[Item]:
        """A chunk that begins within a word, tokenised again from there, so that its first token opens a word."""
        first = items[0]
        if first.forced or self.style.continues or first.spelling.startswith(self.style.mark):
            return items
        stretch = list(takewhile(lambda item: not item.forced, items))
        again = self._encoded([text[first.start : stretch[-1].end]])[0]
        return [replace(item, start=item.start + first.start, end=item.end + first.start) for item in again] + items[
            len(stretch) :
        ]

    def _encoded(self, texts: Sequence[str]) -> list[list[Item]]:
        unknown = _unknown_ids(self.model)
        encodings = self.model.tokenizer.encode_batch([model_text(text) for text in texts], add_special_tokens=False)
        return [
            [
                Item((token,), spelling, first, last, unknown=token in unknown)
                for token, spelling, (first, last) in zip(each.ids, each.tokens, each.offsets, strict=True)
            ]
            for each in encodings
        ]

    def _ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        layout = self.model.layout
        if not self.unknown_ends:
            return layout.prefix, layout.suffix
        unknown = _unknown_ids(self.model)[:1]
        return unknown, unknown

    def _sequence(self, items: Sequence[Item]) -> TokenSequence:
        """The closing token is left off where it does not fit, as llmlingua does."""
        opening, closing = self._ends()
        ids = [*opening, *(token for item in items for token in item.ids), *closing][: self.model.max_length]
        return TokenSequence(np.array(ids, np.int64), np.zeros(len(ids), np.int64))

    def _spelled(self, items: Sequence[Item], markers: Mapping[str, tuple[str, int | None]]) -> str:
        names = [_name(item, markers) for item in items]
        decoder = self.model.tokenizer.decoder
        return str(decoder.decode(names)) if decoder is not None else " ".join(names)


def _unknown_ids(model: WordModel) -> tuple[int, ...]:
    """Ids of the unknown token; InputError for a tokenizer that has none, so that llmlingua could not read with it."""
    specials = special_tokens(model.tokenizer)
    found = tuple(specials[name] for name in ("[UNK]", "<unk>") if name in specials)
    if not found:
        raise InputError(f"the tokenizer of {model.name} has no unknown token; compat reads BERT's and XLM-R's kinds")
    return found


def _parts(text: str, pattern: re.Pattern[str] | None) -> list[tuple[int, int, bool]]:
    """(start, end, forced) stretches of the text that are, or are not, forced strings."""
    parts, end = [], 0
    for match in pattern.finditer(text) if pattern else ():
        if match.start() > end:
            parts.append((end, match.start(), False))
        parts.append((*match.span(), True))
        end = match.end()
    return [*parts, (end, len(text), False)] if end < len(text) else parts


def _name(item: Item, markers: Mapping[str, tuple[str, int | None]]) -> str:
    return markers[item.spelling][0] if item.forced else item.spelling


def _item_scores(items: Sequence[Item], tokens: Sequence[float]) -> list[float]:
    """The mean over an item's tokens; 1.0 for one without."""
    scores, place = [], 0
    for item in items:
        mine = tokens[place : place + len(item.ids)]
        place += len(item.ids)
        scores.append(sum(mine) / len(mine) if mine else 1.0)
    return scores


def _placed(words: Sequence[Word], text: str) -> list[Word]:
    """Words with offsets free of outer white space (but for forced line breaks) and of overlap.

    Accents and vowel signs behind a word, which tokenizers strip, are part of it.
    """
    end = 0
    for word in words:
        start, stop = max(word.start, end), max(word.end, end)
        if text[start:stop].strip():
            start, stop = trim(text, start, stop) or (start, start)
        elif text[start:stop] != word.spelling:
            stop = start
        while start < stop < len(text) and category(text[stop]).startswith("M"):
            stop += 1
        word.start, word.end = start, stop
        end = stop
    return list(words)
