"""Write to the terminal, or to a pipe or file in its place: text, JSON, HTML, progress."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ctxprune.errors import InputError
from ctxprune.html import render_page
from ctxprune.result import CompressionResult
from ctxprune.timing import watch
from ctxprune.types import Extract, Piece, SoftTokens, Span, Summary

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

#: "auto": everything, but on a terminal of a long text only what is kept, with a line that says so.
Detail = Literal["auto", "all", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is printed, and whether stderr stays empty but for errors."""

    as_json: bool = False
    text: bool = False
    detail: Detail = "auto"
    html: Path | None = None
    quiet: bool = False

    @classmethod
    def of(cls, *, as_json: bool, text: bool, kept: bool, everything: bool, html: Path | None, quiet: bool) -> View:
        """Raises InputError for two of the forms together."""
        forms = {"--json": as_json, "--text": text, "--kept": kept, "--all": everything}
        chosen = [name for name, on in forms.items() if on]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} print the result in different forms; give only one")
        detail: Detail = "kept" if kept else "all" if everything else "auto"
        return cls(as_json=as_json, text=text, detail=detail, html=html, quiet=quiet)


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


def show_progress(items: Iterable[T], *, total: Callable[[], int | None], quiet: bool = False) -> Generator[T]:
    """The items as they are; on a terminal, with a bar on stderr. total: how many, asked for only then; None: not
    known."""
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


Look = Literal["head", "plain", "kept", "removed"]
#: Characters of a removed sentence that are shown where the width is not known: enough to recognise it.
EXCERPT = 90
#: Passages that a terminal shows unasked.
LONG = 200
#: Units of fewer characters on average are words: a line for each would be no view of a text.
WORD = 12
_STYLES = {"head": "bold", "plain": "", "kept": "green", "removed": "dim"}


@dataclass(frozen=True, slots=True)
class Line:
    """One paragraph of output; `margin` stands to the left of all its lines, or blanks of its width."""

    text: str
    look: Look = "plain"
    margin: str = ""


def show_result(result: CompressionResult, detail: Detail) -> None:
    """Question, documents with their sentences, figures."""
    show([Line(f"Question: {result.after.query}", "head"), *result_lines(result, detail, brief=False)])


def result_lines(result: CompressionResult, detail: Detail = "auto", *, brief: bool) -> Iterator[Line]:
    """detail: see `Detail`. brief: a document of which nothing is kept takes one line for all its sentences."""
    pieces = sorted(result.after.pieces, key=lambda piece: piece.index)
    shortened = detail == "auto" and sys.stdout.isatty() and sum(map(_length, pieces)) > LONG
    if detail == "kept" or shortened:
        yield from _kept_lines(pieces, most=LONG if shortened else None)
    else:
        for piece in pieces:
            yield from _piece_lines(piece, brief=brief)
    if shortened:
        yield Line("only kept text is shown, since this is long; --all shows everything, --text the kept text alone")
    yield Line(figures(result), "head")
    yield from (Line(f"note: {note}") for note in notes_of(result))


def notes_of(result: CompressionResult) -> list[str]:
    """Why it came out as it did, and what to look at."""
    return [note for note in (result.reason, *result.warnings) if note]


def _length(piece: Piece) -> int:
    return len(list(_passages(piece))) if isinstance(piece, Extract) else 1


def _kept_lines(pieces: Sequence[Piece], *, most: int | None) -> Iterator[Line]:
    """Kept text without what was removed. most: so many passages, then how many more there are."""
    dropped = [piece for piece in pieces if isinstance(piece, Extract) and piece.dropped]
    left = sys.maxsize if most is None else most
    hidden = 0
    for piece in pieces:
        if piece in dropped:
            continue
        head, *passages = [line for line in _piece_lines(piece, brief=False) if line.look != "removed"]
        yield head
        yield from passages[: max(left, 0)]
        hidden += max(len(passages) - max(left, 0), 0)
        left -= len(passages)
    if hidden:
        yield Line(f"  + {plural(hidden, 'more passage')}", "kept")
    if dropped:
        yield Line(f"{plural(len(dropped), 'document')} of which nothing is kept", "removed")


def figures(result: CompressionResult) -> str:
    """Tokens before and after, what counted them, seconds, and the model where it was the one of other languages."""
    from ctxprune.compressors.provence.compressor import BUNDLED  # loaded by whatever made the result

    model = "" if result.model in ("", BUNDLED) else f" with {result.model}"
    budget = "" if result.budget is None else f", budget {result.budget}" + (" EXCEEDED" if result.over_budget else "")
    seconds = result.seconds.get("total", 0.0)
    return (
        f"{tokens(result.tokens_before, result.tokens_after)}{budget}, counted by {result.tokenizer}; "
        f"{result.compressor}{model}, {seconds:.3f} s"
    )


