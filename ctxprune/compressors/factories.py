"""Build the compressors that need a model: which model a name stands for is decided here."""

from __future__ import annotations

from typing import Any

from ctxprune.compressors.dslr import DSLR
from ctxprune.compressors.provence import BUNDLED, Provence, load_model
from ctxprune.compressors.rerank import RerankTruncate


def provence(
    *,
    model: str = BUNDLED,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Provence:
    """model: the bundled one by name, an exported folder, or a checkpoint's folder or hub id."""
    return Provence(load_model(model, revision=revision, device=device, dtype=dtype), **options)


def dslr(*, model: str = BUNDLED, **options: Any) -> DSLR:
    """model: the rank head of the bundled pruner, or any cross-encoder's folder or hub id."""
    if model == BUNDLED:
        return DSLR(load_model(BUNDLED), **options)
    return DSLR.from_pretrained(model, **options)


def rerank_truncate(*, scorer: str = BUNDLED, **options: Any) -> RerankTruncate:
    """scorer: "retriever" for the documents' own scores, or the pruner (see `provence`) whose relevance to use."""
    if scorer == "retriever":
        return RerankTruncate("retriever", **options)
    return RerankTruncate(provence(model=scorer), **options)
