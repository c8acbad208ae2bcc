"""The leaderboard of a run: per dataset one table of arms with intervals and marks, as cells and as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ctxprune.eval.break_even import (
    BreakEven,
    Line,
    Point,
    Price,
    Speed,
    Workload,
    bills,
    break_even,
    break_even_at,
    break_even_speed,
    can_fit,
    fit_line,
    frontier,
)
from ctxprune.eval.config import GOLD, GOLD_DOCUMENTS
from ctxprune.eval.report import markdown
from ctxprune.eval.report.folder import (
    RERANK,
    Results,
    Row,
    by_dataset,
    headlines,
    is_baseline,
    is_tested,
    label,
    mean,
    number,
    removed,
    score_name,
    show,
    show_interval,
)
from ctxprune.eval.report.samples import Digest, Pair
from ctxprune.eval.statistics import Interval
from ctxprune.text import model_text

Tone: TypeAlias = Literal["", "win", "tie", "loss", "tested", "baseline"]
_AGAINST = {"vs_full": "full", "vs_rerank": "rerank"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one place of the table says; tone: good or bad news, or whose name it is: a tested arm's or a baseline's."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A table: one head a column, the first column names the arm (`Row["arm"]`)."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def leaderboard(results: Results) -> str:
    """All datasets as Markdown. The same results give the same text; no row is left out."""
    parts = ["# Leaderboard", markdown.plain(in_short(results)), reading(results)]
    if warning := mixed_models(results):
        parts.insert(1, f"**{markdown.plain(warning)}**")
    if tally := standings(results):
        parts += ["## Wins, ties and losses", _markdown(tally)]
    for dataset, rows in by_dataset(results).items():
        parts += [f"## {markdown.plain(dataset)}", _markdown(board(rows, results))]
        if (rest := differences(rows, results)).rows:
            parts += ["Differences of the other metrics:", _markdown(rest)]
        if (bill := bill_board(rows, results)).rows:
            parts += ["What 1,000 questions cost:", _markdown(bill)]
    return model_text("\n\n".join([*parts, *_origin(results)]) + "\n")


def board(rows: Sequence[Row], results: Results) -> Board:
    """The table of one dataset: sizes, every headline metric, and the differences of the score."""
    names, score = headlines(rows), score_name(rows)
    best = {point.name for point in frontier(_points(rows, score))}
    rest = [name for name in names if name != score]
    head = ("arm", "n", "tokens", "removed %", label(score), *_against(score), *map(label, rest), "Pareto")
    return Board(head, tuple(tuple(_cells(row, score, rest, best, results)) for row in rows))


def _cells(row: Row, score: str, rest: Sequence[str], best: set[str], results: Results) -> Iterator[Cell]:
    before, after = (show("tokens_after", row[key]) for key in ("tokens_before", "tokens_after"))
    yield Cell(row["arm"], "tested" if is_tested(row) else "baseline" if is_baseline(row) else "")
    yield Cell(f"{row['n']:,}")
    yield Cell(f"{before} → {after}")
    yield Cell(show("removed", removed(row)))
    yield Cell(show_interval(score, row["metrics"].get(score)))
    yield from (difference(row, against, score, results) for against in _AGAINST)
    yield from (Cell(show_interval(name, row["metrics"].get(name))) for name in rest)
    yield Cell("yes" if row["arm"] in best else "")


def differences(rows: Sequence[Row], results: Results) -> Board:
    """The differences of the headline metrics but the score; only arms that have one."""
    names = [name for name in headlines(rows) if name != score_name(rows)]
    found = [[difference(row, against, name, results) for name in names for against in _AGAINST] for row in rows]
    lines = [(Cell(row["arm"]), *cells) for row, cells in zip(rows, found, strict=True) if any(c.tone for c in cells)]
    return Board(("arm", *(head for name in names for head in _against(name))), tuple(lines))


def difference(row: Row, against: str, metric: str, results: Results) -> Cell:
    """The paired difference with its interval, its verdict, † when significant after Holm, ‡ when non-inferior.

    against: "vs_full" or "vs_rerank".
    """
    figure: Mapping[str, Any] = row[against].get(metric, {})
    tone = verdict(figure)
    if not tone:
        return Cell("–")
    p_holm = number(figure.get("p_holm"))
    marks = " †" * (p_holm < 1 - _statistic(results, "confidence", 0.95)) + " ‡" * bool(figure.get("non_inferior"))
    return Cell(f"{show_interval(metric, figure, centre='difference')} {tone}{marks}", tone)


def verdict(figure: Mapping[str, Any]) -> Tone:
    """ "win" when the interval of the difference lies above 0, "loss" below, else "tie"; "" when not measured."""
    if not figure or math.isnan(number(figure["difference"])):
        return ""
    middle, low, high = (number(figure[key]) for key in ("difference", "low", "high"))
    found = Interval(middle, low, high, 1).verdict
    return "win" if found == "win" else "loss" if found == "loss" else "tie"


def standings(results: Results) -> Board | None:
    """How often each tested arm wins, ties and loses over the datasets, by each dataset's score; None without any.

    A column for the full context and for every baseline at equal tokens.
    """
    counts = _counts(results)
    if not counts:
        return None
    names = list(dict.fromkeys(name for tallies in counts.values() for name in tallies))
    lines = [(Cell(arm), *(_tally(tallies.get(name, Counter())) for name in names)) for arm, tallies in counts.items()]
    return Board(("arm", *(f"against {name}: win / tie / loss" for name in names)), tuple(lines))


def _counts(results: Results) -> dict[str, dict[str, Counter[str]]]:
    """Verdicts by tested arm, then by what it is compared with; what is compared with nothing has no counts."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for rows in by_dataset(results).values():
        score = score_name(rows)
        for row in filter(is_tested, rows):
            tallies = counts.setdefault(row["arm"], {name: Counter() for name in _AGAINST.values()})
            others = {name: row[against] for against, name in _AGAINST.items()}
            baselines = row.get("vs_baselines", {})
            others |= {name: figures for name, figures in baselines.items() if name != RERANK}
            for name, figures in others.items():
                if found := verdict(figures.get(score, {})):
                    tallies.setdefault(name, Counter())[found] += 1
    return counts


