"""From what context length each arm pays for itself in time, from the timings of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ctxprune.eval.report.cases import Digest, Pair
from ctxprune.eval.report.folder import Row
from ctxprune.eval.report.leaderboard import Board, Cell
from ctxprune.eval.report.pareto import BreakEven, Line, Price, Speed, break_even, break_even_speed, can_fit, fit_line
from ctxprune.eval.report.rows import is_tested, mean, number, removed, show

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
    """One line a tested arm that was timed: its costs, and from where it gains time; see `pareto.break_even`.

    price: adds from where it saves money.
    """
    line = generator_line(found)
    head = HEAD if price is None else (*HEAD, "break-even tokens by price")
    rows = [row for row in rows if is_tested(row) and _timed(row)]
    return Board(head, tuple(tuple(_cells(row, found, line, price)) for row in rows))


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


def _cells(row: Row, found: Digest, line: Line | None, price: Price | None) -> Iterator[Cell]:
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
