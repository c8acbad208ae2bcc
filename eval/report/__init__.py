"""Write the report of a finished run into its folder: leaderboard.md, plots/*.png and report.html."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.eval.report.folder import open_run
from ctxprune.eval.report.html import page
from ctxprune.eval.report.leaderboard import leaderboard
from ctxprune.eval.report.plots import Plot, draw, require_matplotlib
from ctxprune.eval.report.samples import MOST_CASES, digest
from ctxprune.eval.run.folder import write_whole


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
