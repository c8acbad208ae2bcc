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
    """Exported against original outputs. crossing: share of passage tokens whose keep probability lies on
    different sides of `threshold`; None for an encoder that has neither `token_logits` nor `keep` log-odds."""

    outputs: dict[str, OutputParity]
    crossing: float | None
    threshold: float
    sequences: int
    tokens: int
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    original: Unpadded,
    exported: EncoderRuntime,
    sequences: Sequence[TokenSequence],
    *,
    file_bytes: int,
    threshold: float = THRESHOLD,
) -> ParityReport:
    """sequences: at least one, of the kind that the model will see; those used to calibrate would flatter it."""
    expected = [{name: value.numpy() for name, value in original.run(sequence).items()} for sequence in sequences]
    actual = exported.forward(sequences)
    return ParityReport(
        outputs={name: compare(_joined(expected, name), _joined(actual, name)) for name in original.output_names},
        crossing=_crossing(expected, actual, sequences, threshold),
        threshold=threshold,
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


def keep_probability(output: EncoderOutput) -> Floats | None:
    """From `keep` log-odds (seq,) or from `token_logits` (seq, 2), remove and keep. Returns (seq,) in [0, 1]; None when
    the encoder gives neither."""
    if "keep" in output:
        difference = output["keep"]
    elif "token_logits" in output:
        difference = output["token_logits"][:, 1] - output["token_logits"][:, 0]
    else:
        return None
    probability: Floats = 1 / (1 + np.exp(-difference.astype(np.float64)))
    return probability


def _crossing(
    expected: Sequence[EncoderOutput],
    actual: Sequence[EncoderOutput],
    sequences: Sequence[TokenSequence],
    threshold: float,
) -> float | None:
    crossed = []
    for left, right, sequence in zip(expected, actual, sequences, strict=True):
        before, after = keep_probability(left), keep_probability(right)
        if before is None or after is None:
            return None
        passage = sequence.type_ids == sequence.type_ids.max()
        crossed.append(((before >= threshold) != (after >= threshold))[passage])
    return float(np.concatenate(crossed).mean())


def _joined(outputs: Sequence[EncoderOutput], name: str) -> Floats:
    return np.concatenate([output[name].reshape(-1) for output in outputs])
