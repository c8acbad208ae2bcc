"""Open the folder of a finished benchmark run: results.json checked field by field, samples.jsonl as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ctxprune.errors import InputError

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
