"""Read texts the way llmlingua 0.2.2 does: chunks without overlap, forced strings as tokens of their own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from tokenizers import models, pre_tokenizers

from ctxprune.compressors.llmlingua_rules import Item, Style, Word, chunk_bounds, merge_words
from ctxprune.compressors.pruner import sigmoid
from ctxprune.compressors.word_model import WordModel
from ctxprune.errors import InputError
from ctxprune.models.formats import special_tokens
from ctxprune.runtime.base import TokenSequence
from ctxprune.text import model_text
from ctxprune.text.atoms import trim

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
    """Words with offsets free of outer white space (but for forced line breaks) and of overlap."""
    end = 0
    for word in words:
        start, stop = max(word.start, end), max(word.end, end)
        if text[start:stop].strip():
            start, stop = trim(text, start, stop) or (start, start)
        elif text[start:stop] != word.spelling:
            stop = start
        word.start, word.end = start, stop
        end = stop
    return list(words)
