"""The folder of a run while it is being written: one run at a time, whole files only."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    """Write a file so that it is there whole or not at all. Raises InputError when it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
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
