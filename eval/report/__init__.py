"""Write the report of a finished run, leaderboard.md, plots/*.png and report.html, and its samples for RAGAS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.eval.report.folder import open_run
from ctxprune.eval.report.html import page
from ctxprune.eval.report.leaderboard import leaderboard
from ctxprune.eval.report.plots import Plot, draw, require_matplotlib
from ctxprune.eval.report.samples import MOST_CASES, digest
from ctxprune.eval.run.folder import write_whole
from ctxprune.files import write_rows


def write_report(run_folder: Path | str, *, cases: int = MOST_CASES) -> None:
    """Write leaderboard.md, plots/*.png and report.html, each whole or not at all; older ones are replaced.

    cases: questions to show a dataset, those with the largest loss; memory grows with these alone.
    Raises InputError for a folder that holds no finished run, a broken file or a folder that cannot be written, and
    MissingExtraError without matplotlib, before anything is written.
    """
    if cases < 0:
        raise InputError(f"cases must be zero or more, got {cases}")
    require_matplotlib()
    run = open_run(run_folder)
    digests = digest(run, most=cases)
    try:
        with tempfile.TemporaryDirectory(prefix=".report-", dir=run.path) as name:
            drawn = Path(name)
            plots = draw(run.results, drawn)
            _write(drawn / "report.html", page(run, digests, plots, drawn))
            write_whole(run.path / "leaderboard.md", leaderboard(run.results))
            _move(drawn, run.path, plots)
    except OSError as error:
        message = f"cannot write the report into {run.path}: {error}; free some space or permit writing, and try again"
        raise InputError(message) from None


def _write(path: Path, pieces: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def _move(drawn: Path, folder: Path, plots: Iterable[Plot]) -> None:
    """Into place one by one; on one file system a rename is whole or nothing."""
    (folder / "plots").mkdir(exist_ok=True)
    for plot in plots:
        (drawn / plot.file).replace(folder / "plots" / plot.file)
    (drawn / "report.html").replace(folder / "report.html")


def write_ragas(run_folder: Path | str, path: Path) -> int:
    """Write every sample of a finished run as a line that RAGAS reads, whole or not at all; returns how many.

    A line has user_input, retrieved_contexts (what is left of each document), response where the generator answered,
    reference (the first accepted answer) where there is one, and dataset, arm and id, which RAGAS ignores.
    Raises InputError for a folder that holds no finished run and a file that cannot be written.
    """
    run = open_run(run_folder)
    try:
        return write_rows(path, (_for_ragas(sample) for _, sample in run.samples()))
    except OSError as error:
        path.with_name(path.name + ".part").unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}; name a file where one can be written") from None


def _for_ragas(sample: Mapping[str, Any]) -> dict[str, Any]:
    given = {"response": sample.get("prediction"), "reference": next(iter(sample["answers"]), None)}
    return {
        "user_input": sample["query"],
        "retrieved_contexts": [document["text"] for document in sample["documents"] if document.get("text")],
        **{name: text for name, text in given.items() if text is not None},
        **{name: sample.get(name) for name in ("dataset", "arm", "id")},
    }
