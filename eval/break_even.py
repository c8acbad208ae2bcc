"""What compression buys: the arms that no other arm beats, the length from which it pays, and the bill of a request.

The bill counts answers too: longer ones can eat what a shorter prompt saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ctxprune.errors import InputError, check_choice


@dataclass(frozen=True, slots=True)
class Point:
    """One arm: mean tokens (or seconds) of a question, fewer is better, and mean score, more is better."""

    name: str
    cost: float
    score: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other point dominates, cheapest first; points with a NaN are left out.

    A point dominates another when it costs no more and scores no less, and is better in one of the two. Equal points
    do not dominate each other, so both stay.
    """
    known = [point for point in points if not (math.isnan(point.cost) or math.isnan(point.score))]
    found: list[Point] = []
    for point in sorted(known, key=lambda point: (point.cost, -point.score)):
        best = found[-1] if found else None
        if best is None or point.score > best.score or (point.cost, point.score) == (best.cost, best.score):
            found.append(point)
    return found


@dataclass(frozen=True, slots=True)
class Speed:
    """Time is what counts: input tokens that the generator reads in a second (prefill)."""

    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Price:
    """Money is what counts: the price of a million input tokens and of a second of the compressor's machine."""

    per_million_tokens: float
    per_compute_second: float


Generator: TypeAlias = Speed | Price


@dataclass(frozen=True, slots=True)
class BreakEven:
    """tokens: the context length from which compression pays, 0.0 when it always does, None when it never does."""

    tokens: float | None
    reason: str


def break_even(
    generator: Generator, *, removed: float, seconds_per_token: float, fixed_seconds: float = 0.0
) -> BreakEven:
    """The number of context tokens from which compressing costs less than it saves.

    For a context of T tokens compression costs (fixed_seconds + seconds_per_token * T) * s and saves removed * T * g,
    where s is the worth of a second and g of an input token: 1 and 1 / tokens_per_second for `Speed`,
    per_compute_second and per_million_tokens / 1e6 for `Price`. The two are equal at

        T = fixed_seconds * s / (removed * g - seconds_per_token * s)

    and there is no such T when the bracket is not positive: each further token then costs as much as it saves, or more.
    The generator is taken to read at one speed, whatever the length; attention makes long prompts slower, so the true
    length is at most this. removed: share of the tokens that go, at most 1; negative when a compressor adds some.
    Raises InputError for a negative or non-finite time or price, and a speed that is not positive.
    """
    _check_costs(generator, removed=removed, seconds_per_token=seconds_per_token, fixed_seconds=fixed_seconds)
    second = 1.0 if isinstance(generator, Speed) else generator.per_compute_second
    token = (
        1 / generator.tokens_per_second if isinstance(generator, Speed) else generator.per_million_tokens / 1_000_000
    )
    saved, spent, fixed = removed * token, seconds_per_token * second, fixed_seconds * second
    unit = "s" if isinstance(generator, Speed) else "in money"
    figures = f"a context token saves {saved:.3g} {unit} of reading and costs {spent:.3g} {unit} to compress"
    if removed <= 0:
        return BreakEven(None, f"nothing is saved: the share of tokens removed is {removed:.1%}")
    if saved <= spent or math.isclose(saved, spent):  # equal but for rounding is equal
        return BreakEven(None, f"{figures}: no length makes up for that")
    tokens = fixed / (saved - spent)
    if not math.isfinite(tokens):
        return BreakEven(None, f"{figures}: the difference is too small to make up for the fixed cost")
    return BreakEven(tokens, figures)


def break_even_speed(*, removed: float, seconds_per_token: float) -> float | None:
    """Tokens per second below which a generator reads slowly enough to gain: removed / seconds_per_token.

    The fixed cost of a call is left out, so this holds for long contexts. None when no generator is slow enough
    (nothing removed); infinity is no answer either: raises InputError unless seconds_per_token is positive.
    """
    if not (math.isfinite(seconds_per_token) and seconds_per_token > 0):
        raise InputError(f"seconds_per_token must be positive, got {seconds_per_token}; measure a compressor that ran")
    return removed / seconds_per_token if removed > 0 else None


