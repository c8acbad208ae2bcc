"""RECOMP's dual encoder: a question and a sentence each become a vector, and their dot product is the score.

Xu et al., "RECOMP: improving retrieval-augmented LMs with compression and selective augmentation", ICLR 2024, section
3.1. Exports run without torch; what else a source is follows from its files, never from its name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, get_args

from ctxprune.errors import CheckpointError
from ctxprune.models.formats import pair_format, plain_tokenizer
from ctxprune.models.sentence_encoders import MeanEncoder, Similarity, Vectors
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.shared import model_file

CONFIG = "recomp.json"


class DualEncoder(Protocol):
    """Vectors whose dot product is the score; a text's vector does not depend on its neighbours.

    similarity: "cosine" where all vectors have length one, else "dot", which has no bounds. with_title: whether
    sentences were given after their document's title in training. default_threshold: a cosine, None where nobody chose
    one.
    """

    @property
    def name(self) -> str: ...

    @property
    def similarity(self) -> Similarity: ...

    @property
    def with_title(self) -> bool: ...

    @property
    def default_threshold(self) -> float | None: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        ...

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        ...


def load_dual_encoder(
    source: str | Path, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> DualEncoder:
    """The encoder in a folder or under a hub id.

    A folder with recomp.json is an export, run on the CPU. modules.json makes it a sentence-transformers model, with
    the pooling, normalisation, prompts and similarity of its own files. Anything else must be a bare encoder, as
    RECOMP published them: mean pooling, dot product. revision, device, dtype: for what runs on torch; a
    sentence-transformers model keeps its own dtype.
    Raises CheckpointError for what cannot be loaded or is another kind of model.
    """
    if (Path(source) / CONFIG).is_file():
        return load_export(Path(source))
    # both import torch, which exports do not need
    from ctxprune.models import sentence_encoders

    if sentence_encoders.has_modules(source, revision=revision):
        return sentence_encoders.SentenceTransformerPair(source, revision=revision, device=device)
    return _load_checkpoint(source, revision=revision, device=device, dtype=dtype)


def load_export(folder: Path, *, threads: int | None = None) -> MeanEncoder:
    """A folder with recomp.json, model.onnx (output "last_hidden_state") and tokenizer.json.

    Raises CheckpointError when one of them is missing or damaged, or asks for another pooling or similarity.
    """
    tokenizer = plain_tokenizer(model_file(folder, "tokenizer.json"))
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        options = _options(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} is missing or damaged ({error!r}); export again") from error
    return MeanEncoder(
        runtime=OnnxRuntime(folder / "model.onnx", threads=threads),
        tokenizer=tokenizer,
        layout=pair_format(tokenizer, type_ids=False, single_separator=True),
        **{"name": folder.name, **options},
    )


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of `MeanEncoder` that the file sets. Raises ValueError or KeyError for what is wrong or missing."""
    if settings["pooling"] != "mean":
        raise ValueError(f"pooling must be 'mean', got {settings['pooling']!r}")
    if settings["similarity"] not in get_args(Similarity):
        raise ValueError(f"similarity must be one of {', '.join(get_args(Similarity))}, got {settings['similarity']!r}")
    kinds = {"name": str, "query_prefix": str, "sentence_prefix": str, "with_title": bool}
    options = {field: kind(settings[field]) for field, kind in kinds.items() if field in settings}
    if settings.get("default_threshold") is not None:
        options["default_threshold"] = float(settings["default_threshold"])
    if (max_tokens := int(settings["max_tokens"])) < 3:
        raise ValueError(f"max_tokens must be at least 3, got {max_tokens}")
    return {**options, "similarity": settings["similarity"], "max_tokens": max_tokens}


def _load_checkpoint(source: str | Path, *, revision: str | None, device: str | None, dtype: str | None) -> MeanEncoder:
    from ctxprune.models.encoders import load_bare_encoder
    from ctxprune.runtime.torch import TorchRuntime

    loaded = load_bare_encoder(source, revision=revision)
    return MeanEncoder(
        name=str(source),
        runtime=TorchRuntime(loaded.module, device=device, dtype=dtype, max_batch_tokens=4096),
        tokenizer=loaded.tokenizer,
        layout=loaded.layout,
        max_tokens=loaded.max_tokens,
        similarity="dot",
    )
