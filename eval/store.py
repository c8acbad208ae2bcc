"""What a run has already computed, on disk by content hash, so that a stopped run goes on and nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ctxprune.errors import InputError

_AT_ONCE = 500  # keys in one query; SQLite takes a limited number of variables


#: Bytes of a digest over key and value that go before the value.
_DIGEST = 12


def key(*parts: Any) -> str:
    """The SHA-256 (hexadecimal) of the parts as canonical JSON: equal parts give equal keys, on any machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _packed(name: str, value: Any) -> bytes:
    content = zlib.compress(json.dumps(value).encode(), 1)
    return _digest(name, content) + content


def _unpacked(name: str, stored: Any) -> tuple[Any] | None:
    """The value in a tuple of its own, since None is a value; None for what is not what was put."""
    if not isinstance(stored, bytes):
        return None
    digest, content = stored[:_DIGEST], stored[_DIGEST:]
    try:
        # earlier versions wrote no digest, and what follows the first bytes of theirs does not fit them
        return (json.loads(zlib.decompress(content if digest == _digest(name, content) else stored)),)
    except (zlib.error, ValueError):
        return None


def _digest(name: str, content: bytes) -> bytes:
    named = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
    return hashlib.blake2b(content, digest_size=_DIGEST, key=named).digest()


class Store:
    """JSON values by key in one SQLite file. Use as a context manager.

    A value is on disk when `put_many` returns, all of a call or none, so what an interrupted write leaves is never
    read. Several processes may share a file. Raises InputError, with the next step, when the file cannot be opened,
    read or written (no space left, damaged).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._failed("open", error) from None
        try:
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("pragma synchronous=normal")  # with a write-ahead log: safe against a killed process
            self._database.execute("create table if not exists entries (key text primary key, value blob not null)")
        except sqlite3.Error as error:
            self._database.close()
            raise self._failed("open", error) from None

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of the keys that are known; one that was damaged, or is another key's, counts as not known."""
        stored: dict[str, Any] = {}
        try:
            for first in range(0, len(keys), _AT_ONCE):
                some = keys[first : first + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._database.execute(f"select key, value from entries where key in ({marks})", some)
                stored.update(rows)
        except sqlite3.Error as error:
            raise self._failed("read", error) from None
        unpacked = ((name, _unpacked(name, value)) for name, value in stored.items())
        return {name: each[0] for name, each in unpacked if each}

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Remember the values, all or none of them. Raises InputError when they cannot be written."""
        rows = [(name, _packed(name, value)) for name, value in values.items()]
        try:
            # a transaction of its own, closed before this returns: the connection's own bookkeeping is off
            with closing(self._database.cursor()) as cursor:
                cursor.execute("begin immediate")
                try:
                    cursor.executemany("insert or replace into entries values (?, ?)", rows)
                    cursor.execute("commit")
                except BaseException:
                    if self._database.in_transaction:
                        cursor.execute("rollback")
                    raise
        except sqlite3.Error as error:
            raise self._failed("write", error) from None

    def __len__(self) -> int:
        (count,) = self._database.execute("select count(*) from entries").fetchone()
        return int(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def _failed(self, verb: str, error: Exception) -> InputError:
        return InputError(
            f"cannot {verb} the cache {self.path}: {error}; free some space or delete the file, "
            "or name another with --cache, and run again: what is already there is used"
        )
