"""Open the folder of a finished benchmark run: results.json checked field by field, samples.jsonl as a stream."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ctxprune.errors import InputError
from ctxprune.eval.config import REFERENCES

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Sample = Mapping[str, Any]

RESULTS, SAMPLES, CONFIG, ENVIRONMENT = "results.json", "samples.jsonl", "config.yaml", "env.json"

_NUMBER = (int, float, type(None))
_ROW_FIELDS: Mapping[str, tuple[type, ...]] = {
    "dataset": (str,),
    "compressor": (str,),
    "settings": (dict,),
    "arm": (str,),
    "n": (int,),
    "tokens_before": _NUMBER,
    "tokens_after": _NUMBER,
    "metrics": (dict,),
    "vs_full": (dict,),
    "vs_rerank": (dict,),
}
_FIGURE_FIELDS = {"metrics": "mean", "vs_full": "difference", "vs_rerank": "difference"}
_SAMPLE_FIELDS: Mapping[str, tuple[type, ...]] = {"dataset": (str,), "arm": (str,), "query": (str,), "metrics": (dict,)}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run. config: config.yaml as it was written, "" when absent. environment: env.json, {} when absent."""

    path: Path
    results: Results
    config: str
    environment: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def samples(self) -> Iterator[tuple[int, Sample]]:
        """(byte offset of the line, sample) for each line of samples.jsonl, one line in memory at a time.

        Raises InputError for a missing file and for a line that is broken or lacks a field, naming the line.
        """
        with self.open_samples() as lines:
            offset = 0
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield offset, _sample(line, f"{self.path / SAMPLES}:{number}")
                offset += len(line)

    def open_samples(self) -> BinaryIO:
        """samples.jsonl, opened for `read_sample`. Raises InputError when it is missing."""
        try:
            return (self.path / SAMPLES).open("rb")
        except OSError as error:
            message = f"{self.path / SAMPLES} cannot be read ({error.strerror}); run the benchmark again"
            raise InputError(message) from None

    def read_sample(self, lines: BinaryIO, offset: int) -> Sample:
        """The sample of the line that starts at byte `offset`, as `samples` gave it."""
        lines.seek(offset)
        return _sample(lines.readline(), f"{self.path / SAMPLES}, byte {offset}")


def open_run(path: Path | str) -> Run:
    """The run in a folder.

    Raises InputError when the folder is missing, is no run, is not finished (no results.json yet), or when a file in
    it is broken; the message says which file and field, and what to do.
    """
    folder = Path(path)
    results = folder / RESULTS
    if not results.is_file():
        raise InputError(_why_not_finished(folder))
    config = folder / CONFIG
    environment = folder / ENVIRONMENT
    return Run(
        folder,
        check_results(_json(results), where=str(results)),
        config.read_text(encoding="utf-8") if config.is_file() else "",
        _json(environment) if environment.is_file() else {},
    )


def check_results(results: Mapping[str, Any], *, where: str = RESULTS) -> Results:
    """`results` as it came, once every field that the report reads is there.

    Raises InputError that names the row and the field, or the (dataset, arm) that stands twice.
    """
    rows = results.get("rows")
    if not isinstance(rows, list):
        raise InputError(f'{where} needs "rows", a list with one object an arm; got {type(rows).__name__}')
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows):
        _check_fields(row, _ROW_FIELDS, f"{where}, row {number}")
        for field, centre in _FIGURE_FIELDS.items():
            _check_figures(row[field], centre, f"{where}, row {number}, {field}")
        for name, figures in row.get("vs_baselines", {}).items():  # runs of earlier versions have none
            _check_figures(figures, "difference", f"{where}, row {number}, vs_baselines, {name}")
        key = (row["dataset"], row["arm"])
        if key in seen:
            raise InputError(f"{where}, row {number}: dataset {key[0]!r} and arm {key[1]!r} stand twice")
        seen.add(key)
    return results


def started(folder: Path) -> bool:
    """True when a benchmark run has written to the folder, finished or not."""
    return any((folder / name).exists() for name in (RESULTS, SAMPLES, CONFIG))


def _why_not_finished(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder; give the folder of a run, such as runs/ID"
    if started(folder):
        return f"the run in {folder} is not finished: it has no {RESULTS} yet; start the same run again to resume it"
    return f"{folder} is no run: it holds none of {RESULTS}, {SAMPLES}, {CONFIG}; give a folder that `eval run` wrote"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error}); run the benchmark again to write it anew") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def _sample(line: bytes, where: str) -> Sample:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: broken JSON ({error}); start the same run again to write it anew") from None
    _check_fields(found, _SAMPLE_FIELDS, where)
    return cast(Sample, found)


