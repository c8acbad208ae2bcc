"""A sentence-transformers model as RECOMP's dual encoder, pooled, normalised and compared as its own files say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctxprune.errors import CheckpointError
from ctxprune.models.recomp import Similarity, Vectors
from ctxprune.runtime.quiet import no_bars_off_terminal
from ctxprune.text.normal import readable

#: The file that tells a sentence-transformers model from a bare encoder.
MODULES = "modules.json"
_BATCH_TEXTS = 32


class SentenceTransformerPair:
    """Question and sentence go through the model's own prompts for queries and documents, where it has them.

    Texts beyond the model's window are cut by the model. Raises CheckpointError when it cannot be loaded, is no dense
    encoder, or compares vectors by a distance.
    """

    with_title = True
    default_threshold: float | None = None

    def __init__(self, source: str | Path, *, revision: str | None = None, device: str | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = str(source)
        try:
            with no_bars_off_terminal():
                self._model: Any = SentenceTransformer(
                    self.name, revision=revision, device=device, trust_remote_code=False
                )
        except Exception as error:  # missing file, no network, foreign layout: each its own type in another library
            raise CheckpointError(f"cannot load the sentence-transformers model {self.name!r}: {error}") from error
        self.similarity = _similarity(self._model.similarity_fn_name, self.name)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embedded(self._model.encode_query, texts)

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        return self._embedded(self._model.encode_document, texts)

    def _embedded(self, encode: Any, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        vectors = encode(
            [*map(readable, texts)],
            batch_size=_BATCH_TEXTS,
            show_progress_bar=False,
            normalize_embeddings=self.similarity == "cosine",
        )
        return np.asarray(vectors, dtype=np.float32)


def _similarity(name: str, source: str) -> Similarity:
    if name == "cosine":
        return "cosine"
    if name == "dot":
        return "dot"
    raise CheckpointError(f"{source} compares vectors by {name}; supported are cosine and dot")


def has_modules(source: str | Path, *, revision: str | None = None) -> bool:
    """Whether a folder or hub id holds a sentence-transformers model; False for what is not there or not reachable."""
    if Path(source).expanduser().is_dir():
        return (Path(source).expanduser() / MODULES).is_file()
    if isinstance(source, Path) or source.startswith((".", "/", "~")):
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(source, MODULES, revision=revision)
    except (HfHubHTTPError, OSError, ValueError):  # absent, no network, no such id: the loader says which
        return False
    return True
