"""What compression buys: the arms that no other arm beats, and the context length from which it pays for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from ctxprune.errors import InputError


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
