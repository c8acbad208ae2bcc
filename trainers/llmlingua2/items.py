"""Texts with word targets as token ids with labels, and as padded batches: what the LLMLingua-2 trainer learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from ctxprune.models.formats import PairFormat, window_starts
from ctxprune.runtime import TokenSequence
from ctxprune.text import split_words
from ctxprune.text.normal import normalise, readable
from ctxprune.trainers.llmlingua2.targets import WordTargets
from ctxprune.trainers.shared.loop import IGNORE, padded


@dataclass(frozen=True, slots=True)
class WordItem:
    """One window of a text. ids: (n,) int64. keep: (n,) float32 in [0, 1], or IGNORE. words: (n,) int64, which word
    of the window a token belongs to, -1 for special tokens."""

    ids: np.ndarray[Any, Any]
    keep: np.ndarray[Any, Any]
    words: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """Words that are kept at run time whatever the model says, so that no loss looks at them.

    tokens: a word that is one of these, or ends with one that is no letter or digit ("?"). digits: a word that holds
    any digit.
    """

    tokens: tuple[str, ...] = ()
    digits: bool = False

    def holds(self, word: str) -> bool:
        marks = tuple(token for token in self.tokens if not token.isalnum())
        return word in self.tokens or word.endswith(marks) or (self.digits and any(map(str.isdigit, word)))


def encode_targets(
    texts: Sequence[WordTargets],
    tokenizer: Tokenizer,
    layout: PairFormat,
    *,
    max_length: int,
    forced: Forced | None = None,
) -> list[WordItem]:
    """Tokenise texts, read as the library reads them, and put the targets of words onto all of their tokens.

    Texts of more than `max_length` tokens become several windows that overlap by a quarter, as at run time.
    """
    forced = forced or Forced()
    normal = [normalise(item.text) for item in texts]
    encodings = tokenizer.encode_batch([each.text for each in normal], add_special_tokens=False)
    items: list[WordItem] = []
    for item, read, encoding in zip(texts, normal, encodings, strict=True):
        offsets = read.sources(np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))
        words = word_of_token(item.text, offsets)
        labels = np.append(_labels(item, forced), IGNORE)  # the last entry serves tokens without a word, which have -1
        items += _windows(np.array(encoding.ids, dtype=np.int64), labels[words], words, layout, max_length)
    return items


def word_of_token(text: str, offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which unit of `split_words(text)` holds the last character of each token, -1 before the first. Returns (n,).

    offsets: (n, 2) character offsets. The last character, because some tokenizers count the space before a word in.
    """
    starts = np.array([word.start for word in split_words(text)], dtype=np.int64)
    places: np.ndarray[Any, Any] = np.searchsorted(starts, offsets[:, 1] - 1, side="right") - 1
    return places


def text_sequences(
    tokenizer: Tokenizer, layout: PairFormat, texts: Sequence[str], max_length: int
) -> Iterator[TokenSequence]:
    """The model inputs of plain texts, windows as in training."""
    for encoding in tokenizer.encode_batch([readable(text) for text in texts], add_special_tokens=False):
        ids = np.array(encoding.ids, dtype=np.int64)
        for window in _windows(ids, np.zeros(len(ids)), ids, layout, max_length):
            yield TokenSequence(window.ids, np.zeros_like(window.ids))


def _labels(item: WordTargets, forced: Forced) -> np.ndarray[Any, Any]:
    known = [float(IGNORE) if target is None else target for target in item.targets]
    if forced.tokens or forced.digits:
        for place, word in enumerate(split_words(item.text)):
            if forced.holds(item.text[word.start : word.end]):
                known[place] = float(IGNORE)
    return np.array(known, dtype=np.float32)


def _windows(
    ids: np.ndarray[Any, Any],
    keep: np.ndarray[Any, Any],
    words: np.ndarray[Any, Any],
    layout: PairFormat,
    max_length: int,
) -> Iterator[WordItem]:
    room = max_length - len(layout.prefix) - len(layout.suffix)
    before, after = len(layout.prefix), len(layout.suffix)
    for start in window_starts(len(ids), room) if len(ids) else ():
        end = start + room
        yield WordItem(
            np.array([*layout.prefix, *ids[start:end], *layout.suffix], dtype=np.int64),
            np.pad(keep[start:end].astype(np.float32), (before, after), constant_values=IGNORE),
            np.pad(words[start:end], (before, after), constant_values=-1),
        )


def collate_words(batch: Sequence[WordItem], pad_id: int, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Pad to the longest. Returns ids, mask: (batch, seq) int64, keep: (batch, seq) float32 with IGNORE at padding."""
    columns = {
        "ids": padded([item.ids for item in batch], pad_id),
        "mask": padded([np.ones_like(item.ids) for item in batch], 0),
        "keep": padded([item.keep for item in batch], IGNORE, np.float32),
    }
    return {name: column.to(device) for name, column in columns.items()}
