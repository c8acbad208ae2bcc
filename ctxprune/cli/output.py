"""Write to the terminal, or to a pipe or file in its place: text, JSON, HTML, progress."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.html import render_page
from ctxprune.result import CompressionResult

T = TypeVar("T")

# escape sequences with their parameters, then what is left of the control characters (tab and line feed stay)
_CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plural(number: int, noun: str) -> str:
    """ "1 document", "1,200 documents"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """The text without what a terminal would obey: colours, cursor moves, titles, links, bells."""
    return _CONTROL.sub("", text)


def print_json(row: dict[str, Any], *, indent: int | None = None) -> None:
    """One object; lone surrogates are escaped as JSON wants it, and everything else where stdout is no UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(row, ensure_ascii=not utf8, allow_nan=False, indent=indent) + "\n")


def write_html(path: Path, results: Sequence[CompressionResult]) -> None:
    path.write_text(render_page(results), encoding="utf-8")
    sys.stderr.write(f"wrote {path}\n")


def show_progress(items: Iterable[T], *, total: Callable[[], int]) -> Generator[T]:
    """The items as they are; on a terminal, with a bar on stderr. total: how many, asked for only then."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # stdout must stay what it is: it carries the results
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task("", total=total())
        for item in items:
            yield item
            progress.advance(task)
