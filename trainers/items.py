"""Training pairs as token ids with labels, and as padded batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ctxprune.compressors.pruner import title_sentence
from ctxprune.models.provence import LoadedPruner
from ctxprune.text import split_sentences
from ctxprune.text.normal import normalise, readable
from ctxprune.trainers.pairs import Pair

#: The label of tokens that no loss looks at: question, title, special tokens, padding.
IGNORE = -100


class HasIds(Protocol):
    """Any encoded training item: token ids of shape (n,), and whatever labels its trainer needs."""

    @property
    def ids(self) -> np.ndarray[Any, Any]: ...


Encoded = TypeVar("Encoded", bound=HasIds)


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded pair. ids, types, keep, answer, sentence: (n,); keep and answer are 1, 0 or IGNORE, sentence the
    number of the passage's sentence or IGNORE. rank: 1.0 or 0.0."""

    ids: np.ndarray[Any, Any]
    types: np.ndarray[Any, Any]
    keep: np.ndarray[Any, Any]
    answer: np.ndarray[Any, Any]
    sentence: np.ndarray[Any, Any]
    rank: float


def encode(pairs: Sequence[Pair], pruner: LoadedPruner, *, max_length: int, max_question: int = 64) -> list[Item]:
    """Tokenise pairs, read as the library reads them, and put their character labels onto tokens. What does not fit
    `max_length` tokens is cut off: the windows of `pairs.vary` are made to fit, and at run time the library windows
    instead of cutting."""
    layout, tokenizer = pruner.layout, pruner.tokenizer
    questions = tokenizer.encode_batch([readable(pair.question) for pair in pairs], add_special_tokens=False)
    titles = tokenizer.encode_batch([readable(title_sentence(pair.title)) for pair in pairs], add_special_tokens=False)
    normal = [normalise(pair.text) for pair in pairs]
    passages = tokenizer.encode_batch([each.text for each in normal], add_special_tokens=False)
    items = []
    for pair, question, title, read, passage in zip(pairs, questions, titles, normal, passages, strict=True):
        asked = question.ids[:max_question]
        room = max_length - layout.overhead - len(asked) - len(title.ids)
        sequence = layout.build(asked, [*title.ids, *passage.ids[:room]])
        start = len(layout.prefix) + len(asked) + len(layout.middle) + len(title.ids)
        offsets = read.sources(np.array(passage.offsets[:room], dtype=np.int64).reshape(-1, 2))
        keep = np.full(len(sequence), IGNORE, dtype=np.int64)
        answer = keep.copy()
        for labels, spans in ((keep, pair.keep), (answer, pair.answers)):
            if spans is not None:
                labels[start : start + len(offsets)] = covered(offsets, spans)
        sentence = np.full(len(sequence), IGNORE, dtype=np.int64)
        ends = np.array([span.end for span in split_sentences(pair.text)], dtype=np.int64)
        sentence[start : start + len(offsets)] = np.searchsorted(ends, offsets[:, 0], side="right")
        items.append(Item(sequence.ids, sequence.type_ids, keep, answer, sentence, float(pair.relevant)))
    return items


def covered(offsets: np.ndarray[Any, Any], spans: Sequence[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """1 for each token, given by its (n, 2) character offsets, that overlaps a span, else 0."""
    inside = np.zeros(len(offsets), dtype=np.int64)
    for start, end in spans:
        inside |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return inside


def batches(items: Sequence[Encoded], size: int, rng: random.Random) -> list[list[Encoded]]:
    """Shuffled batches of similar lengths: sorted within stretches of 50 batches, so that little is padding."""
    order = list(range(len(items)))
    rng.shuffle(order)
    made = []
    for begin in range(0, len(order), size * 50):
        stretch = sorted(order[begin : begin + size * 50], key=lambda place: len(items[place].ids))
        made += [[items[place] for place in stretch[i : i + size]] for i in range(0, len(stretch), size)]
    rng.shuffle(made)
    return made


def collate(batch: Sequence[Item], pad_id: int, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Pad to the longest: ids, types, mask, keep, answer, sentence as (batch, seq) int64, rank as (batch,) float."""
    width = max(len(item.ids) for item in batch)

    def padded(name: str, value: int) -> torch.Tensor:
        rows = np.full((len(batch), width), value, dtype=np.int64)
        for row, item in zip(rows, batch, strict=True):
            row[: len(item.ids)] = getattr(item, name)
        return torch.from_numpy(rows).to(device)

    mask = torch.tensor([[1] * len(item.ids) + [0] * (width - len(item.ids)) for item in batch], device=device)
    rank = torch.tensor([item.rank for item in batch], device=device)
    return {
        "ids": padded("ids", pad_id),
        "types": padded("types", 0),
        "mask": mask,
        "keep": padded("keep", IGNORE),
        "answer": padded("answer", IGNORE),
        "sentence": padded("sentence", IGNORE),
        "rank": rank,
    }
