"""Write to the terminal, or to a pipe or file in its place: text, JSON, HTML, progress."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.html import render_page
from ctxprune.result import CompressionResult
from ctxprune.timing import watch

T = TypeVar("T")

#: Shorter waits need no bar.
PATIENCE_SECONDS = 1.0

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


def print_text(text: str) -> None:
    """The text as it is, and on a terminal without what it would obey; nothing for no text."""
    if text:
        sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def write_html(path: Path, results: Sequence[CompressionResult], *, tell: Callable[[str], None]) -> None:
    path.write_text(render_page(results), encoding="utf-8")
    tell(f"wrote {path}")


def notes(*, quiet: bool) -> Callable[[str], None]:
    """What writes a line to stderr, or nothing."""
    return _no_note if quiet else note


def note(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(line + "\n")


def _no_note(line: str) -> None:
    """For --quiet."""


@contextmanager
def reading_progress(*, quiet: bool) -> Iterator[None]:
    """A bar on stderr while models read, on a terminal and once it has taken a second; gone again at the end."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True, disable=True) as bar:
        task = bar.add_task("")

        def report(done: int, total: int) -> None:
            if bar.disable and time.monotonic() - began > PATIENCE_SECONDS:
                bar.disable = False
                bar.start()
            bar.update(task, completed=done, total=total)

        with watch(report):
            yield


def show_progress(items: Iterable[T], *, total: Callable[[], int], quiet: bool = False) -> Generator[T]:
    """The items as they are; on a terminal, with a bar on stderr. total: how many, asked for only then."""
    if quiet or not sys.stderr.isatty():
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