def _check_costs(generator: Generator, *, removed: float, seconds_per_token: float, fixed_seconds: float) -> None:
    times = {"seconds_per_token": seconds_per_token, "fixed_seconds": fixed_seconds}
    if isinstance(generator, Speed):
        speed = generator.tokens_per_second
        if not (math.isfinite(speed) and speed > 0):
            raise InputError(f"tokens_per_second must be positive, got {speed}; give the generator's prefill speed")
    else:
        times["per_million_tokens"] = generator.per_million_tokens
        times["per_compute_second"] = generator.per_compute_second
    for name, value in times.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be zero or more and finite, got {value}")
    if not (math.isfinite(removed) and removed <= 1):
        raise InputError(f"removed is a share of the tokens, at most 1, got {removed}")


@dataclass(frozen=True, slots=True)
class Line:
    """seconds = intercept + slope * tokens. slope: seconds a token, with its interval; n: points it was fitted to."""

    slope: float
    low: float
    high: float
    intercept: float
    n: int


def fit_line(tokens: Sequence[float], seconds: Sequence[float], *, confidence: float = 0.95) -> Line:
    """Least squares line through the points; the slope's interval holds where the scatter grows with length.

    The standard error is the heteroscedasticity-consistent one (White 1980) times n / (n - 2), with normal quantiles.
    Raises InputError for fewer than three points, or when all have the same number of tokens.
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(x) != len(y):
        raise InputError(f"tokens and seconds must be equally many, got {len(x)} and {len(y)}")
    if not can_fit(tokens):
        raise InputError(f"a line needs at least three points and two lengths, got {len(x)} points")
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    intercept = float(y.mean() - slope * x.mean())
    residuals = y - intercept - slope * x
    variance = float((centred**2) @ residuals**2) / spread**2 * len(x) / (len(x) - 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    return Line(slope, slope - half, slope + half, intercept, len(x))


def can_fit(tokens: Sequence[float]) -> bool:
    """True when `fit_line` can fit a line to points of these lengths."""
    return len(tokens) >= 3 and min(tokens) < max(tokens)


#: What can be moved until the two bills are equal.
Lever: TypeAlias = Literal["tokens_after", "output_after", "compress_seconds", "machine_hour", "cached_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One request, without and with compression.

    input_price, output_price: of a million tokens. cached_price: of a million input tokens that the provider's prompt
    cache serves (None: input_price). tokens_before, tokens_after: of the context. other_tokens: input tokens that stay
    as they are (system text, question). output_before, output_after: tokens of the answer. compress_seconds: of the
    compressor. machine_hour: price of an hour of its machine. cached_share: of the uncompressed context, the share that
    the prompt cache would serve and that a pruned context cannot use, in [0, 1]. prefill, decode: tokens a second that
    the generator reads and writes (None: no times). Raises InputError for what is negative, not finite or out of range.
    """

    input_price: float
    output_price: float
    tokens_before: float
    tokens_after: float
    output_before: float
    output_after: float
    compress_seconds: float
    machine_hour: float = 0.0
    other_tokens: float = 0.0
    cached_share: float = 0.0
    cached_price: float | None = None
    prefill: float | None = None
    decode: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{field.name} must be zero or more and finite, got {value}")
            if value == 0 and field.name in ("prefill", "decode"):
                raise InputError(f"{field.name} is a speed in tokens a second and must be positive; leave it out")
        if self.cached_share > 1:
            raise InputError(f"cached_share is a share in [0, 1], got {self.cached_share}")


