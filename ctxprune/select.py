"""Choose which scored units to keep: by a threshold, by one token budget over the whole context, or by both."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ctxprune.budget import Fill, Fitting, Mask, Units, extracts
from ctxprune.errors import BudgetError, InputError
from ctxprune.prompt import piece_text
from ctxprune.types import Context, Extract, Piece, SoftTokens, TokenCounter

OnEmpty = Literal["drop", "keep_top1", "original"]
Order = Literal["document", "rank"]


class Finder(Protocol):
    """Finds what is protected: a compiled pattern of `re`, or of any engine whose matches have `start` and `end`."""

    def finditer(self, text: str, /) -> Iterable[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of the choice; a unit is a sentence or a word.

    keep_title: a document's title goes into the prompt when any of its text does.
    min_keep: this many best units of the context are kept whatever the threshold and the budget.
    top_n: only this many best units of the context are kept, within threshold and budget; protected ones come on top.
    on_empty: what to do when nothing of the whole context survives the threshold: drop it all, keep the best unit, or
    keep the original.
    order: documents as they came, or the most relevant first.
    protect: regular expressions, as text or as a `Finder`; a unit that a match touches is kept whatever its score.
    fill: with a budget, skip a unit that does not fit and go on, or stop there (truncation).
    length_exponent: a budget is spent in the order of score / tokens**length_exponent: 0 is the best score first, 1 the
    most score a token. A negative score is multiplied instead, so longer is worse on both sides of zero.
    Raises InputError for a value outside these.
    """

    keep_title: bool = True
    min_keep: int = 0
    top_n: int | None = None
    on_empty: OnEmpty = "drop"
    order: Order = "document"
    protect: tuple[str | Finder, ...] = ()
    fill: Fill = "skip"
    length_exponent: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("on_empty", get_args(OnEmpty)), ("order", get_args(Order)), ("fill", get_args(Fill))):
            if getattr(self, name) not in choices:
                raise InputError(f"Policy.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not isinstance(self.min_keep, int) or self.min_keep < 0:
            raise InputError(f"Policy.min_keep must be a whole number from 0 up, got {self.min_keep!r}")
        if self.top_n is not None and (not isinstance(self.top_n, int) or self.top_n < max(1, self.min_keep)):
            limit = f"min_keep={self.min_keep}" if self.min_keep > 1 else "1"
            raise InputError(f"Policy.top_n must be a whole number from {limit} up, got {self.top_n!r}")
        if not 0 <= self.length_exponent <= 2:
            raise InputError(f"Policy.length_exponent must be in [0, 2], got {self.length_exponent!r}")
        if not isinstance(self.protect, tuple):
            raise InputError(f"Policy.protect must be a tuple of patterns, got {self.protect!r}")
        for pattern in self.protect:
            try:
                _finder(pattern)
            except (re.error, TypeError) as error:
                raise InputError(f"Policy.protect has a bad regular expression {pattern!r}: {error}") from None


def select(
    context: Context, *, threshold: float | None, budget: int | None, counter: TokenCounter, policy: Policy
) -> Context:
    """Keep units that score at least `threshold`, then the best of them within `budget` tokens of the rendered text.

    Only units that are still kept are looked at; summaries and soft tokens pass through and take their share of the
    budget. Titles and separators count; a document's first unit pays for them. Ties go to the earlier unit. The budget
    is exceeded only by what must stay (protected units, `min_keep`, summaries), and then a warning says so.
    Raises InputError for a score or threshold that is not a number, BudgetError for a budget below 1.
    """
    if threshold is not None and math.isnan(threshold):
        raise InputError("threshold must be a number, got nan")
    if budget is not None and budget <= 0:
        raise BudgetError(f"budget must be positive, got {budget}; leave it out to keep by threshold alone")
    draft = replace(context, pieces=_arranged(context.pieces, policy))
    units = Units.of(draft)
    forced = _protected(draft, units, policy.protect) | units.top(policy.min_keep)
    chosen = _above(draft, units, forced, threshold, policy)
    if budget is None:
        return units.keep(draft, chosen)
    fitting = Fitting(
        draft, units, chosen, forced, budget, counter, fill=policy.fill, length_exponent=policy.length_exponent
    )
    return fitting.run()


def _arranged(pieces: tuple[Piece, ...], policy: Policy) -> tuple[Piece, ...]:
    """Pieces in the policy's order and with its titles; pieces that nobody judged come last."""
    if not policy.keep_title:
        pieces = tuple(replace(piece, titled=False) if isinstance(piece, Extract) else piece for piece in pieces)
    return tuple(sorted(pieces, key=_rank)) if policy.order == "rank" else pieces


def _rank(piece: Piece) -> float:
    score = piece.score if isinstance(piece, Extract) else None
    return math.inf if score is None or math.isnan(score) else -score


def _protected(context: Context, units: Units, patterns: Sequence[str | Finder]) -> Mask:
    protected = np.zeros(len(units), np.bool_)
    if not patterns:
        return protected
    bounds = np.searchsorted(units.piece, np.arange(len(context.pieces) + 1))
    for place, extract in extracts(context.pieces):
        first = int(bounds[place])
        spans = [extract.units[at] for at in units.unit[first : bounds[place + 1]]]
        starts, ends = np.array([span.start for span in spans]), np.array([span.end for span in spans])
        for match in (match for finder in map(_finder, patterns) for match in finder.finditer(extract.source.text)):
            if match.end() > match.start():
                touched = np.searchsorted(ends, match.start(), "right"), np.searchsorted(starts, match.end(), "left")
                protected[first + touched[0] : first + touched[1]] = True
    return protected


def _finder(pattern: str | Finder) -> Finder:
    return re.compile(pattern) if isinstance(pattern, str) or not hasattr(pattern, "finditer") else pattern


def _above(context: Context, units: Units, forced: Mask, threshold: float | None, policy: Policy) -> Mask:
    everything = np.ones(len(units), np.bool_)
    best: Mask = everything if policy.top_n is None else forced | units.top(policy.top_n)
    if threshold is None:
        return best
    chosen: Mask = forced | (best & (units.score >= threshold))
    others = any(
        isinstance(piece, SoftTokens) or piece_text(piece) for piece in context.pieces if not isinstance(piece, Extract)
    )
    if chosen.any() or others or policy.on_empty == "drop":
        return chosen
    return everything if policy.on_empty == "original" else units.top(1)