def _tally(tally: Mapping[str, int]) -> Cell:
    found = [tally.get(name, 0) for name in ("win", "tie", "loss")]
    return Cell(" / ".join(map(str, found)) if any(found) else "–")


def in_short(results: Results) -> str:
    """The run in one line: how often the tested arms win and lose, and how much of the tokens they remove."""
    tested = [row for rows in by_dataset(results).values() for row in filter(is_tested, rows)]
    if not tested:
        return "Nothing was tested in this run."
    total: dict[str, Counter[str]] = {}
    for tallies in _counts(results).values():
        for name, tally in tallies.items():
            total.setdefault(name, Counter()).update(tally)
    parts = [
        f"against {'the full context' if name == 'full' else name + ' at equal tokens'} {_phrase(tally)}"
        for name, tally in total.items()
        if tally
    ]
    shares = [share for row in tested if not math.isnan(share := removed(row))]
    went = f"{100 * min(shares):.0f} to {100 * max(shares):.0f}% of the tokens removed" if shares else ""
    return "In short: " + "; ".join([*parts, *([went] if went else [])] or ["nothing was measured"]) + "."


def mixed_models(results: Results) -> str:
    """A warning where an endpoint's answers came from several models; "" else. Cached answers of earlier runs count."""
    models = results.get("answered_by", ())
    if len(models) < 2:
        return ""
    return (
        f"Answers came from {len(models)} models: {', '.join(models)}. A difference between arms may be one between "
        "models: name one of them as the model, with a date or revision, and run again."
    )


def _phrase(tally: Mapping[str, int]) -> str:
    counted = [
        (tally.get(name, 0), name, many) for name, many in (("win", "wins"), ("tie", "ties"), ("loss", "losses"))
    ]
    return ", ".join(f"{number} {name if number == 1 else many}" for number, name, many in counted)


