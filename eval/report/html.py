"""The report of a finished run: leaderboard.md, plots/*.png, and report.html, a page of its own.

The page has no script, loads nothing, and every text of the run is in it as text.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.eval.break_even import Price
from ctxprune.eval.report.folder import (
    TOKENS_OF,
    Row,
    Run,
    by_dataset,
    is_tested,
    label,
    metric_names,
    open_run,
    score_name,
    show_interval,
)
from ctxprune.eval.report.leaderboard import (
    Board,
    Cell,
    bill_board,
    board,
    differences,
    generator_line,
    in_short,
    leaderboard,
    mixed_models,
    reading,
    speed_board,
    speed_note,
    standings,
)
from ctxprune.eval.report.plots import Plot, draw, require_matplotlib, slugs
from ctxprune.eval.report.samples import MOST_CASES, Digest, digest, question, safe
from ctxprune.eval.run.folder import write_whole

# Kept text has a bar under it, removed text is struck through; wins and losses are words too.
STYLE = """
:root { --ink: #1b2330; --faint: #5b6576; --line: #d9dee7; --paper: #ffffff; --card: #f5f7fa; --keep: #0b7a53;
  --keep-fill: #e3f5ec; --loss: #a3280a; --win: #0b6b49; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --faint: #a3adbd; --line: #343c4a; --paper: #14181f;
  --card: #1b212b; --keep: #5ad1a0; --keep-fill: #12352a; --loss: #ff9d7e; --win: #5ad1a0; --link: #7db8ff; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p { max-width: 60rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; list-style: none; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; box-sizing: border-box; width: fit-content; max-width: 100%; margin: .6rem 0;
  border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; min-width: 11rem; max-width: 18rem; white-space: normal;
  overflow-wrap: break-word; position: sticky; left: 0; background: var(--paper); }
thead th { white-space: normal; min-width: 3.5rem; color: var(--faint); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
th.tested { font-weight: 700; }
tbody th.baseline { padding-left: 1.6rem; color: var(--faint); }
.short { font-size: 1.1rem; font-weight: 600; }
td.win { color: var(--win); }
td.loss { color: var(--loss); font-weight: 600; }
.said, thead th.said { text-align: left; }
td.said { white-space: pre-wrap; min-width: 14rem; max-width: 30rem; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 0; padding: .5rem; background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: #5b6576; font-size: .87rem; text-align: center; }
@media (prefers-color-scheme: dark) { figure { background: #14181f; } figcaption { color: var(--faint); }
  /* white becomes the page's black, colours keep their hue */
  figure img { filter: invert(.92) hue-rotate(180deg); } }
details { margin: .5rem 0; border: 1px solid var(--line); border-radius: .5rem; padding: 0 .8rem; }
details[open] { padding-bottom: .5rem; }
summary { padding: .5rem 0; cursor: pointer; overflow-wrap: anywhere; }
small { color: var(--faint); font-size: .87rem; }
.case { background: var(--card); }
.document, .case table { background: var(--paper); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.badge { font-size: .8rem; border: 1px solid currentColor; border-radius: .3rem; padding: 0 .35rem;
  color: var(--faint); }
.badge.loss { color: var(--loss); }
mark { color: inherit; background: var(--keep-fill); border-bottom: 2px solid var(--keep); }
del { color: var(--faint); text-decoration: line-through; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; font-size: .85rem; }
code { overflow-wrap: anywhere; font-size: .9em; }
@media (max-width: 40rem) { main { padding: .8rem; } th:first-child { min-width: 7.5rem; max-width: 9rem; }
  th, td { padding: .3rem .5rem; } td.said { min-width: 10rem; } }
@media print { .scroll { overflow: visible; } }
"""


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

    digests: see `samples.digest`. plots: drawn into `folder`.
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
        yield from _bill(rows, run)
        yield from _questions(run, rows, digests[dataset])
        yield "</section>\n"
    yield from _origin(run)
    yield "</main>\n</body>\n</html>\n"


def _opening(run: Run, datasets: Mapping[str, Sequence[Row]], anchors: Mapping[str, str]) -> Iterator[str]:
    tested = dict.fromkeys(row["compressor"] for rows in datasets.values() for row in rows if is_tested(row))
    yield f"<h1>Benchmark run {safe(run.id)}</h1>\n"
    if warning := mixed_models(run.results):
        yield f'<p class="short">{safe(warning)}</p>\n'
    yield f'<p class="short">{safe(in_short(run.results))}</p>\n'
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


def _bill(rows: Sequence[Row], run: Run) -> Iterator[str]:
    bill = bill_board(rows, run.results)
    if bill.rows:
        yield "<h3>What do 1,000 questions cost?</h3>\n"
        yield _table(bill, "Bill of 1,000 questions, with and without compression")


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
        f'<tr><th scope="row" class="{cells[0].tone}">{_arm(cells[0])}</th>'
        + "".join(f'<td class="{cell.tone}">{safe(cell.text)}</td>' for cell in cells[1:])
        + "</tr>\n"
        for cells in found.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{safe(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _arm(cell: Cell) -> str:
    """The first cell of a row. Baselines stand below the arm whose tokens they were given, so they need not name it."""
    if cell.tone != "baseline":
        return safe(cell.text)
    name = cell.text.partition(f" {TOKENS_OF}=")[0]
    return f'<span title="{safe(cell.text)}">{safe(name)} <small>at its tokens</small></span>'


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{safe(title)}</summary>{body}</details>\n"


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
