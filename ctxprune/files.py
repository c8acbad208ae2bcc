"""One writer at a time in a folder that several processes share, and what an interrupted one left behind removed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxprune.errors import InputError

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
