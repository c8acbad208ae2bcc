"""Sentences by the cosine between their embedding and the query's: the dense training-free baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from ctxprune.compressors.base import Choice
from ctxprune.compressors.baselines import Scores, SentenceCompressor, Sentences
from ctxprune.embedders import Embedder, load_embedder


class EmbeddingSentences(SentenceCompressor):
    """embedder: an `Embedder`, "bundled", or a sentence-transformers id or path.

    with_title: embed a sentence after its document's title, for sentences that say only "he" or "the company".
    """

    name = "embedding-sentences"

    def __init__(
        self,
        embedder: Embedder | str = "bundled",
        *,
        with_title: bool = False,
        **choice: Unpack[Choice],
    ) -> None:
        super().__init__(**choice)
        self.embedder = load_embedder(embedder) if isinstance(embedder, str) else embedder
        self.with_title = with_title

    def sentence_scores(self, batch: Sequence[Sentences]) -> Sequence[Scores]:
        texts = [self._texts(item) for item in batch]
        distinct = list(dict.fromkeys(text for item in texts for text in item))
        vectors = self.embedder.embed(distinct) if distinct else np.zeros((0, self.embedder.dimension), np.float32)
        row = {text: place for place, text in enumerate(distinct)}
        scores = []
        for query, *sentences in texts:
            cosines = vectors[[row[text] for text in sentences]] @ vectors[row[query]]
            scores.append(cosines.astype(np.float64))
        return scores

    def _texts(self, item: Sentences) -> list[str]:
        """The query, then its sentences, as the embedder reads them."""
        if not self.with_title:
            return [item.query, *item.texts]
        pairs = zip(item.titles, item.texts, strict=True)
        return [item.query, *(f"{title}\n{text}" if title else text for title, text in pairs)]