def tokens(before: int, after: int) -> str:
    """The ratio is before / after: 4.0x means four times shorter."""
    if not before:
        shorter = ""
    elif not after:
        shorter = " (nothing left)"
    elif before == after:
        shorter = " (nothing was removed)"
    elif after > before:
        shorter = f" ({after / before:.1f}x longer)"
    else:
        # one in twenty is the least that "1.1x" can tell
        ratio = before / after
        shorter = f" ({ratio:.1f}x shorter)" if ratio >= 1.05 else f" ({100 * (1 - after / before):.1f}% shorter)"
    return f"{before:,} -> {after:,} tokens{shorter}"


def show(lines: Iterable[Line]) -> None:
    """Print: in colour and wrapped with hanging margins on a terminal, one line a paragraph elsewhere."""
    console = _console() if sys.stdout.isatty() else None
    for line in lines:
        if console is None:
            _print_plain(line)
        else:
            _print_rich(console, line)


def _piece_lines(piece: Piece, *, brief: bool) -> Iterator[Line]:
    yield Line(f"[{piece.index + 1}] {_heading(piece)}", "head")
    if isinstance(piece, Summary):
        yield Line(piece.text or "(empty: nothing helps)", "kept", "  + ")
        if piece.faithfulness is not None:
            yield Line(str(piece.faithfulness), "plain", "    ")
    elif isinstance(piece, SoftTokens):
        yield Line(f"{len(piece.embeddings)} soft tokens for {piece.generator}", "kept", "  + ")
        for unit in () if piece.expanded is None else piece.expanded.kept_units():
            yield Line(piece.source.text[unit.start : unit.end], "kept", _margin("+", unit))
    elif brief and piece.dropped and len(piece.units) > 1:
        yield Line(f"all {len(piece.units)} {_noun(piece)}", "removed", _margin("-", _joined(piece.units)))
    else:
        for unit, kept in _passages(piece):
            text = piece.source.text[unit.start : unit.end]
            yield Line(text, "kept", _margin("+", unit)) if kept else Line(text, "removed", _margin("-", unit))


def _heading(piece: Piece) -> str:
    if isinstance(piece, Summary):
        return f"summary of {len(piece.sources)} document{'' if len(piece.sources) == 1 else 's'}"
    names = piece.source.title or piece.source.id or "(no title)"
    if piece.source.title and piece.source.id:
        names += f" ({piece.source.id})"
    if isinstance(piece, Extract):
        score = "" if piece.score is None else f", relevance {piece.score:.2f}"
        return f"{names}{score}, {sum(piece.kept)} of {len(piece.units)} {_noun(piece)} kept"
    return names


def _passages(extract: Extract) -> Iterator[tuple[Span, bool]]:
    """Sentences one by one; words in runs that were kept or removed together."""
    marked = list(zip(extract.units, extract.kept, strict=True))
    if not _in_words(extract):
        yield from marked
        return
    for kept, run in groupby(marked, key=lambda pair: pair[1]):
        yield _joined([unit for unit, _ in run]), kept


def _in_words(extract: Extract) -> bool:
    length = sum(unit.end - unit.start for unit in extract.units)
    return len(extract.units) > 1 and length < WORD * len(extract.units)


def _noun(extract: Extract) -> str:
    return "words" if _in_words(extract) else "sentences"


def _joined(units: Sequence[Span]) -> Span:
    """From the first to the last, with the best score among them."""
    return Span(units[0].start, units[-1].end, max(unit.score for unit in units))


def _margin(marker: str, unit: Span) -> str:
    # + 0.0: a rounded -0.001 is no negative number to a reader
    score = f"{round(unit.score, 2) + 0.0:.2f}" if math.isfinite(unit.score) else "-"
    return f"  {marker} {f'[{unit.start}:{unit.end}]':<13} {score:>5}  "


def _print_plain(line: Line) -> None:
    text = printable(line.text)
    if line.look == "removed":
        text = _excerpt(text)
    sys.stdout.write(line.margin + text.replace("\n", "\n" + " " * len(line.margin)) + "\n")


def _print_rich(console: Console, line: Line) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid()
    grid.add_column(no_wrap=True)
    removed = line.look == "removed"
    grid.add_column(no_wrap=removed, overflow="ellipsis" if removed else "fold")
    text = printable(line.text)
    style = _STYLES[line.look]
    grid.add_row(Text(line.margin, style), Text(" ".join(text.split()) if removed else text, style))
    console.print(grid)


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 1] + "…"


def _console() -> Console:
    from rich.console import Console

    # rich leaves bold and dim where NO_COLOR is set; who sets it wants plain text
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(highlight=False, no_color=plain or None, color_system=None if plain else "auto")