def reading(results: Results) -> str:
    """How to read the tables, with this run's confidence and margin."""
    confidence, margin = _statistic(results, "confidence", 0.95), _statistic(results, "margin", 0.01)
    return (
        f"Scores are percentages, tokens means of a question. Brackets hold {confidence:.0%} bootstrap intervals over "
        "questions. Differences are in points, paired by question, against the full context and against "
        "rerank-then-truncate at the same tokens; win or loss: the interval excludes 0. "
        f"† significant after Holm's correction. ‡ non-inferior: worse by less than {100 * margin:g} points. "
        "Pareto: no other arm but the two of gold scores as much with fewer tokens. gold: only the labelled relevant "
        "text, an upper reference; gold-documents: the documents that hold it, whole. tokens_of: given, question by "
        "question, the tokens of the arm named. –: not measured."
    )


def _points(rows: Sequence[Row], score: str) -> list[Point]:
    """gold and gold-documents know the answers, so they beat nobody."""
    fair = [row for row in rows if row["arm"] not in (GOLD, GOLD_DOCUMENTS)]
    return [Point(row["arm"], number(row["tokens_after"]), mean(row, score)) for row in fair]


def _against(metric: str) -> list[str]:
    return [f"{label(metric)} vs {name}" for name in _AGAINST.values()]


def _statistic(results: Results, name: str, default: float) -> float:
    return float(results.get("statistics", {}).get(name, default))


def _markdown(found: Board) -> str:
    lines = [[markdown.code(cells[0].text), *(_strong(cell) for cell in cells[1:])] for cells in found.rows]
    return markdown.table(found.head, lines)


def _strong(cell: Cell) -> str:
    return cell.text.replace("loss", "**loss**") if cell.tone == "loss" else cell.text


def _origin(results: Results) -> Iterator[str]:
    """What makes the figures repeatable: hashes, versions and the bootstrap's settings."""
    lines = [f"- config: {markdown.code(str(results.get('config_hash', 'unknown')))}"]
    for title in ("data_hashes", "versions", "statistics"):
        pairs = sorted(results.get(title, {}).items())
        shown = (f"{markdown.plain(str(name))} {markdown.code(str(value))}" for name, value in pairs)
        lines.append(f"- {label(title)}: {', '.join(shown) or 'unknown'}")
    yield "## Origin"
    yield "\n".join(lines)


BILL = (
    *("arm", "context", "answers", "compressor", "total", "saved %"),
    *("tokens of an answer", "nothing saved at"),
)
HEAD = (
    "arm",
    "removed %",
    "compress, s per 1,000 tokens",
    "fixed s per call",
    "gains below, tokens/s",
    "break-even tokens",
)


def generator_line(found: Digest) -> Line | None:
    """Seconds of a generation over the tokens it read, all arms; None when no generator was timed at two lengths.

    Answers of other lengths are part of the scatter: they take time too, and are not modelled.
    """
    return _fit(found.read)


def speed_board(rows: Sequence[Row], found: Digest, price: Price | None = None) -> Board:
    """One line a tested arm that was timed: its costs, and from where it gains time; see `break_even.break_even`.

    price: adds from where it saves money.
    """
    line = generator_line(found)
    head = HEAD if price is None else (*HEAD, "break-even tokens by price")
    rows = [row for row in rows if is_tested(row) and _timed(row)]
    return Board(head, tuple(tuple(_speed_cells(row, found, line, price)) for row in rows))


def bill_board(rows: Sequence[Row], results: Results) -> Board:
    """What 1,000 questions cost, the full context's first; no lines without a price and without the full context.

    Answers cost what their tokens do, so longer ones show. The last column: of how many tokens an answer would have to
    be for nothing to be saved.
    """
    full = next((row for row in rows if row["arm"] == "full"), None)
    price = results.get("price")
    if full is None or not price:
        return Board(BILL, ())
    lines = [_bill_cells(full, full, price)]
    return Board(BILL, (*lines, *(_bill_cells(row, full, price) for row in rows if is_tested(row) and _timed(row))))


