"""The evaluator that sentence-transformers' trainer calls: where a question's gold sentences rank among all its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from ctxprune.trainers.recomp_ranking import Ranked, measured, rank_by_vectors


class SentenceRanking(SentenceEvaluator):
    """Ranks by cosine and returns `recomp_ranking.measured`; the model with the best mrr is kept."""

    primary = "mrr"

    def __init__(self, tasks: Sequence[Ranked]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tasks = tasks
        self.primary_metric = self.primary
        self.greater_is_better = True

    @property
    def description(self) -> str:
        return "sentence ranking"

    def __call__(  # type: ignore[override]  # the trainer of a SentenceTransformer passes one
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        def embed(texts: Sequence[str]) -> Any:
            vectors = model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(vectors, dtype=np.float32)

        return measured(self.tasks, rank_by_vectors(self.tasks, embed, embed))
