"""Sentences by the cosine between their embedding and the query's: the dense training-free baseline."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Unpack

from ctxprune.compressors.base import Choice
from ctxprune.compressors.document_cache import DocumentCache
from ctxprune.compressors.recomp import EmbedderPair, RecompExtractive
from ctxprune.embedders import Embedder, load_embedder


class EmbeddingSentences(RecompExtractive):
    """`RecompExtractive` over an embedder that nobody trained to choose sentences, so its cosines only rank.

    embedder: an `Embedder`, "bundled", or a sentence-transformers id or path. with_title: embed a sentence after its
    document's title. cache: see `RecompExtractive`.
    """

    name = "embedding-sentences"
    default_cosine: ClassVar[float | None] = None

    def __init__(
        self,
        embedder: Embedder | str = "bundled",
        *,
        with_title: bool = False,
        cache: DocumentCache | str | Path | None = None,
        **choice: Unpack[Choice],
    ) -> None:
        embedder = load_embedder(embedder) if isinstance(embedder, str) else embedder
        super().__init__(EmbedderPair(embedder), with_title=with_title, cache=cache, **choice)
