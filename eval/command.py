"""`ctxprune eval data | run | report | compare | ls | calibrate | break-even`: the options, and what they become."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ctxprune.errors import InputError
from ctxprune.files import checked_output, only_writer, remove_matching

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure what compressors cost and what they do to answers, against baselines at equal tokens.",
)

Cache = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What earlier runs computed (default: in the user's cache folder)."),
]
Data = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Questions with documents (docs/benchmarking.md); may be repeated."),
]


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code. argv: what follows `ctxprune eval`."""
    try:
        app(list(argv), prog_name="ctxprune eval")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the set; --list has them all.")] = None,
    given: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE|FOLDER", help="An official file, or a folder of them; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=checked_output, help="What to write, .jsonl or .jsonl.gz.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="The sets: source, files, licence, labels.")] = False,
    passages: Annotated[
        int | None, typer.Option(help="Documents a question: its paragraph among the BM25-nearest without the answer.")
    ] = None,
    unanswerable: Annotated[
        float, typer.Option(metavar="SHARE", help="With --passages, of the questions whose own paragraph is taken out.")
    ] = 0.2,
    whole: Annotated[bool, typer.Option("--whole", help="The article, contract or meeting as one document.")] = False,
    seed: Annotated[int, typer.Option(help="With --passages, of that share and of the documents' order.")] = 0,
) -> None:
    """Make a question file from a data set's official files, which you fetch yourself."""
    from ctxprune.eval.convert.made import Shape
    from ctxprune.eval.convert.sets import build, listing

    if listed:
        sys.stdout.write(listing())
        return
    if name is None or not given or out is None:
        raise typer.BadParameter("give a set, its files and what to write: NAME --from FILE --out FILE.jsonl.gz")
    shape = Shape(whole=whole, passages=passages, unanswerable=unanswerable, seed=seed)
    sys.stderr.write(build(name, given, out, shape=shape).in_words())


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Settings; flags win over it.")] = None,
    data: Data = None,
    limit: Annotated[int | None, typer.Option(help="At most so many questions a file, drawn by --seed.")] = None,
    retriever: Annotated[str | None, typer.Option(help="given, bm25, dense or hybrid.")] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Passages to search beside the questions' own.")
    ] = None,
    depth: Annotated[int | None, typer.Option("--documents", "-k", help="Documents a question.")] = None,
    compressor: Annotated[
        list[str] | None,
        typer.Option("--compressor", "-c", help="Name, folder or hub id; A+B chains; repeatable."),
    ] = None,
    thresholds: Annotated[str | None, typer.Option(metavar="T,T", help="Of the compressors, 0 to 1.")] = None,
    operating_points: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Of the compressors: safe, balanced, aggressive.")
    ] = None,
    budgets: Annotated[str | None, typer.Option(metavar="N,N", help="Of the compressors, in tokens.")] = None,
    rates: Annotated[str | None, typer.Option(metavar="R,R", help="Of the compressors, shares of the tokens.")] = None,
    compressed: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Contexts that another tool compressed; may be repeated.")
    ] = None,
    baselines: Annotated[str | None, typer.Option(metavar="A,B", help="Of the run (default: all).")] = None,
    generator: Annotated[str | None, typer.Option(help="none, local:PATH_OR_ID or openai:MODEL.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Of the openai generator.")] = None,
    api_key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the key.")] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="SPEC", help="What counts tokens.")] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Of the documents, e.g. de (default: guessed).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawn questions and of the bootstrap.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", callback=checked_output, help="The run's folder (default: runs/<time>)."),
    ] = None,
    cache: Cache = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=X", help="Exit with 3 when a tested compressor's mean is lower; may be repeated."),
    ] = None,
) -> None:
    """Run the benchmark, or go on with a stopped run: the same command with the same folder."""
    from ctxprune.eval.config import config_from
    from ctxprune.eval.run.runner import failures, parse_limits
    from ctxprune.eval.run.runner import run as run_benchmark

    settings = _read_settings(config)
    sets = {"limit": limit, "seed": seed, "retriever": retriever, "k": depth, "corpora": corpus}
    _merge_data(settings, data, {name: value for name, value in sets.items() if value is not None})
    grid = {"thresholds": thresholds, "budgets": budgets, "rates": rates}
    values: dict[str, Any] = {name: _numbers(text, f"--{name}") for name, text in grid.items()}
    _merge_compressors(settings, compressor, values | {"operating_points": _names(operating_points) or []})
    if generator is not None:
        settings["generator"] = settings.get("generator", {}) | _generator(generator, base_url, api_key_env)
    if seed is not None:
        settings["statistics"] = settings.get("statistics", {}) | {"seed": seed}
    named = {"compressed": compressed, "baselines": _names(baselines), "tokenizer": tokenizer, "language": language}
    settings |= {name: value for name, value in named.items() if value is not None}
    if not settings.get("compressors") and not settings.get("compressed"):
        raise typer.BadParameter(
            "give what to test: --compressor provence, --compressed FILE, or compressors: in a CONFIG.yaml"
        )
    limits = parse_limits(fail_under or ())
    checked = config_from(settings, source=str(config) if config else "the flags")
    folder = out or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    results = run_benchmark(checked, folder, cache=_cache(cache), command=shlex.join(["ctxprune", *sys.argv[1:]]))
    _tell(folder, below=failures(results, limits))


