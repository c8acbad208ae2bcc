"""The one interface behind which an encoder runs, on ONNX Runtime or in torch: token ids in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


def sigmoid(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """1 / (1 + exp(-x)) without overflow."""
    result: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return result


IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One unpadded model input, special tokens included. ids, type_ids: (n,) int64."""

    ids: IntArray
    type_ids: IntArray

    def __len__(self) -> int:
        return len(self.ids)


#: Outputs of one sequence by name, e.g. {"rank_logits": (labels,), "token_logits": (n, 2)}; no padding left in them.
EncoderOutput = dict[str, FloatArray]


class EncoderRuntime(Protocol):
    """Runs sequences of any lengths in one call; safe to call from several threads at once.

    An output depends on its own sequence alone: neighbours and padding move it by less than 1e-3.
    """

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def forward(self, sequences: Sequence[TokenSequence]) -> list[EncoderOutput]:
        """The outputs of each sequence, in the order given."""
        ...
