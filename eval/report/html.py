"""The report of a run as one HTML page: no script, nothing loaded, every text of the run inserted as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ctxprune.eval.report.cases import Digest
from ctxprune.eval.report.folder import Row, Run
from ctxprune.eval.report.leaderboard import Board, Cell, board, differences, reading, standings
from ctxprune.eval.report.pareto import Price
from ctxprune.eval.report.plots import Plot, slugs
from ctxprune.eval.report.question import question, safe
from ctxprune.eval.report.rows import by_dataset, is_tested, label, metric_names, score_name, show_interval
from ctxprune.eval.report.speed import generator_line, speed_board, speed_note
from ctxprune.eval.report.style import STYLE

# the policy makes the page's promise one that the browser keeps
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""


def page(run: Run, digests: Mapping[str, Digest], plots: Sequence[Plot], folder: Path) -> Iterator[str]:
    """The page in pieces, to be written as they come; the questions are read from samples.jsonl one at a time.

    digests: see `report_cases.digest`. plots: drawn into `folder`.
    """
    datasets = by_dataset(run.results)
    anchors = dict(zip(datasets, slugs(list(datasets)), strict=True))
    yield f"{HEAD}<title>{safe(run.id)}: ctxprune benchmark</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
    yield from _opening(run, datasets, anchors)
    for dataset, rows in datasets.items():
        yield f'<section id="{anchors[dataset]}">\n<h2 dir="auto">{safe(dataset)}</h2>\n'
        yield from _tables(rows, run)
        yield from _pictures([plot for plot in plots if plot.dataset == dataset], folder)
        yield from _speed(rows, digests[dataset], _price(run))
        yield from _questions(run, rows, digests[dataset])
        yield "</section>\n"
    yield from _origin(run)
    yield "</main>\n</body>\n</html>\n"


def _opening(run: Run, datasets: Mapping[str, Sequence[Row]], anchors: Mapping[str, str]) -> Iterator[str]:
    tested = dict.fromkeys(row["compressor"] for rows in datasets.values() for row in rows if is_tested(row))
    yield f"<h1>Benchmark run {safe(run.id)}</h1>\n"
    yield f"<p>Tested: {', '.join(f'<code>{safe(name)}</code>' for name in tested) or 'nothing'}.</p>\n"
    links = (f'<li><a href="#{anchors[name]}" dir="auto">{safe(name)}</a></li>' for name in datasets)
    last = '<li><a href="#origin">Settings and versions</a></li>'
    yield f'<nav aria-label="Sections"><ul>{"".join(links)}{last}</ul></nav>\n'
    yield f"<p>{safe(reading(run.results))}</p>\n"
    if (tally := standings(run.results)) is not None:
        yield "<h2>Wins, ties and losses</h2>\n" + _table(tally, "Wins, ties and losses of the tested arms")


def _tables(rows: Sequence[Row], run: Run) -> Iterator[str]:
    yield _table(board(rows, run.results), "Arms with scores and intervals")
    rest = differences(rows, run.results)
    if rest.rows:
        yield _fold("Differences of the other metrics", _table(rest, "Differences of the other metrics"))
    names = metric_names(rows)
    lines = tuple(
        (Cell(row["arm"]), *(Cell(show_interval(name, row["metrics"].get(name))) for name in names)) for row in rows
    )
    yield _fold("All metrics", _table(Board(("arm", *map(label, names)), lines), "All metrics of all arms"))


def _pictures(plots: Sequence[Plot], folder: Path) -> Iterator[str]:
    if plots:
        yield '<div class="plots">'
        for plot in plots:
            image = base64.b64encode((folder / plot.file).read_bytes()).decode("ascii")
            yield f'<figure><img src="data:image/png;base64,{image}" alt="{safe(plot.alt)}">'
            yield f"<figcaption>{safe(plot.title)}</figcaption></figure>\n"
        yield "</div>\n"


def _price(run: Run) -> Price | None:
    given = run.results.get("price")
    return given and Price(given["per_million_tokens"], given["per_compute_hour"] / 3600)


def _speed(rows: Sequence[Row], found: Digest, price: Price | None) -> Iterator[str]:
    times = speed_board(rows, found, price)
    if times.rows:
        yield "<h3>When does it pay?</h3>\n"
        yield f"<p>{safe(speed_note(generator_line(found)))} Measured on the machine of the run.</p>\n"
        yield _table(times, "Costs of compressing and break-even length")


def _questions(run: Run, rows: Sequence[Row], found: Digest) -> Iterator[str]:
    score = score_name(rows)
    yield "<h3>Questions, worst first</h3>\n"
    yield (
        f"<p>{len(found.cases):,} of {found.questions:,} questions are shown, those with the largest loss first: of "
        f"each the tested arm whose {safe(label(score))} falls most below full context or rerank at equal tokens. "
        f"A tested arm lost on {found.lost:,}. The others are in samples.jsonl. "
        "<mark>Kept</mark> and <del>removed</del> text.</p>\n"
    )
    if not found.cases:
        return
    with run.open_samples() as lines:
        for case in found.cases:
            samples = {arm: run.read_sample(lines, offset) for arm, offset in case.offsets.items()}
            yield question(case, samples, score=score)


def _origin(run: Run) -> Iterator[str]:
    yield '<section id="origin">\n<h2>Settings and versions</h2>\n'
    for name in ("command", "commands"):
        if name in run.environment:
            yield f"<h3>Made by</h3>\n<pre>{safe(_plain(run.environment[name]))}</pre>\n"
    yield f"<h3>config.yaml</h3>\n<pre>{safe(run.config or 'The folder holds no config.yaml.')}</pre>\n"
    facts = {
        name: run.results.get(name) for name in ("config_hash", "data_hashes", "versions", "statistics", "timings")
    }
    for name, fact in {**facts, "env.json": run.environment}.items():
        if fact:
            yield _fold(label(name), f"<pre>{safe(_plain(fact))}</pre>")
    yield f"<p>Made again from the files with <code>ctxprune eval report {safe(run.path)}</code>.</p>\n</section>\n"


def _plain(fact: object) -> str:
    return fact if isinstance(fact, str) else json.dumps(fact, indent=2, ensure_ascii=False)


def _table(found: Board, caption: str) -> str:
    head = "".join(f'<th scope="col">{safe(each)}</th>' for each in found.head)
    body = "".join(
        f'<tr><th scope="row" class="{cells[0].tone}">{safe(cells[0].text)}</th>'
        + "".join(f'<td class="{cell.tone}">{safe(cell.text)}</td>' for cell in cells[1:])
        + "</tr>\n"
        for cells in found.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{safe(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{safe(title)}</summary>{body}</details>\n"
