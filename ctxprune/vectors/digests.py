"""Texts by the hash of their content: 128 bits each, found by binary search."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def digest(text: str) -> bytes:
    """16 bytes; lone surrogates count as what they are."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digests(texts: Sequence[str]) -> Digests:
    """(n, 2), the halves of each text's hash."""
    return np.frombuffer(b"".join(map(digest, texts)), "<u8").reshape(len(texts), 2)


class DigestTable:
    """Which place holds a digest. stored: (n, 2); of equal ones the first is found."""

    def __init__(self, stored: Digests) -> None:
        self._order = np.argsort(stored[:, 0], kind="stable")
        self._sorted = np.asarray(stored[self._order])

    def find(self, wanted: Digests) -> Places:
        """(m,) places, -1 where the digest is not stored. wanted: (m, 2)."""
        places = np.full(len(wanted), -1, dtype=np.int64)
        spots = np.searchsorted(self._sorted[:, 0], wanted[:, 0])
        left = np.arange(len(wanted))
        while len(left):  # a second round only where two digests share their first half
            left = left[spots[left] < len(self._sorted)]
            left = left[self._sorted[spots[left], 0] == wanted[left, 0]]
            same = self._sorted[spots[left], 1] == wanted[left, 1]
            places[left[same]] = self._order[spots[left[same]]]
            left = left[~same]
            spots[left] += 1
        return places
