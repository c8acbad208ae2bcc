"""`ctxprune map`: the options, and what they become."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ctxprune.integrations.mapping.files import Work
from ctxprune.integrations.mapping.run import Engine, OnError, Summary, map_file
from ctxprune.options import with_flags

#: Seconds between two lines of progress on a terminal.
_PROGRESS_SECONDS = 2.0

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code. argv: what follows `ctxprune map`."""
    try:
        app(list(argv), prog_name="ctxprune map")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
@with_flags
def run(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A .jsonl[.gz] or .parquet file, or a folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A folder: new, empty, or of this very run.")],
    engine: Annotated[Engine, typer.Option(help="Processes on this machine, or a Ray cluster.")] = "local",
    workers: Annotated[int, typer.Option(help="How many; each loads the model once.")] = 1,
    *,
    work: Work,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="At a line that cannot be used: stop, or skip and list it.")
    ] = "stop",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a running Ray cluster, e.g. auto.")
    ] = None,
) -> None:
    """Compress, embed or score every line of INPUT into parts below OUTPUT.

    Parts are numbered in the order of INPUT; `cat OUTPUT/part-*.jsonl` is what `ctxprune compress --batch` prints,
    without `seconds`, which differ from run to run. The same command goes on with a stopped run.
    """
    begun = time.perf_counter()
    summary = map_file(
        source,
        output,
        work,
        engine=engine,
        workers=workers,
        on_error=on_error,
        ray_address=ray_address,
        on_part=_progress() if sys.stderr.isatty() else None,
    )
    _tell(summary, output, time.perf_counter() - begun)


def _progress() -> Callable[[int], None]:
    """Says how many lines are done, now and then."""
    told = time.perf_counter()

    def on_part(lines: int) -> None:
        nonlocal told
        if time.perf_counter() - told >= _PROGRESS_SECONDS:
            told = time.perf_counter()
            sys.stderr.write(f"{lines:,} lines\n")

    return on_part


def _tell(summary: Summary, output: Path, seconds: float) -> None:
    parts = f"{summary.parts:,} parts: {summary.made:,} made, {summary.found:,} were there"
    sys.stderr.write(f"{output}: {summary.lines:,} lines in {parts}; {seconds:.1f} s\n")
    if summary.remade:
        sys.stderr.write(f"{summary.remade:,} parts had been made from other lines and were made again\n")
    if summary.deaths:
        sys.stderr.write(f"{summary.deaths:,} times a worker died and its part was done by another\n")
    if summary.failures:
        sys.stderr.write(f"{len(summary.failures):,} lines were left out; see {output / 'failures.jsonl'}\n")
