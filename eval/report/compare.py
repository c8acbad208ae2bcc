"""Hold two finished runs side by side, paired where both had the same questions; list the runs of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ctxprune.errors import InputError
from ctxprune.eval.config import REFERENCES
from ctxprune.eval.report import markdown
from ctxprune.eval.report.folder import (
    RESULTS,
    Row,
    Run,
    Scores,
    by_dataset,
    headlines,
    label,
    mean,
    number,
    open_run,
    read_scores,
    show,
    show_interval,
    started,
)
from ctxprune.eval.statistics import difference_interval
from ctxprune.text import model_text

#: Settings that change the figures of every arm, so a difference is a warning and not just a line.
_DECIDING = ("template", "closed_book_template", "generator", "judge", "tokenizer", "statistics")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A dataset of both runs. scores: of the first and second run, () when the questions are not the same."""

    rows: tuple[tuple[Row, Row], ...]
    metrics: tuple[str, ...]
    scores: tuple[Scores, ...]


def compare(first: Path | str, second: Path | str) -> str:
    """Markdown: the arms of both runs with their differences, the arms of one alone, and what makes them differ.

    Differences are second minus first. They are paired by question, with a bootstrap interval, where the data hashes
    and the questions agree; else they are differences of means, without an interval, and the text says so.
    Raises InputError for a folder that holds no finished run.
    """
    runs = open_run(first), open_run(second)
    datasets = tuple(by_dataset(run.results) for run in runs)
    shared = [name for name in datasets[0] if name in datasets[1]]
    metrics = {name: headlines(row for each in datasets for row in each[name]) for name in shared}
    same = {name: metrics[name] for name in shared if _same_data(runs, name)}
    scores = tuple(read_scores(run, same) for run in runs) if same else ({}, {})
    parts = [f"# {markdown.plain(runs[0].id)} and {markdown.plain(runs[1].id)}", _reading(runs), *_warnings(runs)]
    for name in shared:
        paired = tuple(each[name] for each in scores) if name in same else ()
        pair = _Pair(tuple(_both(*(each[name] for each in datasets))), tuple(metrics[name]), paired)
        parts += [f"## {markdown.plain(name)}", *_dataset(pair, runs)]
    return model_text("\n\n".join([*parts, *_alone(runs, datasets)]) + "\n")


