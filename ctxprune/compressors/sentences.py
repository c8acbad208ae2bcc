"""Training-free baselines that every claim is compared with: lead, random and BM25 sentences, and their frame."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Unpack, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.cache import key_of
from ctxprune.compressors.base import (
    Choice,
    ScoringCompressor,
    narrow,
    readable_units,
    relevance_of,
    visible_sentences,
    visible_units,
    with_extracts,
)
from ctxprune.errors import InputError
from ctxprune.plain import checked_whole
from ctxprune.prompt import piece_text
from ctxprune.runtime import sigmoid
from ctxprune.select import Policy
from ctxprune.text import split_words
from ctxprune.text.markup import silent_units
from ctxprune.text.words import bm25_scores
from ctxprune.timing import stage
from ctxprune.types import Context, Extract, Span

Scores = npt.NDArray[np.float64]
#: By how many words a blob is ranked behind its place, so that a truncation does not end at an image without room.
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
    """Sentences by the words they share with the query; see `ctxprune.text.words.bm25_scores`."""

    name = "bm25-sentences"

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        return [bm25_scores(item.query, item.texts, titles=item.titles, language=self.language) for item in batch]


class RandomSentences(SentenceCompressor):
    """Sentences in an order drawn from `seed`, the query and the texts: the same in any batch and after any call."""

    name = "random"
    needs_query = False

    def __init__(self, *, seed: int = 0, **choice: Unpack[Choice]) -> None:
        super().__init__(**choice)
        self.seed = seed

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        return [np.random.default_rng(self._seed_of(item)).random(len(item.texts)) for item in batch]

    def _seed_of(self, item: Sentences) -> int:
        return int.from_bytes(key_of(item.query, *item.texts, scope=str(self.seed).encode()), "little")


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
    remaining, fresh = iter(scores.tolist()), []
    for extract, spans in zip(context.extracts, units, strict=True):
        scored = [replace(span, score=next(remaining)) for span in spans]
        fresh.append(narrow(extract, scored, score=max((span.score for span in scored), default=None)))
    return with_extracts(context, fresh)


@runtime_checkable
class DocumentScorer(Protocol):
    """Judges the documents of a context together with its query."""

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        """For each context one relevance for each of its extracts, in order; higher is better."""
        ...


@runtime_checkable
class PairScorer(Protocol):
    """A cross-encoder: (query, passage) pairs in, one relevance each out; higher is better."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]: ...


class RetrieverScores:
    """The relevance that the retriever gave. Raises InputError for a document without a score."""

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        return [[_retriever_score(extract.source.score, extract.index) for extract in c.extracts] for c in contexts]


class PairDocumentScorer:
    """Asks a PairScorer about each document, its title and kept text as they stand in the prompt."""

    def __init__(self, scorer: PairScorer) -> None:
        self.scorer = scorer

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        pairs = [(context.query, piece_text(extract)) for context in contexts for extract in context.extracts]
        scores = list(self.scorer.score_pairs(pairs)) if pairs else []
        if len(scores) != len(pairs):
            raise InputError(f"the scorer gave {len(scores)} scores for {len(pairs)} pairs; it must give one each")
        remaining = iter(scores)
        return [[next(remaining) for _ in context.extracts] for context in contexts]


@dataclass(frozen=True, slots=True)
class KnownRelevance:
    """The relevance of documents, from a reranker's earlier scores of the same contexts: nothing is read twice."""

    scored: tuple[Context, ...]

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        """Raises InputError for contexts of other documents."""
        texts = [
            [[extract.source.text for extract in context.extracts] for context in batch]
            for batch in (contexts, self.scored)
        ]
        if texts[0] != texts[1]:
            raise InputError("the known relevance is of other documents; score these contexts first")
        return relevance_of(self.scored)


class RerankTruncate(ScoringCompressor):
    """scorer: a DocumentScorer, a PairScorer, or "retriever" for the scores the documents came with. top_n: so many of
    the most relevant documents, whole where no budget is given (None: as many as the budget holds).

    The prompt holds the most relevant document first, unless `policy` says otherwise. Raises InputError for a top_n
    below 1, and for `Policy(top_n=...)`, which would count words.
    """

    name = "rerank-truncate"

    def __init__(
        self,
        scorer: DocumentScorer | PairScorer | Literal["retriever"],
        *,
        top_n: int | None = None,
        **choice: Unpack[Choice],
    ) -> None:
        policy = replace(choice.get("policy") or Policy(order="rank"), fill="stop")
        super().__init__(**(choice | {"policy": policy}))
        self.scorer = _document_scorer(scorer)
        self.top_n = None if top_n is None else checked_whole("top_n", top_n, least=1)

    def settled(self, policy: Policy) -> Policy:
        if policy.top_n is not None:
            raise InputError(
                f"{self.name} cuts documents at words, so Policy(top_n={policy.top_n}) would count words; pass "
                f"top_n={policy.top_n} to load({self.name!r}, ...) for so many documents"
            )
        return super().settled(policy)

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        with stage("infer"):
            relevance = self.scorer.score_documents(contexts)
        with stage("tokenize"):
            return [_best_first(*pair, self.top_n) for pair in zip(contexts, relevance, strict=True)]

    def after(self, scored: Sequence[Context]) -> RerankTruncate:
        """A copy for the contexts that its scorer has read already, as the scorer's own `score` left them."""
        copied = copy.copy(self)
        copied.scorer = KnownRelevance(tuple(scored))
        return copied

    def _default(self) -> tuple[float | None, str | None]:
        return super()._default() if self.top_n is None else (None, None)

    def _reads(self) -> dict[str, str]:
        return {} if self.top_n is None else {"top_n": str(self.top_n)}


