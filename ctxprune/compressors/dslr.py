"""DSLR: keep the sentences that a reranker, asked about each one alone, finds relevant; nothing is trained.

Hwang et al., "DSLR: Document refinement with sentence-level re-ranking and reconstruction to enhance
retrieval-augmented generation", 2024: split, score every (query, sentence) pair, keep what reaches a threshold, and put
it together in the original order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Unpack, runtime_checkable

import numpy as np

from ctxprune.compressors.base import Choice
from ctxprune.compressors.baselines import Scores, SentenceCompressor, Sentences
from ctxprune.compressors.rerank import PairScorer
from ctxprune.errors import InputError
from ctxprune.types import Context


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
        from ctxprune.models.cross_encoder import CrossEncoderScorer  # imports torch, which other scorers do not need

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
        probabilities = 0.5 * (1.0 + np.tanh(logits / 2.0))  # the sigmoid, without overflow
        ends = np.cumsum([len(item.texts) for item in batch], dtype=np.int64)
        return [probabilities[end - len(item.texts) : end] for item, end in zip(batch, ends, strict=True)]

    def _noted(self, context: Context) -> Context:
        if isinstance(self.scorer, QueryLimited) and self.scorer.shortens(context.query):
            return context.warn(
                "the query is longer than the model can read beside a passage; only its beginning was used"
            )
        return context