@dataclass(frozen=True, slots=True)
class Bill:
    """One request: money for the context, for other input, for the answer and for the compressor; seconds if known.

    first_token: until the first token of the answer; total: until the last. Each None without the generator's speeds.
    """

    context: float
    other: float
    output: float
    compressor: float
    first_token: float | None
    total: float | None

    @property
    def money(self) -> float:
        return self.context + self.other + self.output + self.compressor


def bills(work: Workload) -> tuple[Bill, Bill]:
    """(without, with) compression."""
    cached = work.input_price if work.cached_price is None else work.cached_price
    whole = work.cached_share * cached + (1 - work.cached_share) * work.input_price
    return (
        _bill(work, work.tokens_before, whole, work.output_before, 0.0),
        _bill(work, work.tokens_after, work.input_price, work.output_after, work.compress_seconds),
    )


def _bill(work: Workload, tokens: float, token_price: float, output: float, seconds: float) -> Bill:
    first = None if work.prefill is None else seconds + (tokens + work.other_tokens) / work.prefill
    return Bill(
        context=tokens * token_price / 1e6,
        other=work.other_tokens * work.input_price / 1e6,
        output=output * work.output_price / 1e6,
        compressor=seconds * work.machine_hour / 3600,
        first_token=first,
        total=None if first is None or work.decode is None else first + output / work.decode,
    )


def saved(work: Workload) -> float:
    """Money saved a request; negative where compression costs more than it saves."""
    without, compressed = bills(work)
    return without.money - compressed.money


def break_even_at(work: Workload, lever: Lever) -> float | None:
    """The value of `lever` at which the bills are equal, all else as it is; None where no value in range makes them so.

    The bills are linear in each lever, so two points give the line.
    """
    check_choice("lever", lever, get_args(Lever))
    ends = (0.0, 1.0)
    at_zero, at_one = (saved(replace(work, **_moved(lever, end))) for end in ends)
    slope = at_one - at_zero
    if slope == 0:
        return None
    value = -at_zero / slope
    return value if value >= 0 and (lever != "cached_share" or value <= 1) else None


def _moved(lever: Lever, value: float) -> dict[str, Any]:
    return {lever: value}


_NAMES: dict[Lever, str] = {
    "tokens_after": "context tokens left",
    "output_after": "answer tokens",
    "compress_seconds": "compressor seconds",
    "machine_hour": "price of a machine hour",
    "cached_share": "share the prompt cache would serve",
}


def table(work: Workload, *, requests: int = 1000) -> str:
    """Markdown: the bill of so many requests, seconds of one, and how far each figure can move."""
    without, compressed = bills(work)
    lines = [f"| of {requests:,} requests | without | with compression |", "| --- | ---: | ---: |"]
    for name in ("context", "other", "output", "compressor", "money"):
        label = {"other": "other input", "output": "answers", "money": "**total**"}.get(name, name)
        lines.append(f"| {label} | {_money(without, name, requests)} | {_money(compressed, name, requests)} |")
    for name, label in (("first_token", "seconds to first token"), ("total", "seconds to last token")):
        if getattr(without, name) is not None:
            lines.append(f"| {label} | {getattr(without, name):.2f} | {getattr(compressed, name):.2f} |")
    gain = saved(work)
    share = gain / without.money if without.money else 0.0
    verdict = "saves" if gain > 0 else "costs" if gain < 0 else "changes"
    lines += ["", f"Compression {verdict} {abs(gain) * requests:,.4g} on {requests:,} requests ({abs(share):.1%}).", ""]
    lines += ["| nothing is saved when | is | break-even |", "| --- | ---: | ---: |"]
    for lever, label in _NAMES.items():
        value = break_even_at(work, lever)
        lines.append(f"| {label} | {getattr(work, lever):,.4g} | {'none' if value is None else f'{value:,.4g}'} |")
    return "\n".join(lines) + "\n"


def _money(bill: Bill, name: str, requests: int) -> str:
    return f"{getattr(bill, name) * requests:,.4g}"
