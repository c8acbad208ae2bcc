"""Files read by the line, written whole or not at all, and one writer at a time in a folder that several share."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import shutil
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO, TypeVar, cast
from weakref import WeakSet

from ctxprune.errors import InputError

#: Names of files with a JSON object a line, in any case.
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def is_json_lines(name: str) -> bool:
    return name.lower().endswith(JSON_LINES)


def is_packed(path: Path) -> bool:
    """Whether the name says that gzip packed it."""
    return path.suffix.lower() == ".gz"


def open_text(path: Path) -> TextIO:
    """A UTF-8 file, gunzipped if its name ends in .gz, a byte-order mark skipped; its lines end at newlines alone."""
    if is_packed(path):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline="\n"))
    return path.open(encoding="utf-8-sig", newline="\n")


#: What files begin with that hold text in a form of their own, and what makes plain text of it.
_FORMS = (
    (b"%PDF-", "a PDF", "pdftotext FILE"),
    (b"PK\x03\x04", "a zip archive or an office document", "pandoc -t plain FILE"),
    (b"\xd0\xcf\x11\xe0", "an old office document", "soffice --convert-to txt FILE"),
    (b"\x1f\x8b", "gzipped", "gunzip FILE"),
)


#: Byte order marks, with what reads the text behind them; UTF-32's begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(content: bytes, place: str) -> str:
    """UTF-8 text, or what a byte order mark says; without the mark. Line ends stay as they are, so that offsets fit.

    place: how the file is called in the InputError, which says what else it is and how to make text of it.
    """
    for begins, what, how in _FORMS:
        if content.startswith(begins):
            raise InputError(f"{place} is {what}, not plain text; make that of it first: {how}")
    mark, encoding = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        skipped = len(mark) if encoding == "utf-8-sig" else 0  # whose codec counts from behind the mark
        where = f"{error.reason} at byte {error.start + skipped}"
        how = "iconv -f ENCODING -t utf-8 FILE (latin1, cp1252, ...)"
        raise InputError(f"{place} is not UTF-8 text ({where}); make it so first: {how}") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) for every line of a file that is not blank; gunzipped if its name ends in .gz.

    Raises InputError for a file that cannot be read; it names the line and the byte of what is no UTF-8.
    """
    try:
        with _open_bytes(path) as lines:
            yield from split_lines(lines, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if is_packed(path) else path.open("rb")


def split_lines(lines: Iterable[bytes], place: str) -> Iterator[tuple[int, str]]:
    """(line number, line) of what is not blank, a byte-order mark skipped. lines: as a binary file gives them.

    They are split before they are decoded, at newlines alone: JSON strings may hold other line separators as they are.
    """
    for number, line in enumerate(lines, 1):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start + len(line) - len(content) + 1
            raise InputError(
                f"{place}:{number}: not UTF-8 text ({error.reason} at byte {at} of the line); convert it to UTF-8"
            ) from None
        if text.strip():
            yield number, text


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every non-empty line of a .jsonl or .jsonl.gz file; InputError names a bad line."""
    for number, line in read_lines(path):
        yield number, json_object(line, f"{path}:{number}")


def json_object(line: str, place: str = "") -> dict[str, Any]:
    """The object of one line; InputError, beginning with `place` if there is one, for anything else."""
    where = f"{place}: " if place else ""
    try:
        row = json.loads(line, parse_constant=constant, object_pairs_hook=unique_fields)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, brackets nested as deep
        raise InputError(f"{where}unusable JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}expected a JSON object, got {type(row).__name__}")
    return row


def unique_fields(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for two fields of one name: Python would take the last without a word."""
    values = dict[str, Any]()
    for name, value in fields:
        if name in values:
            raise ValueError(f"the field {name[:60]!r} stands twice in one object")
        values[name] = value
    return values


def constant(name: str) -> float | None:
    """What NaN, Infinity and -Infinity stand for in JSON that Python wrote: NaN, as of an empty cell, for null."""
    return None if name == "NaN" else float(name)


def checked_output(path: Path | None) -> Path | None:
    """Where a command writes. Raises InputError for "-": no command of ours writes a file to standard output."""
    if path is not None and str(path) == "-":
        raise InputError(f"{path} would be a file of that name, not standard output; name a file or a folder")
    return path


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, ascii_only: bool = True) -> int:
    """One JSON object a line, gzipped if the name ends in .gz; returns how many. The file appears when all is done,
    and nothing is left of one that was not.

    Equal rows make equal bytes, gzipped too.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with _new_text(part, gzipped=is_packed(path)) as lines:
            for row in rows:
                lines.write(json.dumps(row, ensure_ascii=ascii_only) + "\n")
                written += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return written


@contextmanager
def _new_text(path: Path, *, gzipped: bool) -> Iterator[TextIO]:
    if not gzipped:
        with path.open("w", encoding="utf-8") as lines:
            yield lines
        return
    # no name and no time in the head of the file, so that equal rows are equal bytes
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as lines,
    ):
        yield lines


def write_whole(path: Path, content: bytes | str, *, unfinished: Path | None = None) -> None:
    """Replace the file in one step; a crash of the process or the machine leaves the old one or the new one.

    unfinished: where it is written first, on the same disk (default: beside it, with .part at the end of its name);
    processes that may write the same file at a time need one each.
    """
    unfinished = unfinished or path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        publish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def publish(unfinished: Path, path: Path) -> None:
    """Give a finished file or folder its name, for good: the folder it stands in is written to disk too."""
    if unfinished.is_dir():
        _sync(unfinished)
    unfinished.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


LOCK = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder, which must exist, against every other writer; readers need no hold.

    The hold ends with the process, however it ends. Raises InputError while another process, or another part of this
    one, holds the folder, and where its lock cannot be written or is no plain file: a link is never followed.
    """
    descriptor = _held(folder)
    try:
        yield
    finally:
        # while it is still held: whoever opened the file meanwhile sees that it is gone, and makes a new one
        (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def remove_matching(folder: Path, *patterns: str) -> None:
    """Remove what an interrupted writer left under these names; for whoever holds the folder."""
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _held(folder: Path) -> int:
    """A descriptor of the folder's lock file with the lock on it."""
    import fcntl  # not on Windows, where reading still works

    while True:
        descriptor = _opened(folder / LOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise InputError(
                f"another process is writing to {folder}; wait for it to end, or choose another folder"
            ) from None
        if _is_still(folder / LOCK, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed it between our opening and locking it


def _opened(path: Path) -> int:
    # neither truncated nor followed: a link to somebody's file must not cost them its content
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link, which no run of ours makes; remove it, or choose another folder"
            ) from None
        raise InputError(f"cannot write to {path.parent}: {error}; permit it, or choose another folder") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is no plain file; remove it, or choose another folder")
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order, the last one shorter; only one list is held at a time."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


class CopiedLock:
    """Use it in a `with` block. What one copy locks, the other does not: each has its own state to guard.

    In a forked child it is free, for whichever thread of the parent held it is not there to give it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[CopiedLock], tuple[()]]:
        return CopiedLock, ()


_locks: WeakSet[CopiedLock] = WeakSet()


def _renew_locks() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_renew_locks)
