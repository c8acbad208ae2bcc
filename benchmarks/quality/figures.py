"""The part of a quality run that README and docs show, as a small file that is kept beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.files import write_whole

Figures = dict[str, Any]

_OF_A_SET = ("questions", "answerable")
_OF_DEFAULTS = ("compressor", "answer_kept", "removed", "answerable_emptied", "unanswerable_emptied")
_OF_LEVELS = ("compressor", "level", "removed")
_OF_DIFFERENCES = ("ours", "baseline", "budget", "metric", "verdict")


def shown(report: Mapping[str, Any]) -> Figures:
    """What `benchmarks.tables` needs of a report, {"command", "sets"}, in its own form."""
    return {"command": report["command"], "sets": {name: _set(each) for name, each in report["sets"].items()}}


def _set(figures: Mapping[str, Any]) -> Figures:
    kept = [row for row in figures["differences"] if row["metric"] == "answer_kept"]
    return {
        **{name: figures[name] for name in _OF_A_SET},
        "defaults": [_part(row, _OF_DEFAULTS) for row in figures["defaults"]],
        "removed_at": [_part(row, _OF_LEVELS) for row in figures["removed_at"]],
        "budgets": [_part(row, ("compressor", "budget", "answer_kept")) for row in figures["budgets"]],
        "differences": [_part(row, _OF_DIFFERENCES) for row in kept],
        "ranks": [_part(row, ("ranker", "gold_first")) for row in figures["ranks"]],
        "calibration": [_part(row, ("compressor", "ece")) for row in figures["calibration"]],
    }


def _part(row: Mapping[str, Any], names: tuple[str, ...]) -> Figures:
    return {name: row[name] for name in names}


def write_figures(figures: Mapping[str, Any], path: Path) -> None:
    """Write the file whole or not at all: null for NaN, floats at six places, a set's rows on a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(plain(figures), indent=1, allow_nan=False) + "\n"
    write_whole(path, content, unfinished=path.with_name(f".{path.name}.part"))


def read_figures(path: Path) -> Figures:
    """What `write_figures` wrote, NaN where it has null. Raises InputError for a missing or damaged file."""
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"), object_hook=_with_nan)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the figures {path}: {error}") from None
    return figures


def _with_nan(row: Figures) -> Figures:
    return {name: math.nan if value is None else value for name, value in row.items()}


def plain(figures: Any) -> Any:
    """Figures as JSON has them: null for NaN, floats at six places."""
    if isinstance(figures, dict):
        return {key: plain(value) for key, value in figures.items()}
    if isinstance(figures, list):
        return [plain(value) for value in figures]
    if isinstance(figures, float):
        return None if math.isnan(figures) else round(figures, 6)
    return figures