def _check_fields(found: Any, fields: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{where} must be an object, got {type(found).__name__}")
    for name, types in fields.items():
        if name not in found:
            raise InputError(f'{where} lacks the field "{name}"; it was not written by this version of `eval run`')
        if not isinstance(found[name], types) or isinstance(found[name], bool):
            wanted = " or ".join(each.__name__ for each in types)
            raise InputError(f'{where}: "{name}" must be {wanted}, got {found[name]!r:.80}')


def _check_figures(figures: Mapping[str, Any], centre: str, where: str) -> None:
    for name, figure in figures.items():
        _check_fields(figure, dict.fromkeys((centre, "low", "high"), _NUMBER), f"{where}, {name}")


RERANK = "rerank-truncate"
TOKENS_OF = "tokens_of"

#: What a run is judged by, the most telling first: the first that is measured is a dataset's score.
HEADLINES = ("match", "f1", "correct", "answer_in_context", "sentence_recall")

_COUNTS = ("words_before", "words_after", "tokens_before", "tokens_after", "answer_tokens")


def by_dataset(results: Results) -> dict[str, list[Row]]:
    """The rows of each dataset: references, then each tested arm followed by its baselines at equal tokens."""
    found: dict[str, list[Row]] = {}
    for row in results["rows"]:
        found.setdefault(row["dataset"], []).append(row)
    return {dataset: _ordered(rows) for dataset, rows in found.items()}


def _ordered(rows: Sequence[Row]) -> list[Row]:
    matched = [row for row in rows if is_baseline(row)]
    ordered = sorted((row for row in rows if is_reference(row)), key=lambda row: REFERENCES.index(row["arm"]))
    for row in filter(is_tested, rows):
        ordered += [row, *(each for each in matched if each["settings"][TOKENS_OF] == row["arm"])]
    placed = {row["arm"] for row in ordered}
    return ordered + [row for row in matched if row["arm"] not in placed]


def is_reference(row: Row) -> bool:
    return row["arm"] in REFERENCES


def is_baseline(row: Row) -> bool:
    """True for an arm that was given, question by question, the tokens of a tested arm."""
    return TOKENS_OF in row["settings"]


def is_tested(row: Row) -> bool:
    return not is_reference(row) and not is_baseline(row)


def rerank_of(arm: str) -> str:
    """The arm that reranks and truncates to the tokens of `arm`."""
    return f"{RERANK} {TOKENS_OF}={arm}"


def number(value: Any) -> float:
    """A figure as a float; NaN for null."""
    return math.nan if value is None else float(value)


def mean(row: Row, metric: str) -> float:
    """The metric's mean; NaN when it was not measured."""
    return number(row["metrics"].get(metric, {}).get("mean"))


def removed(row: Row) -> float:
    """Share of the tokens that went, 0.9 for nine of ten; NaN when there were none. Negative when tokens were added."""
    before, after = number(row["tokens_before"]), number(row["tokens_after"])
    return 1 - after / before if before > 0 else math.nan


def headlines(rows: Iterable[Row]) -> list[str]:
    """The headline metrics that were measured; `correct` only where it differs from `match`, on unanswerable ones."""
    rows = list(rows)
    refused = _measured(rows, "refusal")
    return [name for name in HEADLINES if _measured(rows, name) and (name != "correct" or refused)]


def score_name(rows: Iterable[Row]) -> str:
    """The metric to plot and rank by: the first measured headline metric, `answer_in_context` when there is none."""
    return next(iter(headlines(rows)), "answer_in_context")


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Every measured metric, in the order of the file."""
    rows = list(rows)
    return [name for name in dict.fromkeys(name for row in rows for name in row["metrics"]) if _measured(rows, name)]


def is_percentage(metric: str) -> bool:
    """True for metrics in [0, 1], shown times 100; False for counts and seconds."""
    return metric not in _COUNTS and not metric.endswith("_seconds")


def show(metric: str, value: Any, *, signed: bool = False) -> str:
    """One figure for a table: 100 times a share, three digits of seconds, whole counts; "–" when not measured."""
    value = number(value)
    if math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    if is_percentage(metric):
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.3f}" if metric.endswith("_seconds") else f"{value:{sign},.0f}"


def show_interval(metric: str, figure: Mapping[str, Any] | None, *, centre: str = "mean") -> str:
    """A figure with its interval, "30.1 [25.0, 35.2]"; differences are signed."""
    if not figure or math.isnan(number(figure[centre])):
        return "–"
    signed = centre == "difference"
    middle, low, high = (show(metric, figure[key], signed=signed) for key in (centre, "low", "high"))
    return f"{middle} [{low}, {high}]"


def label(metric: str) -> str:
    """A metric's name for people: "answer in context"."""
    return metric.replace("_", " ")


def _measured(rows: Sequence[Row], metric: str) -> bool:
    return any(not math.isnan(mean(row, metric)) for row in rows)


class Scores:
    """The metrics of one dataset: a column for each arm and metric, eight bytes a question."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = tuple(metrics)
        self._places: dict[tuple[object, str], int] = {}
        self._columns: dict[tuple[str, str], array[float]] = {}

    @property
    def questions(self) -> list[tuple[object, str]]:
        """(id, text) of each, in the order of the file; two runs can be paired when these are equal."""
        return list(self._places)

    def add(self, key: tuple[object, str], arm: str, metrics: Mapping[str, float | None]) -> None:
        place = self._places.setdefault(key, len(self._places))
        for name in self._metrics:
            column = self._columns.setdefault((arm, name), array("d"))
            column.extend([math.nan] * (place + 1 - len(column)))
            column[place] = number(metrics.get(name))

    def values(self, arm: str, metric: str) -> list[float]:
        """One value a question; NaN where it was not measured or the arm has no line."""
        column = self._columns.get((arm, metric), array("d"))
        return [*column, *[math.nan] * (len(self._places) - len(column))]


def read_scores(run: Run, metrics: Mapping[str, Sequence[str]]) -> dict[str, Scores]:
    """The named metrics of each named dataset, in one pass over samples.jsonl."""
    found = {dataset: Scores(names) for dataset, names in metrics.items()}
    for _, sample in run.samples():
        if sample["dataset"] in found:
            found[sample["dataset"]].add((sample.get("id"), sample["query"]), sample["arm"], sample["metrics"])
    return found
