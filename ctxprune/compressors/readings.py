"""Remember what a model computed for a text, as bytes under a key of all that it read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from ctxprune.cache import BoundedCache
from ctxprune.errors import InputError
from ctxprune.files import CopiedLock
from ctxprune.runtime import EncoderOutput, EncoderRuntime, TokenSequence

if TYPE_CHECKING:
    import sqlite3

#: Keys asked for in one statement; SQLite's oldest limit on variables is 999.
_SQL_VARIABLES = 500


#: Bytes of a digest over key and content that go before the content in a file; the key makes it its own.
_DIGEST: Final = 12


class DocumentCache(Protocol):
    """Bytes by key. Safe to call from several threads."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is stored under each key, in order; None where there is nothing."""
        ...

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store or replace."""
        ...


def open_cache(cache: DocumentCache | str | Path | None) -> DocumentCache | None:
    """ "memory", the path of an SQLite file, or a cache as it is. Raises InputError for anything else."""
    if isinstance(cache, str | Path):
        return MemoryCache() if cache == "memory" else SqliteCache(Path(cache).expanduser())
    if cache is not None and not (hasattr(cache, "get") and hasattr(cache, "put")):
        raise InputError(f'cache must be "memory", a file or have get and put, got {type(cache).__name__}')
    return cache


def cache_key(model: str, text: str) -> bytes:
    """16 bytes of the model's fingerprint and what it reads; ids and metadata do not count."""
    digest = hashlib.blake2b(f"{len(model)}\0{model}\0".encode(), digest_size=16)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()


class MemoryCache:
    """Keeps the most recently used entries in memory.

    max_bytes: limit of the contents, keys not counted; the entry unused for longest is thrown out first.
    """

    def __init__(self, *, max_bytes: int = 50_000_000) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes must be at least 1, got {max_bytes}; leave the cache out to store nothing")
        self.max_bytes = max_bytes
        self._kept: BoundedCache[bytes, bytes] = BoundedCache(max_bytes, weigh=len)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts empty: what is remembered can be computed again and would only weigh a pickle down."""
        return _fresh, (type(self), self.max_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._kept.get(key) for key in keys]

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        for key, entry in entries.items():
            self._kept.put(key, entry)


def _digest(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST, key=key[:64]).digest()


def _checked(key: bytes, stored: bytes | None) -> bytes | None:
    """The content, None where there is none or it is not what was put under this key."""
    if not isinstance(stored, bytes) or len(stored) < _DIGEST or stored[:_DIGEST] != _digest(key, stored[_DIGEST:]):
        return None
    return stored[_DIGEST:]


def _fresh(kind: type[MemoryCache], max_bytes: int) -> MemoryCache:
    return kind(max_bytes=max_bytes)


class SqliteCache:
    """Keeps everything in a file that several processes may share; nothing is ever thrown out.

    Every entry carries a digest: one that was damaged, or stands under another's key, counts as not there and is
    replaced by the next `put`, as are those of versions that wrote none. Raises InputError, with the next step, when
    the file cannot be opened, read or written, or is no such cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._lock = CopiedLock()
        self._opened = self._open()
        self._process = os.getpid()

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # with it and zipfile, importing the package would take 10 ms more

        try:
            connection = sqlite3.connect(self.path, check_same_thread=False, timeout=30.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS documents (key BLOB PRIMARY KEY, content BLOB)")
            connection.execute("SELECT key, content FROM documents LIMIT 1")
        except sqlite3.Error as error:
            raise InputError(f"{self.path} cannot be used as a cache ({error}); give another path") from error
        return connection

    @property
    def _connection(self) -> sqlite3.Connection:
        """This process's own, since SQLite's must not be carried over a fork, nor be closed on the other side."""
        if self._process != os.getpid():
            _inherited.append(self._opened)
            self._opened, self._process = self._open(), os.getpid()
        return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy opens the file again; several processes may share it."""
        return type(self), (str(self.path),)

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM documents").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: dict[bytes, bytes] = {}
        with self._lock:
            for begin in range(0, len(keys), _SQL_VARIABLES):
                some = list(keys[begin : begin + _SQL_VARIABLES])
                marks = ",".join("?" * len(some))
                query = f"SELECT key, content FROM documents WHERE key IN ({marks})"
                with self._told("read"):
                    found.update(self._connection.execute(query, some))
        return [_checked(key, found.get(key)) for key in keys]

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        rows = [(key, _digest(key, content) + content) for key, content in entries.items()]
        with self._lock, self._told("write"), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?)", rows)

    @contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"cannot {verb} the cache {self.path} ({error}); free some space, or delete the file to begin a new one"
            ) from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: Connections of a parent process, which must stay as they are.
_inherited: list[sqlite3.Connection] = []
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def to_bytes(scores: Array) -> bytes:
    """scores: (n,) in [0, 1]. Returns n bytes, 255 = 1.0."""
    return np.rint(scores * 255.0).astype(np.uint8).tobytes()


def from_bytes(stored: bytes) -> Array:
    """(n,) in [0, 1], off by at most 1/510 from what `to_bytes` was given."""
    return np.frombuffer(stored, np.uint8).astype(np.float64) / 255.0


class KeptOutputs:
    """An encoder that remembers its outputs by the tokens that it read, so that they are the same bit for bit.

    fingerprint: tells models apart that share a cache. What a question and a document gave is found again only for the
    same question, title and stretch of text.
    """

    def __init__(self, runtime: EncoderRuntime, cache: DocumentCache, fingerprint: str) -> None:
        self.runtime, self.cache, self.fingerprint = runtime, cache, fingerprint

    @property
    def device(self) -> str:
        return self.runtime.device

    @property
    def dtype(self) -> str:
        return self.runtime.dtype

    def forward(self, sequences: Sequence[TokenSequence]) -> list[EncoderOutput]:
        keys = [self._key(sequence) for sequence in sequences]
        stored = dict(zip(keys, self.cache.get(keys), strict=True))
        known = {key: output for key, entry in stored.items() if (output := _outputs(entry)) is not None}
        fresh = {key: sequence for key, sequence in zip(keys, sequences, strict=True) if key not in known}
        if fresh:
            made = dict(zip(fresh, self.runtime.forward(list(fresh.values())), strict=True))
            self.cache.put({key: _stored(output) for key, output in made.items()})
            known |= made
        return [known[key] for key in keys]

    def _key(self, sequence: TokenSequence) -> bytes:
        digest = hashlib.blake2b(f"outputs 1\0{self.fingerprint}\0{len(sequence)}\0".encode(), digest_size=16)
        for part in (sequence.ids, sequence.type_ids):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.digest()


def _stored(output: EncoderOutput) -> bytes:
    file = io.BytesIO()
    np.savez(file, **output)  # type: ignore[arg-type]  # names of outputs are none of savez's own options
    return file.getvalue()


def _outputs(stored: bytes | None) -> EncoderOutput | None:
    """The outputs that `_stored` packed; None where there are none or they are damaged, and are then computed anew."""
    if not stored:
        return None
    from zipfile import BadZipFile

    try:
        with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, BadZipFile):
        return None
