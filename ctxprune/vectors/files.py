"""Files that are there whole or not at all, hashed as they are written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctxprune.errors import CheckpointError, InputError
from ctxprune.files import LOCK

#: Bytes read at a time when a file is checked.
_BLOCK = 1 << 22
#: Everything that a writer puts into the folder, finished or not.
_OURS = re.compile(r"(segment-\d{6}|index-\d{6}\.faiss|manifest\.json)(\.part)?|\.lock")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a finished file. checksum: 16 bytes of BLAKE2b in hexadecimal."""

    bytes: int
    checksum: str

    def check_size(self, path: Path) -> None:
        """Raises CheckpointError when the file is missing or has another size."""
        size = path.stat().st_size if path.is_file() else None
        if size != self.bytes:
            state = "is missing" if size is None else f"has {size} bytes in place of {self.bytes}"
            raise CheckpointError(f"{path} {state}: the store is damaged; restore it from a copy or build it again")

    def check_content(self, path: Path) -> None:
        """Raises CheckpointError when any byte of the file has changed."""
        if (found := file_checksum(path)) != self.checksum:
            raise CheckpointError(
                f"{path} has changed since it was written (checksum {found}, expected {self.checksum}): the store is "
                "damaged; restore it from a copy or build it again"
            )


class HashedFile:
    """A new file under its final name in an unfinished folder."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.blake2b(digest_size=16)
        self.bytes = 0

    def write(self, content: bytes) -> None:
        self._hash.update(content)
        self._file.write(content)
        self.bytes += len(content)

    def finish(self) -> StoredFile:
        """On the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StoredFile(self.bytes, self._hash.hexdigest())

    def close(self) -> None:
        self._file.close()


def file_checksum(path: Path) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file in one step; a crash leaves the old one or the new one."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    publish(unfinished, path)


def publish(unfinished: Path, path: Path) -> None:
    """Give a finished file or folder its name, for good: the folder it stands in is written to disk too."""
    if unfinished.is_dir():
        _sync(unfinished)
    unfinished.replace(path)
    _sync(path.parent)


def remove_leftovers(folder: Path, known: Collection[str]) -> None:
    """Remove what an interrupted writer left behind; raises InputError for what no writer of ours puts there."""
    for path in folder.iterdir():
        if not _OURS.fullmatch(path.name):
            raise InputError(f"{folder} holds {path.name}, which is no part of a vector store; choose another folder")
    for path in folder.iterdir():
        if path.name not in known and path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
