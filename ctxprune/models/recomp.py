"""RECOMP's dual encoder: a question and a sentence each become a vector, and their dot product is the score.

Xu et al., "RECOMP: improving retrieval-augmented LMs with compression and selective augmentation", ICLR 2024, section
3.1. Exports run without torch; what else a source is follows from its files, never from its name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ctxprune.batches import batched
from ctxprune.errors import CheckpointError
from ctxprune.models.formats import PairFormat, pair_format, plain_tokenizer
from ctxprune.runtime.base import EncoderOutput, EncoderRuntime, TokenSequence
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.shared import model_file
from ctxprune.text.normal import readable

Similarity = Literal["cosine", "dot"]
Vectors = npt.NDArray[np.float32]

CONFIG = "recomp.json"
#: Texts tokenised and run at a time, so that memory does not grow with their number.
_BATCH_TEXTS = 256


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEncoder:
    """A text's vector is the mean over the last hidden states of its tokens, special ones included.

    runtime: gives "mean" (dimension,) or "last_hidden_state" (seq, dimension). layout: the special tokens around a
    text. max_tokens: of an input; a longer text is read piece by piece and averaged by tokens, so its end counts too.
    query_prefix, sentence_prefix: put before every text of that kind, as in training.
    """

    name: str
    runtime: EncoderRuntime
    tokenizer: Tokenizer
    layout: PairFormat
    max_tokens: int
    similarity: Similarity
    with_title: bool = True
    default_threshold: float | None = None
    query_prefix: str = ""
    sentence_prefix: str = ""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, self.query_prefix)

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, self.sentence_prefix)

    def _embed(self, texts: Sequence[str], prefix: str) -> Vectors:
        blocks = [self._means([prefix + readable(text) for text in some]) for some in batched(texts, _BATCH_TEXTS)]
        if not blocks:
            return np.zeros((0, 0), dtype=np.float32)
        means = np.concatenate(blocks)
        if self.similarity == "cosine":
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        vectors: Vectors = means.astype(np.float32)
        return vectors

    def _means(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(texts, dimension): over all tokens of all pieces of each text."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        pieces = [self._pieces(encoding.ids) for encoding in encodings]
        outputs = iter(self.runtime.forward([piece for some in pieces for piece in some]))
        return np.stack(
            [
                np.average([_mean(next(outputs)) for _ in some], axis=0, weights=[len(piece) for piece in some])
                for some in pieces
            ]
        )

    def _pieces(self, ids: list[int]) -> list[TokenSequence]:
        around = PairFormat(self.layout.prefix, (), self.layout.suffix)
        room = max(1, self.max_tokens - around.overhead)
        return [around.build((), ids[first : first + room]) for first in range(0, max(len(ids), 1), room)]


def _mean(output: EncoderOutput) -> npt.NDArray[np.float64]:
    if "mean" in output:
        return output["mean"].astype(np.float64)
    mean: npt.NDArray[np.float64] = output["last_hidden_state"].mean(axis=0, dtype=np.float64)
    return mean


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
    from ctxprune.models import sentence_transformer

    if sentence_transformer.has_modules(source, revision=revision):
        return sentence_transformer.SentenceTransformerPair(source, revision=revision, device=device)
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
    from ctxprune.models.bare_encoder import load_bare_encoder
    from ctxprune.runtime.torch_runtime import TorchRuntime

    loaded = load_bare_encoder(source, revision=revision)
    return MeanEncoder(
        name=str(source),
        runtime=TorchRuntime(loaded.module, device=device, dtype=dtype, max_batch_tokens=4096),
        tokenizer=loaded.tokenizer,
        layout=loaded.layout,
        max_tokens=loaded.max_tokens,
        similarity="dot",
    )
