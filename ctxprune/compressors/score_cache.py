"""Word scores by document, for models that do not look at the question: scored once, chosen from many times.

A score is stored as one byte a word. With a cache every score is rounded to that byte, the fresh ones too, so that a
decision never depends on whether the document was known.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from ctxprune.errors import InputError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

#: Keys asked for in one statement; SQLite's oldest limit on variables is 999.
_SQL_VARIABLES = 500


class ScoreCache(Protocol):
    """Bytes by key. Safe to call from several threads."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is stored under each key, in order; None for what is not."""
        ...

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store or replace."""
        ...


def cache_key(model: str, text: str) -> bytes:
    """16 bytes of the model's fingerprint and the document's text; titles, ids and metadata do not count."""
    digest = hashlib.blake2b(f"{len(model)}\0{model}\0".encode(), digest_size=16)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()


def to_bytes(scores: Array) -> bytes:
    """scores: (n,) in [0, 1]. Returns n bytes, 255 = 1.0."""
    return np.rint(scores * 255.0).astype(np.uint8).tobytes()


def from_bytes(stored: bytes) -> Array:
    """(n,) in [0, 1], off by at most 1/510 from what `to_bytes` was given."""
    return np.frombuffer(stored, np.uint8).astype(np.float64) / 255.0


class MemoryScoreCache:
    """Keeps the scores of the documents that were used last.

    max_words: so many bytes of scores are kept at most; the document that was not used for longest goes first.
    """

    def __init__(self, *, max_words: int = 50_000_000) -> None:
        if max_words < 1:
            raise InputError(f"max_words must be at least 1, got {max_words}; leave the cache out to store nothing")
        self.max_words = max_words
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._words = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, entry in zip(keys, found, strict=True):
                if entry is not None:
                    self._entries.move_to_end(key)
            return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        with self._lock:
            for key, entry in entries.items():
                self._words += len(entry) - len(self._entries.pop(key, b""))
                self._entries[key] = entry
            while self._words > self.max_words:
                self._words -= len(self._entries.popitem(last=False)[1])


class SqliteScoreCache:
    """Keeps the scores in a file that several processes may share; nothing is ever thrown out.

    Raises InputError when the file cannot be opened or is no such cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(self.path, check_same_thread=False, timeout=30.0)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS word_scores (key BLOB PRIMARY KEY, scores BLOB)")
            self._connection.execute("SELECT key, scores FROM word_scores LIMIT 1")
        except sqlite3.Error as error:
            raise InputError(f"{self.path} cannot be used as a score cache ({error}); give another path") from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM word_scores").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: dict[bytes, bytes] = {}
        with self._lock:
            for begin in range(0, len(keys), _SQL_VARIABLES):
                some = list(keys[begin : begin + _SQL_VARIABLES])
                marks = ",".join("?" * len(some))
                found.update(
                    self._connection.execute(f"SELECT key, scores FROM word_scores WHERE key IN ({marks})", some)
                )
        return [found.get(key) for key in keys]

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        with self._lock, self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO word_scores VALUES (?, ?)", list(entries.items()))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
