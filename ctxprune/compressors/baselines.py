"""Training-free baselines that every claim is compared with: lead, random and BM25 sentences, and their frame."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Unpack

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.base import (
    Choice,
    ScoringCompressor,
    narrow,
    readable_units,
    visible_sentences,
    visible_units,
)
from ctxprune.select import Policy
from ctxprune.text import split_words
from ctxprune.text.blobs import silent_units
from ctxprune.text.lexical import bm25_scores
from ctxprune.timing import stage
from ctxprune.types import Context, Extract, Span

Scores = npt.NDArray[np.float64]
#: Words by which a blob falls behind in a truncation, which would else end at an image it has no room for.
_AFTER_ALL = 10_000_000


@dataclass(frozen=True, slots=True)
class Sentences:
    """The kept sentences of one context, in order, as they are read, each with its document's title ("" for none)."""

    query: str
    texts: tuple[str, ...]
    titles: tuple[str, ...]


class SentenceCompressor(ScoringCompressor):
    """Ranks the sentences of a whole context; a document scores as its best sentence does."""

    default_companions = False
    splits_units = True

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        with stage("tokenize"):
            units = [
                [visible_sentences(extract, self.language, self.units) for extract in context.extracts]
                for context in contexts
            ]
            batch = [_sentences(context, spans) for context, spans in zip(contexts, units, strict=True)]
        with stage("infer"):
            scores = self.sentence_scores(batch)
        return [_rescored(*parts) for parts in zip(contexts, units, scores, strict=True)]

    @abstractmethod
    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        """For each context (n_sentences,): higher means keep; scores are compared within a context only."""


class BM25Sentences(SentenceCompressor):
    """Sentences by the words they share with the query; see `ctxprune.text.lexical.bm25_scores`."""

    name = "bm25-sentences"

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        return [bm25_scores(item.query, item.texts, titles=item.titles, language=self.language) for item in batch]


class RandomSentences(SentenceCompressor):
    """Sentences in an order drawn from `seed`, the query and the texts: the same in any batch and after any call."""

    name = "random"
    needs_query = False

    def __init__(
        self,
        *,
        seed: int = 0,
        **choice: Unpack[Choice],
    ) -> None:
        super().__init__(**choice)
        self.seed = seed

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        return [np.random.default_rng(self._seed_of(item)).random(len(item.texts)) for item in batch]

    def _seed_of(self, item: Sentences) -> int:
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=16)
        for text in (item.query, *item.texts):
            # the length keeps ("ab", "c") and ("a", "bc") apart; surrogates have no plain UTF-8
            digest.update(f"\0{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
        return int.from_bytes(digest.digest(), "little")


class Lead(ScoringCompressor):
    """Head truncation: the words of the context from its beginning, up to the budget."""

    name = "lead"
    needs_query = False

    def __init__(self, **choice: Unpack[Choice]) -> None:
        policy = replace(choice.get("policy") or Policy(), fill="stop")
        super().__init__(**(choice | {"policy": policy}))

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        with stage("tokenize"):
            return [_falling(context) for context in contexts]


def with_extracts(context: Context, extracts: Iterable[Extract]) -> Context:
    """The context with its extracts replaced in order; summaries and soft tokens stay where they are."""
    fresh = iter(extracts)
    pieces = tuple(next(fresh) if isinstance(piece, Extract) else piece for piece in context.pieces)
    return replace(context, pieces=pieces)


def falling_words(extract: Extract, first: float) -> list[Span]:
    """The kept words, scored `first`, `first` - 1, ...: truncation in reading order as a ranking; blobs come last."""
    words = visible_units(extract, split_words)
    silent = silent_units(extract.source.text, words)
    return [replace(word, score=first - place - _AFTER_ALL * silent[place]) for place, word in enumerate(words)]


def _falling(context: Context) -> Context:
    words, place = [], 0
    for extract in context.extracts:
        words.append(falling_words(extract, -float(place)))
        place += len(words[-1])
    return with_extracts(context, map(narrow, context.extracts, words))


def _sentences(context: Context, units: Sequence[Sequence[Span]]) -> Sentences:
    texts, titles = [], []
    for extract, spans in zip(context.extracts, units, strict=True):
        texts += readable_units(extract, spans)
        titles += [extract.source.title] * len(spans)
    return Sentences(context.query, tuple(texts), tuple(titles))


def _rescored(context: Context, units: Sequence[Sequence[Span]], scores: Scores) -> Context:
    remaining = iter(scores.tolist())
    return with_extracts(context, map(_rescored_extract, context.extracts, units, _taken(remaining, units)))


def _taken(scores: Iterator[float], units: Sequence[Sequence[Span]]) -> Iterator[list[float]]:
    return (list(islice(scores, len(spans))) for spans in units)


def _rescored_extract(extract: Extract, spans: Sequence[Span], scores: Sequence[float]) -> Extract:
    units = [replace(span, score=score) for span, score in zip(spans, scores, strict=True)]
    return narrow(extract, units, score=max(scores, default=None))
