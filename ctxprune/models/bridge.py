"""The xRAG bridge (Cheng et al., NeurIPS 2024, section 3): a retriever's vector of a text becomes one input embedding.

Only the projector is trained; the language model and the retriever stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctxprune.errors import InputError

Vectors: TypeAlias = npt.NDArray[np.float32]

#: How the paper's second stage asks, in the placeholders of `ctxprune.prompt`.
DEFAULT_TEMPLATE = "Refer to the background document: {context}\n\n{question}"
#: How far a vector's length may be from one where the bridge was trained on vectors of length one.
_LENGTH_TOLERANCE = 0.02


class Projector(nn.Module):
    """Linear, GELU, Linear ("mlp2x_gelu"), in float32 whatever the language model computes in.

    scale: of the input; the square root of `d_retriever` gives vectors of length one the unit variance that the first
    layer's initial weights are made for. output_scale: of the output, so that it gets the length of the model's token
    embeddings while the weights, and with them the learning rate, keep their usual size. 1.0 leaves a published
    projector as it is.
    """

    def __init__(self, d_retriever: int, d_model: int, *, scale: float = 1.0, output_scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.output_scale = scale, output_scale
        self.projector = nn.Sequential(
            nn.Linear(d_retriever, d_model, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(d_model, d_model, dtype=torch.float32),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (n, d_retriever) float. Returns (n, d_model) float32."""
        with torch.autocast(vectors.device.type, enabled=False):
            projected: Tensor = self.projector(vectors.float() * self.scale)
        return projected * self.output_scale

    @torch.no_grad()
    def match_length(self, vectors: Tensor, length: float) -> None:
        """Set `output_scale` so that the projections of these vectors, (n, d_retriever), have `length` as their median
        Euclidean length."""
        self.output_scale *= length / float(self(vectors).norm(dim=-1).median())


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What a bridge was trained for, and what has to be the same when it is used.

    generator: name of the language model, whose embeddings have `d_model` dimensions. encoder: name of the embedder,
    whose vectors have `d_retriever`. shard_tokens: a vector stands for at most so many tokens of text. normalised:
    whether vectors have length one. pooling: how the encoder makes a vector of its tokens ("mean", "last", "cls").
    template: the prompt it was trained with, holding {context} (the soft tokens) and {question}. scale, output_scale:
    see `Projector`.
    """

    generator: str
    encoder: str
    d_retriever: int
    d_model: int
    shard_tokens: int = 180
    normalised: bool = True
    pooling: str = "mean"
    template: str = DEFAULT_TEMPLATE
    scale: float = 1.0
    output_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("d_retriever", "d_model", "shard_tokens"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if missing := [name for name in ("{context}", "{question}") if name not in self.template]:
            raise InputError(f"the bridge's template needs {' and '.join(missing)}, got {self.template!r:.80}")


class Bridge:
    """A trained projector with its config. constant: (d_model,) the soft token trained beside it that says nothing of
    any document, a control for measurements; None when there is none."""

    def __init__(self, projector: Projector, config: BridgeConfig, *, constant: Vectors | None = None) -> None:
        self.projector = projector.eval().cpu()
        self.config = config
        self.constant = constant

    def project(self, vectors: npt.ArrayLike) -> Vectors:
        """vectors: (n, d_retriever). Returns the soft tokens, (n, d_model) float32.

        Raises InputError for vectors of another width, nan or infinity, and for a length other than one where the
        bridge was trained on vectors of length one.
        """
        rows = torch.from_numpy(np.array(self._checked(np.asarray(vectors, dtype=np.float32))))
        with torch.inference_mode():
            found: Vectors = self.projector(rows).numpy()
        return found

    def _checked(self, vectors: Vectors) -> Vectors:
        width = self.config.d_retriever
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InputError(
                f"vectors must have the shape (n, {width}), got {vectors.shape}; embed the documents with "
                f"{self.config.encoder!r}, which the bridge was trained on"
            )
        if bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            raise InputError(f"vector {bad[0]} of {len(vectors)} holds nan or infinity; embed its text again")
        lengths = np.linalg.norm(vectors, axis=1)
        if self.config.normalised and (odd := np.flatnonzero(abs(lengths - 1) > _LENGTH_TOLERANCE).tolist()):
            raise InputError(
                f"vector {odd[0]} of {len(vectors)} has the length {lengths[odd[0]]:.3g}, the bridge was trained on "
                "vectors of length one; divide each by its length"
            )
        return vectors