def ls(folder: Path | str) -> str:
    """The runs in a folder as a Markdown table, the newest first; one that is unfinished or broken is listed as such.

    Raises InputError when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds the runs, such as runs")
    runs = sorted((path for path in folder.iterdir() if path.is_dir() and started(path)), key=lambda path: path.name)
    if not runs:
        return f"No runs in {folder}.\n"
    rows = [_listed(path) for path in sorted(runs, key=_moment, reverse=True)]
    return markdown.table(("run", "date (UTC)", "datasets", "compressors", "n", "finished"), rows) + "\n"


def _listed(path: Path) -> list[str]:
    date = datetime.fromtimestamp(_moment(path), UTC).strftime("%Y-%m-%d %H:%M")
    try:
        rows = open_run(path).results["rows"] if (path / RESULTS).is_file() else None
    except InputError as error:
        return [markdown.code(path.name), date, "", "", "", f"broken: {error}"]
    if rows is None:
        return [markdown.code(path.name), date, "", "", "", "no"]
    datasets = {row["dataset"]: row["n"] for row in rows}
    names = dict.fromkeys(row["compressor"] for row in rows if row["compressor"] not in REFERENCES)
    return [
        markdown.code(path.name),
        date,
        ", ".join(map(markdown.plain, datasets)),
        ", ".join(map(markdown.plain, names)),
        ", ".join(f"{n:,}" for n in datasets.values()),
        "yes",
    ]


def _moment(path: Path) -> float:
    """When the run was finished; of one that is not, when its folder last changed."""
    results = path / RESULTS
    return (results if results.is_file() else path).stat().st_mtime


def _reading(runs: Sequence[Run]) -> str:
    return (
        f"A is {markdown.code(str(runs[0].path))}, B is {markdown.code(str(runs[1].path))}. Differences are B − A; "
        "scores are percentages, seconds seconds. Win: B is better beyond its interval; loss: A is."
    )


def _same_data(runs: Sequence[Run], dataset: str) -> bool:
    hashes = [run.results.get("data_hashes", {}).get(dataset) for run in runs]
    return hashes[0] is not None and hashes[0] == hashes[1]


def _both(first: Sequence[Row], second: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    others = {row["arm"]: row for row in second}
    return ((row, others[row["arm"]]) for row in first if row["arm"] in others)


def _dataset(pair: _Pair, runs: Sequence[Run]) -> Iterator[str]:
    if not pair.rows:
        yield "The runs share no arm here."
        return
    paired = bool(pair.scores) and pair.scores[0].questions == pair.scores[1].questions
    if not paired:
        yield (
            "**Not paired**: the runs had other questions here (their data hashes or questions differ), so these are "
            "differences of means, without intervals and without verdicts."
        )
    settings = runs[0].results.get("statistics", {})
    lines = [
        _line(rows, metric, pair.scores if paired else (), settings) for rows in pair.rows for metric in pair.metrics
    ]
    sizes = [_line(rows, "tokens_after", (), settings) for rows in pair.rows]
    yield markdown.table(("arm", "metric", "A", "B", "B − A", "verdict"), [*lines, *sizes])


def _line(rows: tuple[Row, Row], metric: str, scores: Sequence[Scores], settings: Mapping[str, Any]) -> list[str]:
    arm = rows[0]["arm"]
    head = [markdown.code(arm), label(metric)]
    if metric == "tokens_after":
        sizes = [number(row["tokens_after"]) for row in rows]
        return [*head, *(show(metric, size) for size in sizes), show(metric, sizes[1] - sizes[0], signed=True), ""]
    cells = [show_interval(metric, row["metrics"].get(metric)) for row in rows]
    if not scores:
        return [*head, *cells, show(metric, mean(rows[1], metric) - mean(rows[0], metric), signed=True), "–"]
    found = difference_interval(
        scores[1].values(arm, metric),
        scores[0].values(arm, metric),
        rng=np.random.default_rng(settings.get("seed", 0)),
        resamples=settings.get("resamples", 2000),
        confidence=settings.get("confidence", 0.95),
    )
    figure = asdict(found) | {"difference": found.mean}
    verdict = "–" if found.verdict == "none" else found.verdict.replace("loss", "**loss**")
    return [*head, *cells, show_interval(metric, figure, centre="difference"), verdict]


def _alone(runs: Sequence[Run], datasets: Sequence[Mapping[str, Sequence[Row]]]) -> Iterator[str]:
    """The arms that only one of the runs has, with their figures."""
    for name, mine, others in (("A", datasets[0], datasets[1]), ("B", datasets[1], datasets[0])):
        lines = []
        for dataset, rows in mine.items():
            known = {row["arm"] for row in others.get(dataset, ())}
            lines += [
                [markdown.code(row["arm"]), markdown.plain(dataset), label(metric), _figure(row, metric)]
                for row in rows
                if row["arm"] not in known
                for metric in (*headlines(rows), "tokens_after")
            ]
        if lines:
            yield f"## Only in {name}"
            yield markdown.table(("arm", "dataset", "metric", name), lines)


def _figure(row: Row, metric: str) -> str:
    if metric == "tokens_after":
        return show(metric, row["tokens_after"])
    return show_interval(metric, row["metrics"].get(metric))


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    """What differs between the runs but for the results, the weighty first."""
    found = [
        f"the data of {markdown.plain(name)} differ (hashes {a} and {b})"
        for name, a, b in _differing(runs, "data_hashes")
    ]
    found += [f"{markdown.plain(name)}: {a} and {b}" for name, a, b in _differing(runs, "versions")]
    settings = list(_settings_differing(runs))
    weighty = [each for each in settings if each[0].split(".")[0] in _DECIDING]
    found += [f"{markdown.plain(name)}: {a} and {b}" for name, a, b in weighty]
    found += [
        f"run {name} has no config.yaml, so its settings are not known"
        for name, run in zip("AB", runs, strict=True)
        if not run.config
    ]
    if found:
        yield "\n".join(
            ["**Warning**: the runs differ in more than their results:", "", *(f"- {each}" for each in found)]
        )
    if rest := [each for each in settings if each not in weighty]:
        yield "\n".join(
            ["Other settings that differ:", "", *(f"- {markdown.plain(name)}: {a} and {b}" for name, a, b in rest)]
        )


def _differing(runs: Sequence[Run], title: str) -> Iterator[tuple[str, str, str]]:
    first, second = (run.results.get(title, {}) for run in runs)
    # a dataset of one run alone is shown below and nothing to warn of
    names = [name for name in first if name in second] if title == "data_hashes" else sorted({*first, *second})
    return _pairs(first, second, names)


def _settings_differing(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    if not all(run.config for run in runs):
        return iter(())
    first, second = (dict(_flat(_yaml(run))) for run in runs)
    return _pairs(first, second, list(dict.fromkeys([*first, *second])))


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(name, value in A, value in B) of what differs; "not set" where there is none."""
    for name in names:
        if first.get(name) != second.get(name):
            a, b = (markdown.code(repr(each[name])) if name in each else "not set" for each in (first, second))
            yield name, a, b


def _yaml(run: Run) -> Any:
    yaml = import_module("yaml")
    try:
        return yaml.safe_load(run.config)
    except yaml.YAMLError as error:
        raise InputError(f"{run.path / 'config.yaml'} is not YAML: {error}; write the file anew") from None


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested settings by its dotted name."""
    if isinstance(settings, dict | list):
        items = settings.items() if isinstance(settings, dict) else enumerate(settings)
        for name, each in items:
            yield from _flat(each, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, settings
