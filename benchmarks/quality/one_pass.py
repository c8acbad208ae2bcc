"""Read each batch once: scores that are already there serve every choice, and the reranker beside the pruner."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.provence.compressor import Provence
from ctxprune.compressors.sentences import RerankTruncate
from ctxprune.types import Compressor, Context


def choosing_from(compressor: ScoringCompressor, scored: Sequence[Context]) -> ScoringCompressor:
    """A copy of the compressor whose scores are `scored`, so that its own `compress` chooses without another reading.

    Titles are left out, so that every compressor spends its words on passage text alone.
    """
    copied = copy.copy(compressor)
    copied.policy = replace(compressor.policy, keep_title=False)
    vars(copied)["score"] = lambda contexts: list(scored)
    return copied


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
    shared = copy.copy(pruner)
    shared.__class__ = OnePass
    return {**compressors, "provence": shared, "rerank-truncate": RerankTruncate(shared)}
