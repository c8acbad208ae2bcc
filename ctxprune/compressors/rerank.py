"""Rerank, then truncate: whole documents by relevance, the last one cut at the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol, Unpack, runtime_checkable

from ctxprune.compressors.base import Choice, ScoringCompressor, narrow
from ctxprune.compressors.baselines import falling_words, with_extracts
from ctxprune.errors import InputError
from ctxprune.prompt import piece_text
from ctxprune.select import Policy
from ctxprune.timing import stage
from ctxprune.types import Context


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


class RerankTruncate(ScoringCompressor):
    """scorer: a DocumentScorer, a PairScorer, or "retriever" for the scores the documents came with.

    The prompt holds the most relevant document first, unless `policy` says otherwise.
    """

    name = "rerank-truncate"

    def __init__(
        self,
        scorer: DocumentScorer | PairScorer | Literal["retriever"],
        **choice: Unpack[Choice],
    ) -> None:
        policy = replace(choice.get("policy") or Policy(order="rank"), fill="stop")
        super().__init__(**(choice | {"policy": policy}))
        self.scorer = _document_scorer(scorer)

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        with stage("infer"):
            relevance = self.scorer.score_documents(contexts)
        with stage("tokenize"):
            return [_best_first(*pair) for pair in zip(contexts, relevance, strict=True)]


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


def _best_first(context: Context, relevance: Sequence[float]) -> Context:
    extracts = context.extracts
    if len(relevance) != len(extracts):
        raise InputError(
            f"the scorer gave {len(relevance)} scores for {len(extracts)} documents; it must give one each"
        )
    if any(math.isnan(score) for score in relevance):
        raise InputError(f"the scorer gave nan for document {[*map(math.isnan, relevance)].index(True)}")
    words, place = {}, 0
    for at in sorted(range(len(extracts)), key=lambda at: -relevance[at]):  # stable: ties stay in document order
        words[at] = falling_words(extracts[at], -float(place))
        place += len(words[at])
    fresh = (narrow(extract, words[at], score=float(relevance[at])) for at, extract in enumerate(extracts))
    return with_extracts(context, fresh)