def _tell(folder: Path, *, below: Sequence[str]) -> None:
    """Print the leaderboard and where the rest is; exits with 3 where a mean is below its limit."""
    sys.stdout.write((folder / "leaderboard.md").read_text(encoding="utf-8"))
    sys.stderr.write(f"wrote {folder}: report.html, leaderboard.md, results.json, samples.jsonl, plots/\n")
    if below:
        sys.stderr.write("".join(f"below the limit: {line}\n" for line in below))
        raise typer.Exit(3)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    ragas: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=checked_output, help="Write the samples as RAGAS reads them instead."),
    ] = None,
) -> None:
    """Write leaderboard, plots and report.html of a run again."""
    from ctxprune.eval.report.folder import open_run
    from ctxprune.eval.report.html import write_report
    from ctxprune.eval.report.samples import write_ragas
    from ctxprune.eval.run.folder import LEFTOVERS

    if ragas is not None:
        sys.stderr.write(f"wrote {write_ragas(folder, ragas):,} samples into {ragas}\n")
        return
    open_run(folder)  # a folder that holds no run is not to be touched
    with only_writer(folder):
        remove_matching(folder, *LEFTOVERS)
        write_report(folder)
    sys.stderr.write(f"wrote {folder / 'report.html'}\n")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The folder of a finished run.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
) -> None:
    """Two runs side by side: B minus A, paired by question where the data is the same."""
    from ctxprune.eval.report.compare import compare as compare_runs

    sys.stdout.write(compare_runs(first, second))


@app.command()
def ls(folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are.")] = Path("runs")) -> None:
    """The runs in a folder."""
    from ctxprune.eval.report.compare import ls as list_runs

    sys.stdout.write(list_runs(folder))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    help="Pick the threshold or budget that removes most while a bound on the risk holds.",
)
def calibrate(context: typer.Context) -> None:
    from ctxprune.eval.risk.calibrate import main as calibrate_from

    raise typer.Exit(calibrate_from(context.args))


@app.command("break-even")
def break_even(
    prices: Annotated[
        str, typer.Option(metavar="IN,OUT", help="Of a million input and output tokens, in any currency.")
    ],
    tokens: Annotated[str, typer.Option(metavar="BEFORE,AFTER", help="Tokens of the context.")],
    output: Annotated[
        str, typer.Option(metavar="BEFORE,AFTER", help="Tokens of the answer; pruned contexts can make it longer.")
    ],
    seconds: Annotated[float, typer.Option(help="The compressor takes for a request.")],
    machine_hour: Annotated[float, typer.Option(help="Price of an hour of the compressor's machine.")] = 0.0,
    other_tokens: Annotated[float, typer.Option(help="Input tokens that stay as they are.")] = 0.0,
    cached_share: Annotated[
        float, typer.Option(help="Of the unpruned context, what the provider's prompt cache would serve.")
    ] = 0.0,
    cached_price: Annotated[float | None, typer.Option(help="Of a million cached input tokens.")] = None,
    speeds: Annotated[
        str | None, typer.Option(metavar="READ,WRITE", help="Tokens a second of the generator, for the waiting times.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="That the bill is of.")] = 1000,
) -> None:
    """What compression saves or costs, answers included, and how far each figure can move before nothing is saved."""
    from ctxprune.eval.break_even import Workload, table

    input_price, output_price = _pair(prices, "--prices")
    tokens_before, tokens_after = _pair(tokens, "--tokens")
    output_before, output_after = _pair(output, "--output")
    prefill, decode = (None, None) if speeds is None else _pair(speeds, "--speeds")
    work = Workload(
        input_price=input_price,
        output_price=output_price,
        tokens_before=tokens_before,
        tokens_after=tokens_after,
        output_before=output_before,
        output_after=output_after,
        compress_seconds=seconds,
        machine_hour=machine_hour,
        other_tokens=other_tokens,
        cached_share=cached_share,
        cached_price=cached_price,
        prefill=prefill,
        decode=decode,
    )
    sys.stdout.write(table(work, requests=requests))


def _read_settings(path: Path | None) -> dict[str, Any]:
    from ctxprune.eval.config import read_settings

    return read_settings(path) if path else {}


def _merge_data(settings: dict[str, Any], paths: Sequence[str] | None, changes: dict[str, Any]) -> None:
    """Files from the flags replace those of the settings; limits and retrievers from the flags go for each."""
    if paths:
        settings["data"] = [{"path": path} for path in paths]
    if not settings.get("data"):
        raise typer.BadParameter("give questions: --data FILE, or a CONFIG.yaml with data:")
    settings["data"] = [{**each, **changes} for each in settings["data"]]


def _merge_compressors(settings: dict[str, Any], names: Sequence[str] | None, grid: dict[str, Any]) -> None:
    if names:
        settings["compressors"] = [_compressor(name) for name in names]
    if any(grid.values()):
        settings["compressors"] = [{**each, **grid} for each in settings.get("compressors", ())]


def _compressor(name: str) -> dict[str, Any]:
    """A name, or names joined by "+" for a chain; a folder may have a "+" in its name."""
    steps = [name] if Path(name).exists() else name.split("+")
    return {"name": name, "chain": [{"name": step} for step in steps]}


def _generator(spec: str, base_url: str | None, api_key_env: str | None) -> dict[str, Any]:
    kind, _, model = spec.partition(":")
    if kind not in ("none", "local", "openai") or (kind != "none") != bool(model):
        raise InputError(f"--generator must be none, local:PATH_OR_ID or openai:MODEL, got {spec!r}")
    fields = {"kind": kind, "model": model or None, "base_url": base_url, "api_key_env": api_key_env}
    return {name: value for name, value in fields.items() if value is not None}


def _numbers(text: str | None, flag: str) -> list[float]:
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{flag} must be numbers with commas between, got {text!r}") from None


def _pair(text: str, flag: str) -> tuple[float, float]:
    numbers = _numbers(text, flag)
    if len(numbers) != 2:
        raise InputError(f"{flag} takes two numbers with a comma between them, got {text!r}")
    return numbers[0], numbers[1]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _cache(path: Path | None) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return path or base / "ctxprune" / "eval.sqlite"