def _document_scorer(scorer: DocumentScorer | PairScorer | Literal["retriever"]) -> DocumentScorer:
    if isinstance(scorer, DocumentScorer):
        return scorer
    if isinstance(scorer, PairScorer):
        return PairDocumentScorer(scorer)
    if scorer == "retriever":
        return RetrieverScores()
    raise InputError(f"scorer must have score_documents or score_pairs, or be 'retriever', got {scorer!r:.80}")


def _retriever_score(score: float | None, index: int) -> float:
    if score is None:
        raise InputError(f"document {index} has no retriever score; set Document.score or pass another scorer=")
    return score


def _best_first(context: Context, relevance: Sequence[float], most: int | None) -> Context:
    """The words of the most relevant document first; documents after so many are removed."""
    extracts = context.extracts
    if len(relevance) != len(extracts):
        raise InputError(
            f"the scorer gave {len(relevance)} scores for {len(extracts)} documents; it must give one each"
        )
    if any(math.isnan(score) for score in relevance):
        raise InputError(f"the scorer gave nan for document {[*map(math.isnan, relevance)].index(True)}")
    ranked = sorted(range(len(extracts)), key=lambda at: -relevance[at])  # stable: ties stay in document order
    words, place = {}, 0
    for at in ranked:
        words[at] = falling_words(extracts[at], -float(place))
        place += len(words[at])
    fresh = [narrow(extract, words[at], score=float(relevance[at])) for at, extract in enumerate(extracts)]
    for at in ranked[most:] if most is not None else ():
        fresh[at] = replace(fresh[at], kept=(False,) * len(fresh[at].kept))
    return with_extracts(context, fresh)


@runtime_checkable
class QueryLimited(Protocol):
    """A PairScorer that can read only so much of a query, and says when."""

    def shortens(self, query: str) -> bool: ...


class DSLR(SentenceCompressor):
    """A sentence scores the sigmoid of its pair's logit; a document scores as its best sentence does.

    scorer: a PairScorer that gives logits and reads passages of any length to their end. The default threshold, 0.5, is
    a logit of zero.
    """

    name = "dslr"
    default_threshold = 0.5

    def __init__(self, scorer: PairScorer, **choice: Unpack[Choice]) -> None:
        super().__init__(**choice)
        self.scorer = scorer

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        **choice: Unpack[Choice],
    ) -> DSLR:
        """Use any Hugging Face cross-encoder with one or two labels, from a folder or a hub id.

        device, dtype: by default the best that is there. Raises CheckpointError when it cannot be loaded.
        """
        from ctxprune.models.encoders import CrossEncoderScorer  # imports torch, which other scorers do not need

        scorer = CrossEncoderScorer.from_pretrained(source, revision=revision, device=device, dtype=dtype)
        return cls(scorer, **choice)

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return [self._noted(context) for context in super().score(contexts)]

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        """Probabilities of relevance. InputError when the scorer miscounts or gives nan."""
        pairs = [(item.query, text) for item in batch for text in item.texts]
        logits = np.asarray(self.scorer.score_pairs(pairs) if pairs else [], dtype=np.float64)
        if logits.shape != (len(pairs),):
            raise InputError(
                f"the scorer gave scores of shape {logits.shape} for {len(pairs)} pairs; it must give one each"
            )
        if np.isnan(logits).any():
            raise InputError(f"the scorer gave nan for the sentence {pairs[int(np.isnan(logits).argmax())][1]!r:.80}")
        probabilities = sigmoid(logits)
        ends = np.cumsum([len(item.texts) for item in batch], dtype=np.int64)
        return [probabilities[end - len(item.texts) : end] for item, end in zip(batch, ends, strict=True)]

    def _noted(self, context: Context) -> Context:
        if isinstance(self.scorer, QueryLimited) and self.scorer.shortens(context.query):
            return context.warn(
                "the query is longer than the model can read beside a passage; only its beginning was used"
            )
        return context
