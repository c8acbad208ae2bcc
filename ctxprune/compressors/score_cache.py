"""Word scores as a cache holds them: one byte a word.

With a cache every score is rounded to that byte, the fresh ones too, so that a decision never depends on whether the
document was known.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def to_bytes(scores: Array) -> bytes:
    """scores: (n,) in [0, 1]. Returns n bytes, 255 = 1.0."""
    return np.rint(scores * 255.0).astype(np.uint8).tobytes()


def from_bytes(stored: bytes) -> Array:
    """(n,) in [0, 1], off by at most 1/510 from what `to_bytes` was given."""
    return np.frombuffer(stored, np.uint8).astype(np.float64) / 255.0
