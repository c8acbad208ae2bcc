"""Let the pruner and the reranking baseline share one reading of the documents: the model is the same."""

from __future__ import annotations

from collections.abc import Sequence

from ctxprune.compressors.provence import Provence
from ctxprune.compressors.rerank import RerankTruncate
from ctxprune.types import Compressor, Context


class OnePass(Provence):
    """Remembers its last batch, so that asking about the very same contexts again costs nothing."""

    _contexts: Sequence[Context] | None = None
    _scores: tuple[Context, ...] = ()

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        if contexts is not self._contexts:
            self._scores = tuple(super().score(contexts))
            self._contexts = contexts
        return list(self._scores)


def share_readings(compressors: dict[str, Compressor]) -> dict[str, Compressor]:
    """The same compressors, with "rerank-truncate" taking its relevance from the "provence" beside it, if there is one.

    The seconds of "rerank-truncate" then no longer hold the reading.
    """
    pruner = compressors.get("provence")
    if not isinstance(pruner, Provence) or "rerank-truncate" not in compressors:
        return compressors
    shared = OnePass(pruner.model, rounding=pruner.rounding)
    return {**compressors, "provence": shared, "rerank-truncate": RerankTruncate(shared)}