def _bill_cells(row: Row, full: Row, price: Mapping[str, Any]) -> tuple[Cell, ...]:
    before, after = (_or_zero(mean(each, "answer_tokens")) for each in (full, row))
    work = Workload(
        input_price=price["per_million_tokens"],
        output_price=price.get("per_million_output_tokens") or 0.0,
        tokens_before=number(full["tokens_after"]),
        tokens_after=number(row["tokens_after"]),
        output_before=before,
        output_after=after,
        compress_seconds=0.0 if row is full else mean(row, "compress_seconds"),
        machine_hour=price["per_compute_hour"],
    )
    without, mine = bills(work)
    parts = [f"{1000 * part:.4g}" for part in (mine.context, mine.output, mine.compressor, mine.money)]
    if row is full:
        return (Cell(row["arm"]), *map(Cell, parts), Cell(""), Cell(f"{before:.0f}"), Cell(""))
    limit = break_even_at(work, "output_after")
    last = Cell("–" if limit is None else f"{limit:,.0f}")
    return (Cell(row["arm"]), *map(Cell, parts), _saved(without.money, mine.money), Cell(f"{after:.0f}"), last)


def _saved(without: float, mine: float) -> Cell:
    share = 1 - mine / without if without else 0.0
    return Cell(f"{100 * share:.1f}", "win" if share > 0 else "loss" if share < 0 else "tie")


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def speed_note(line: Line | None) -> str:
    """What the generator's speed was found to be."""
    if line is None:
        return "No generator was timed, so no break-even length; compressing gains time where reading is slower."
    low, middle, high = (f"{1000 * value:.4g}" for value in (line.low, line.slope, line.high))
    text = f"The generator took {middle} [{low}, {high}] s per 1,000 tokens read (least squares, {line.n:,} answers)"
    if line.low <= 0:
        return f"{text}; the interval reaches 0, so no break-even length can be told."
    return f"{text}."


def costs(row: Row, pairs: Sequence[Pair]) -> tuple[float, float]:
    """(seconds a token, fixed seconds a call) of an arm's compressor.

    From a line through the samples where both come out positive; else all time is put down to the tokens, which is
    what questions of much the same length allow to say.
    """
    line = _fit(pairs)
    if line is not None and line.low > 0 and line.intercept > 0:
        return line.slope, line.intercept
    return mean(row, "compress_seconds") / number(row["tokens_before"]), 0.0


def _speed_cells(row: Row, found: Digest, line: Line | None, price: Price | None) -> Iterator[Cell]:
    share = removed(row)
    token, fixed = costs(row, found.compressed.get(row["arm"], ()))
    yield Cell(row["arm"])
    yield Cell(show("removed", share))
    yield Cell(f"{1000 * token:.4g}")
    yield Cell(f"{fixed:.4g}")
    speed = break_even_speed(removed=share, seconds_per_token=token)
    yield Cell("never" if speed is None else f"{speed:,.0f}")
    if line is None or line.low <= 0:
        yield Cell("–")
    else:
        yield _length(break_even(Speed(1 / line.slope), removed=share, seconds_per_token=token, fixed_seconds=fixed))
    if price is not None:
        yield _length(break_even(price, removed=share, seconds_per_token=token, fixed_seconds=fixed))


def _length(found: BreakEven) -> Cell:
    return Cell("never" if found.tokens is None else "any" if found.tokens < 1 else f"{found.tokens:,.0f}")


def _timed(row: Row) -> bool:
    return mean(row, "compress_seconds") > 0 and number(row["tokens_before"]) > 0 and not math.isnan(removed(row))


def _fit(pairs: Sequence[Pair]) -> Line | None:
    tokens, seconds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return fit_line(tokens, seconds) if can_fit(tokens) else None
