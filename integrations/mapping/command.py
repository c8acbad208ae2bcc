"""`ctxprune map`: the options, and what they become."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ctxprune.integrations.mapping.files import TaskName, Work
from ctxprune.integrations.mapping.run import Engine, OnError, Summary, map_file
from ctxprune.select import OnEmpty, Order, gap_bounds
from ctxprune.text import UnitKind

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
def run(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A .jsonl[.gz] or .parquet file, or a folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A folder: new, empty, or of this very run.")],
    engine: Annotated[Engine, typer.Option(help="Processes on this machine, or a Ray cluster.")] = "local",
    workers: Annotated[int, typer.Option(help="How many; each loads the model once.")] = 1,
    task: Annotated[
        TaskName,
        typer.Option(help="compress; of a corpus also embed (sentence vectors), scores (words, LLMLingua-2)."),
    ] = "compress",
    compressor: Annotated[str, typer.Option("--compressor", "-c", help="As of ctxprune compress.")] = "provence",
    model: Annotated[str | None, typer.Option(help="Of the compressor, or of the scores.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Keep what scores at least this.")] = None,
    operating_point: Annotated[
        str | None, typer.Option(metavar="NAME", help="safe, balanced or aggressive, in place of --threshold.")
    ] = None,
    budget: Annotated[int | None, typer.Option(metavar="TOKENS", help="Keep at most so many tokens a line.")] = None,
    calibration: Annotated[Path | None, typer.Option(metavar="FILE", help="Gives threshold or budget.")] = None,
    tokenizer: Annotated[str, typer.Option(metavar="SPEC", help="What counts tokens.")] = "default",
    protect: Annotated[list[str] | None, typer.Option(metavar="REGEX", help="Keep sentences that match.")] = None,
    keep_title: Annotated[bool, typer.Option("--keep-title/--no-title", help="Give titles too.")] = True,
    min_keep: Annotated[int, typer.Option(help="Keep at least so many sentences.")] = 0,
    floor: Annotated[float | None, typer.Option(help="What scores less does not fill up a budget.")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", metavar="SHARE", help="Keep the fewest with this share of all scores.")
    ] = None,
    gap: Annotated[str | None, typer.Option(metavar="LEAST,MOST", help="Keep down to the largest drop.")] = None,
    companions: Annotated[
        bool | None, typer.Option("--companions/--no-companions", help="Keep what kept sentences lean on.")
    ] = None,
    on_empty: Annotated[OnEmpty, typer.Option("--on-empty", help="When nothing passes the threshold.")] = "drop",
    order: Annotated[Order, typer.Option("--order", help="Of the documents.")] = "document",
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Of the documents, e.g. de (default: guessed).")
    ] = None,
    units: Annotated[UnitKind | None, typer.Option("--units", help="What to choose among (default: by shape).")] = None,
    elision: Annotated[str, typer.Option(metavar="MARK", help="Between kept stretches (default: nothing).")] = "",
    encoder: Annotated[str, typer.Option(help="Of embed: bundled, or a sentence-transformers id or path.")] = "bundled",
    part_tokens: Annotated[int, typer.Option(help="Estimated tokens of the input that make one part.")] = 65_536,
    batch_tokens: Annotated[int, typer.Option(help="Estimated tokens that a model is given at a time.")] = 4096,
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
    work = Work(
        task=task,
        compressor=compressor,
        model=model,
        threshold=threshold,
        operating_point=operating_point,
        budget=budget,
        calibration=None if calibration is None else str(calibration),
        tokenizer=tokenizer,
        protect=tuple(protect or ()),
        keep_title=keep_title,
        min_keep=min_keep,
        floor=floor,
        top_p=top_p,
        gap=gap_bounds(gap),
        companions=companions,
        on_empty=on_empty,
        order=order,
        language=language,
        units=units,
        elision=elision,
        encoder=encoder,
        part_tokens=part_tokens,
        batch_tokens=batch_tokens,
    )
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
