"""Rows of a measurement in a JSONL file, written as they are made; the same command goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ctxprune.batches import batched
from ctxprune.errors import InputError
from ctxprune.eval.folder import to_json, write_whole
from ctxprune.eval.progress import progress
from ctxprune.eval.store import key

T = TypeVar("T")
#: What was measured of one item, as JSON has it.
Row: TypeAlias = dict[str, Any]


def measured_rows(
    folder: Path,
    part: str,
    identity: Sequence[Any],
    items: Sequence[T],
    measure: Callable[[list[T]], list[Row]],
    *,
    chunk: int = 64,
) -> list[Row]:
    """One row an item, in their order; items whose rows are in the folder already are not measured again.

    identity: JSON values of everything that decides a row; it names the file, so that other settings get another one.
    measure: rows of at most `chunk` items, which are on disk before the next are asked for. Raises InputError for a
    file that cannot be read or written.
    """
    path = folder / f"{part}-{key(part, *identity)[:12]}.jsonl"
    rows = _read(path)
    if len(rows) >= len(items):
        return rows[: len(items)]
    with progress(part, len(items)) as advance:
        advance(len(rows))
        for some in batched(items[len(rows) :], chunk):
            made = measure(some)
            _append(path, made)
            rows += made
            advance(len(made))
    return rows


def _read(path: Path) -> list[Row]:
    """The whole lines of the file; what an interrupted write left behind them is cut off."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_whole(path, whole)
        return [json.loads(line) for line in whole.split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it to measure its rows again") from None


def _append(path: Path, rows: Sequence[Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(to_json(row) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; free some space and run again, the rows are kept") from None
