"""The folder of a run while it is being written: one run at a time, whole files only."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ctxprune import files
from ctxprune.errors import InputError
from ctxprune.files import LOCK, only_writer, remove_matching

#: What a killed run may leave of the columns of its metrics, or of its report.
LEFTOVERS = (".columns-*", ".report-*")


@contextmanager
def claimed(folder: Path, config_hash: str) -> Iterator[None]:
    """Hold the folder for this run. Raises InputError when another run is writing there, or has other settings.

    The hold ends with the process, however it ends, so a killed run leaves nothing to clean up.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error}; choose another folder with --out") from None
    with only_writer(folder):
        _check_settings(folder, config_hash)
        remove_matching(folder, *LEFTOVERS)
        yield


def _check_settings(folder: Path, config_hash: str) -> None:
    marker = folder / "config.hash"
    if marker.is_file():
        there = marker.read_text(encoding="utf-8").strip()
        if there != config_hash:
            raise InputError(
                f"{folder} holds a run with other settings ({there}, these are {config_hash}); "
                "choose another --out: what both have in common comes from the cache"
            )
    elif any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run; choose another --out")
    write_whole(marker, config_hash + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file of the run whole or not at all. Raises InputError when it cannot be written."""
    try:
        files.write_whole(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; free some space and run again, the cache is kept") from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON with null for NaN and infinities, and floats at nine digits, so that equal runs give equal files."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


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


Array = npt.NDArray[np.float64]


class Columns:
    """Rows of metrics in a file of the run's own: appended in a `with` block, then read by column.

    So the memory of a run does not grow with its questions. Raises InputError when the disk refuses.
    """

    def __init__(self, path: Path, metrics: Sequence[str]) -> None:
        self.path = path
        self.metrics = tuple(metrics)
        self._rows = 0

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("wb")
        except OSError as error:
            raise self._failed(error) from None
        return self

    def append(self, values: Mapping[str, float]) -> None:
        """One row, with a value for each metric."""
        try:
            self._file.write(np.array([values[name] for name in self.metrics], dtype=np.float64).tobytes())
        except OSError as error:
            raise self._failed(error) from None
        self._rows += 1

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        except OSError as failure:
            raise self._failed(failure) from None

    def __len__(self) -> int:
        return self._rows

    def column(self, metric: str) -> Array:
        """(rows,) values of one metric, NaN = not measurable."""
        if not self._rows:  # an empty file cannot be mapped
            return np.empty(0)
        table = np.memmap(self.path, dtype=np.float64, mode="r", shape=(self._rows, len(self.metrics)))
        return np.array(table[:, self.metrics.index(metric)])

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"cannot write {self.path}: {error}; make room or choose another folder, then run again")
