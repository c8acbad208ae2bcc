"""What the encoder says of every sentence of a context, collected from its readings of the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.compressors.base import readable_units, visible_sentences
from ctxprune.compressors.provence.fusion import Array, SentenceEvidence
from ctxprune.compressors.provence.pruner import Passage, Reading
from ctxprune.models.formats import token_spans
from ctxprune.runtime import sigmoid
from ctxprune.text import UnitKind
from ctxprune.types import Context, Extract, Span

#: Log-odds of a sentence without tokens.
_NOTHING = -10.0


@dataclass(frozen=True, slots=True)
class Sentences:
    """The extracts of a context that still hold text, and the kept sentences of each."""

    query: str
    extracts: tuple[Extract, ...]
    spans: tuple[tuple[Span, ...], ...]

    def passages(self) -> list[Passage]:
        """Whole documents, because a sentence is judged in its surroundings, even those removed earlier."""
        return [Passage(self.query, extract.source.title, extract.source.text) for extract in self.extracts]


def sentences_of(context: Context, language: str | None = None, units: UnitKind = "auto") -> Sentences:
    """Split what is kept; documents of which nothing is kept, or that are empty, are left out."""
    split = [(extract, tuple(visible_sentences(extract, language, units))) for extract in context.extracts]
    alive = [(extract, spans) for extract, spans in split if spans]
    return Sentences(context.query, tuple(extract for extract, _ in alive), tuple(spans for _, spans in alive))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentence scores of one context by plain rounding, and what the fusion needs.

    mean: mean keep probability; share: share of tokens with P(keep) > 0.5; each (n_sentences,) in [0, 1].
    """

    mean: Array
    share: Array
    fusable: SentenceEvidence


def gather(item: Sentences, readings: Sequence[Reading]) -> Evidence:
    """Collect token scores by sentence. A sentence without tokens (only symbols the tokenizer drops) scores 0."""
    tables = [_by_sentence(spans, reading) for spans, reading in zip(item.spans, readings, strict=True)]
    mean, share, answer, peak, tokens, window = np.concatenate([np.zeros((0, 6)), *tables]).T
    document = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    first = np.cumsum([0, *(len(reading.ranks) for reading in readings)])
    fusable = SentenceEvidence(
        item.query,
        tuple(
            text
            for extract, spans in zip(item.extracts, item.spans, strict=True)
            for text in readable_units(extract, spans)
        ),
        tuple(extract.source.title for extract in item.extracts),
        document,
        _log_odds(mean),
        answer,
        np.array([reading.rank for reading in readings]),
        peak=peak,
        tokens=tokens,
        window=first[document] + window.astype(np.int64),
        window_rank=np.concatenate([np.zeros(0), *(reading.ranks for reading in readings)]).astype(np.float64),
    )
    return Evidence(mean, share, fusable)


def _by_sentence(spans: Sequence[Span], reading: Reading) -> Array:
    """(n_sentences, 6): mean keep probability, share of tokens above one half, highest answer log-odds, highest keep
    log-odds, tokens, and the window that the sentence's middle was read in."""
    starts = np.array([span.start for span in spans], dtype=np.int64)
    ends = np.array([span.end for span in spans], dtype=np.int64)
    first, last = token_spans(reading.offsets, starts, ends)
    keep = reading.keep.astype(np.float64)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(np.column_stack([sigmoid(keep), keep > 0]), axis=0)])
    means = (sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]
    answers = keep if reading.answer is None else reading.answer
    places = list(zip(first, last, strict=True))
    highest = [answers[a:b].max() if b > a else _NOTHING for a, b in places]
    peaks = [keep[a:b].max() if b > a else _NOTHING for a, b in places]
    middle = (first + np.maximum(last, first + 1) - 1) // 2
    window = np.minimum(np.searchsorted(reading.ends, middle, side="right"), len(reading.ends) - 1)
    return np.column_stack([means, highest, peaks, last - first, window])


def _log_odds(probabilities: Array) -> Array:
    inside = np.clip(probabilities, 1e-4, 1 - 1e-4)
    odds: Array = np.log(inside / (1 - inside))
    return odds
