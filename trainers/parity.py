"""How far an exported encoder is from the module it was made of: every output, on given sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctxprune.runtime.base import EncoderOutput, EncoderRuntime, TokenSequence
from ctxprune.trainers.rewrite import Unpadded

Floats = npt.NDArray[np.floating[Any]]
#: Keep probability at which a token is kept by default; how many tokens change sides there is what users would see.
THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class OutputParity:
    """correlation: Pearson's, over all values (1.0 when both are constant). max_abs_difference: the largest one."""

    correlation: float
    max_abs_difference: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Exported against original outputs. crossing: share of passage tokens whose keep probability (softmax of
    `token_logits`) lies on different sides of `threshold`; None for an encoder without token logits."""

    outputs: dict[str, OutputParity]
    crossing: float | None
    threshold: float
    sequences: int
    tokens: int
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    original: Unpadded, exported: EncoderRuntime, sequences: Sequence[TokenSequence], *, file_bytes: int
) -> ParityReport:
    """sequences: at least one, of the kind that the model will see; those used to calibrate would flatter it."""
    expected = [{name: value.numpy() for name, value in original.run(sequence).items()} for sequence in sequences]
    actual = exported.forward(sequences)
    return ParityReport(
        outputs={name: compare(_joined(expected, name), _joined(actual, name)) for name in original.output_names},
        crossing=_crossing(expected, actual, sequences) if "token_logits" in original.output_names else None,
        threshold=THRESHOLD,
        sequences=len(sequences),
        tokens=sum(map(len, sequences)),
        file_bytes=file_bytes,
    )


def compare(expected: Floats, actual: Floats) -> OutputParity:
    """Two arrays of the same shape."""
    if np.ptp(expected) == 0 or np.ptp(actual) == 0:
        correlation = float(np.allclose(expected, actual))
    else:
        correlation = np.corrcoef(expected.ravel(), actual.ravel())[0, 1]
    return OutputParity(float(correlation), float(np.abs(expected - actual).max()))


def keep_probability(token_logits: Floats) -> Floats:
    """token_logits: (seq, 2), remove and keep. Returns (seq,) in [0, 1]."""
    difference = token_logits[:, 1] - token_logits[:, 0]
    probability: Floats = 1 / (1 + np.exp(-difference.astype(np.float64)))
    return probability


def _crossing(
    expected: Sequence[EncoderOutput], actual: Sequence[EncoderOutput], sequences: Sequence[TokenSequence]
) -> float:
    crossed = [
        (keep_probability(left["token_logits"]) >= THRESHOLD) != (keep_probability(right["token_logits"]) >= THRESHOLD)
        for left, right in zip(expected, actual, strict=True)
    ]
    passage = [sequence.type_ids == sequence.type_ids.max() for sequence in sequences]
    return float(np.concatenate(crossed)[np.concatenate(passage)].mean())


def _joined(outputs: Sequence[EncoderOutput], name: str) -> Floats:
    return np.concatenate([output[name].reshape(-1) for output in outputs])
