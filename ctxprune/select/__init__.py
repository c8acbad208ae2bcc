"""Choose which scored units to keep: by their scores, by one token budget over the whole context, or by both.

`budget` counts and fills, `companions` says what a kept unit brings along and `procedures` what stays together,
`repeats` finds what documents share, `standout` measures lines of logs and settings, `oversized` cuts what is too long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from ctxprune.errors import BudgetError, InputError
from ctxprune.plain import checked_whole
from ctxprune.prompt import piece_text
from ctxprune.select.budget import Fill, Fitting, Group, Mask, Offers, Units
from ctxprune.select.companions import settled
from ctxprune.select.repeats import Repeats, repeats_of
from ctxprune.select.standout import least_scores
from ctxprune.text.quiet import says_something
from ctxprune.types import Context, Extract, Piece, SoftTokens, Span, TokenCounter

OnEmpty = Literal["drop", "keep_top1", "original"]
Order = Literal["document", "rank"]

#: How a warning ends when nothing is left of a context.
EMPTY = "the context is empty"
#: How it ends when all is kept because nothing passed.
ORIGINAL = "all is kept, as on_empty='original' asks"
#: Characters from which it is worth a warning that nothing of a context was removed.
LONG_CONTEXT = 5000


class Finder(Protocol):
    """Finds what is protected: a compiled pattern of `re`, or of any engine whose matches have `start` and `end`."""

    def finditer(self, text: str, /) -> Iterable[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of the choice; a unit is a sentence or a word.

    keep_title: a document's title goes into the prompt when any of its text does.
    min_keep: this many best units of the context are kept whatever the threshold and the budget.
    top_n: only this many best units of the context are kept, within threshold and budget; protected ones come on top.
    top_p: only the smallest number of best units that hold this share of all scores of the context, which must be
    probabilities. gap: (least, most): only the best units down to the largest drop between two neighbours in the order
    of scores, at least and at most so many; among equal drops the first. Of several such rules the strictest holds.
    floor: with a budget, units that score below do not fill it up, nor do rules, empty cells and labels of a word or
    two among the sentences that do not answer the question; 0 lets all fill it. None: as the compressor has it, no
    floor where none does.
    empty_below: a context whose best unit scores below holds no answer, so nothing of it is kept but what is protected
    or asked for by min_keep; on_empty holds. None: no context is emptied for its best score.
    companions: a kept unit brings what it cannot be read without (see `companions.py`), within the budget and on
    top of top_n and its kind. None: as the compressor has it, no companions where none does.
    repeats: what overlapping documents share is kept in each of them (see `repeats.py`), not once. None: as the
    compressor has it, in each where none does.
    on_empty: what to do when nothing of the whole context survives the threshold: drop it all, keep the best unit, or
    keep the original.
    order: documents as they came, or the most relevant first.
    protect: regular expressions, as text or as a `Finder`; a unit that a match touches is kept whatever its score.
    fill: with a budget, skip a unit that does not fit and go on, or stop there (truncation).
    elision: what stands between kept stretches of a document, such as "[...]"; its tokens count. Default: nothing.
    length_exponent: a budget is spent in the order of score / tokens**length_exponent: 0 is the best score first, 1 the
    most score a token. A negative score is multiplied instead, so longer is worse on both sides of zero.
    Raises InputError for a value outside these.
    """

    keep_title: bool = True
    min_keep: int = 0
    top_n: int | None = None
    top_p: float | None = None
    gap: tuple[int, int] | None = None
    floor: float | None = None
    empty_below: float | None = None
    companions: bool | None = None
    repeats: bool | None = None
    on_empty: OnEmpty = "drop"
    order: Order = "document"
    protect: tuple[str | Finder, ...] = ()
    fill: Fill = "skip"
    elision: str = ""
    length_exponent: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("on_empty", get_args(OnEmpty)), ("order", get_args(Order)), ("fill", get_args(Fill))):
            if getattr(self, name) not in choices:
                raise InputError(f"Policy.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "min_keep", checked_whole("Policy.min_keep", self.min_keep, least=0))
        if self.top_n is not None:
            object.__setattr__(self, "top_n", checked_whole("Policy.top_n", self.top_n, least=1))
            if self.top_n < self.min_keep:
                raise InputError(f"Policy.top_n must be at least min_keep={self.min_keep}, got {self.top_n}")
        if not isinstance(self.keep_title, bool):
            raise InputError(f"Policy.keep_title must be true or false, got {self.keep_title!r:.80}")
        self._check_shape()
        for name in ("floor", "empty_below"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise InputError(f"Policy.{name} must be in [0, 1], got {value!r}; 0 switches it off")
        for name in ("companions", "repeats"):
            if getattr(self, name) not in (None, False, True):
                raise InputError(f"Policy.{name} must be true, false or None, got {getattr(self, name)!r}")
        if not 0 <= self.length_exponent <= 2:
            raise InputError(f"Policy.length_exponent must be in [0, 2], got {self.length_exponent!r}")
        if not isinstance(self.elision, str) or "\n" in self.elision:
            raise InputError(f"Policy.elision must be a string without line breaks, got {self.elision!r}")
        if not isinstance(self.protect, tuple):
            raise InputError(f"Policy.protect must be a tuple of patterns, got {self.protect!r}")
        for pattern in self.protect:
            try:
                _finder(pattern)
            except (re.error, TypeError) as error:
                raise InputError(f"Policy.protect has a bad regular expression {pattern!r}: {error}") from None

    def _check_shape(self) -> None:
        if self.top_p is not None and not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise InputError(f"Policy.top_p must be in (0, 1], got {self.top_p!r}")
        if self.gap is None:
            return
        pair = isinstance(self.gap, tuple) and len(self.gap) == 2 and all(type(each) is int for each in self.gap)
        if not pair or not 1 <= self.gap[0] <= self.gap[1]:
            raise InputError(
                f"Policy.gap must be (least, most), whole numbers with 1 <= least <= most, got {self.gap!r}"
            )

    @property
    def limits_number(self) -> bool:
        """Whether it can choose without a threshold and without a budget."""
        return self.top_n is not None or self.top_p is not None or self.gap is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def select(
    context: Context,
    *,
    threshold: float | None,
    budget: int | None,
    counter: TokenCounter,
    policy: Policy,
    relevant: float | None = None,
    standout: float = 0.0,
) -> Context:
    """Keep units that score at least `threshold`, then the best of them within `budget` tokens of the rendered text.

    Only units that are still kept are looked at; summaries and soft tokens pass through and take their share of the
    budget. Titles and separators count; a document's first unit pays for them. Ties go to the earlier unit. The budget
    is exceeded only by what must stay (protected units, `min_keep`, summaries), and then a warning says so.
    A kept unit that scores below the threshold is a companion, or is forced by the policy. relevant: where units are
    sentences, the score from which one answers the question, for where there is no threshold. standout: the share of
    the best that lines of logs, settings and code must score besides, see `standout.py`. Warns when nothing is
    left, and when the floor leaves tokens unused.
    Raises InputError for a score or threshold that is not a number, and for negative scores with `top_p`; BudgetError
    for a budget below 1.
    """
    _check_limits(threshold, budget)
    floor = None if budget is None or not policy.floor else policy.floor
    draft = replace(context, pieces=_arranged(context.pieces, policy))
    units = Units.of(draft)
    units, forced, passing, repeats = _judged(draft, units, least_scores(draft, units, threshold, standout), policy)
    level = relevant if threshold is None else threshold
    filling = passing if floor is None else passing & _filling(draft, units, floor, level)
    limit = threshold if floor is None else max(floor, threshold or 0.0)
    if policy.empty_below and len(units) and units.score.max() < policy.empty_below:
        filling, limit = np.zeros(len(units), np.bool_), policy.empty_below
    draft, chosen = _or_else(draft, units, forced | filling, limit, policy)
    offers = Offers()
    if policy.companions:
        chosen, offers = settled(draft, units, chosen, level, forced, {} if repeats is None else repeats.instead)
    if budget is None:
        kept = offers.added_to(_without(chosen, offers.empty, forced))
        after = units.keep(draft, kept)
        return after if repeats is None else repeats.note(after)
    filling, chosen = _without(filling, offers.bare, forced), _without(chosen, offers.bare, forced)
    fitting = Fitting(
        draft,
        units,
        chosen,
        forced,
        budget,
        counter,
        fill=policy.fill,
        length_exponent=policy.length_exponent,
        offers=offers,
        floor=floor if (filling != passing).any() else None,
        labels=[] if floor is None else np.flatnonzero(passing & ~filling & (units.score >= floor)).tolist(),
    )
    after = _note_missing_steps(fitting.run(), units, offers.steps, budget)
    return after if repeats is None else repeats.note(after)


def _check_limits(threshold: float | None, budget: int | None) -> None:
    if threshold is not None and math.isnan(threshold):
        raise InputError("threshold must be a number, got nan")
    if budget is not None and budget <= 0:
        raise BudgetError(f"budget must be positive, got {budget}; leave it out to keep by threshold alone")


def _without(chosen: Mask, bare: Collection[int], forced: Mask) -> Mask:
    """The chosen units but the bare headings, which stay only where they are forced."""
    left = chosen.copy()
    left[list(bare)] = False
    return left | (chosen & forced)


def _note_missing_steps(after: Context, units: Units, procedures: Sequence[Group], budget: int) -> Context:
    """`after`, with a warning when only some steps of a procedure that answers the question are in it."""
    kept = units.kept_in(after)
    counts = [(int(kept[list(steps)].sum()), len(steps)) for steps in procedures]
    if not (parts := [count for count in counts if 0 < count[0] < count[1]]):
        return after
    fit, steps = (sum(numbers) for numbers in zip(*parts, strict=True))
    lists = "a list that may answer" if len(parts) == 1 else f"{len(parts)} lists that may answer"
    return after.warn(
        f"only {fit} of the {steps} steps or items of {lists} the question fit the budget of {budget} tokens"
    )


def _arranged(pieces: tuple[Piece, ...], policy: Policy) -> tuple[Piece, ...]:
    """Pieces in the policy's order, with its titles and elision mark; pieces that nobody judged come last."""
    if policy.elision:
        pieces = tuple(
            replace(piece, elision=policy.elision) if isinstance(piece, Extract) else piece for piece in pieces
        )
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
    for _, extract, mine in units.by_extract(context):
        protected[mine] = touched(extract.source.text, [extract.units[at] for at in units.unit[mine]], patterns)
    return protected


def touched(text: str, units: Sequence[Span], patterns: Sequence[str | Finder]) -> Mask:
    """(n_units,): whether a match of a pattern touches the unit. units: of `text`, in order."""
    found = np.zeros(len(units), np.bool_)
    starts, ends = np.array([unit.start for unit in units]), np.array([unit.end for unit in units])
    for match in (match for finder in map(_finder, patterns) for match in finder.finditer(text)):
        if match.end() > match.start():
            first, last = np.searchsorted(ends, match.start(), "right"), np.searchsorted(starts, match.end(), "left")
            found[first:last] = True
    return found


def _finder(pattern: str | Finder) -> Finder:
    return re.compile(pattern) if isinstance(pattern, str) or not hasattr(pattern, "finditer") else pattern


def _judged(
    draft: Context, units: Units, least: npt.NDArray[np.float64], policy: Policy
) -> tuple[Units, Mask, Mask, Repeats | None]:
    """The units, which of them are forced, which pass `least` and the rules of number, and what repeats others.

    A unit that stands for others is judged by the best score among them, so that what the rules leave of a context is
    no less than without it.
    """
    protected = _protected(draft, units, policy.protect)
    if policy.repeats is not False:
        return units, protected | units.top(policy.min_keep), _best(units, policy) & (units.score >= least), None
    tried = policy.min_keep
    while True:
        repeats = repeats_of(draft, units, protected | units.top(tried) | (units.score >= least))
        if tried >= len(units) or repeats.said >= policy.min_keep:
            break
        tried *= 2  # what is kept because so many are asked for may repeat, too
    units = replace(units, score=repeats.score)
    once = np.flatnonzero(~repeats.again)
    rest = Units(units.piece[once], units.unit[once], units.score[once])
    forced, best = protected.copy(), np.zeros(len(units), np.bool_)
    forced[once] |= rest.top(policy.min_keep)
    best[once] = _best(rest, policy)
    return units, forced, best & (units.score >= least), repeats


def _best(units: Units, policy: Policy) -> Mask:
    """The units that top_n, top_p and gap leave to choose from."""
    number = len(units)
    if policy.top_n is not None:
        number = policy.top_n
    if policy.top_p is not None or policy.gap is not None:
        falling = np.sort(units.score)[::-1]
        if policy.top_p is not None:
            number = min(number, _most_mass(falling, policy.top_p))
        if policy.gap is not None:
            number = min(number, _before_gap(falling, *policy.gap))
    return units.top(number) if number < len(units) else np.ones(len(units), np.bool_)


def _most_mass(falling: npt.NDArray[np.float64], share: float) -> int:
    """How many of the best scores it takes to reach the share of their sum; all of them when they are all 0."""
    if len(falling) and falling[-1] < 0:
        raise InputError(f"top_p needs scores that are probabilities, got {falling[-1]:g}; use top_n or a budget")
    sums = np.cumsum(falling)
    # a share of a sum of floats may fall a rounding short of it
    return int(np.searchsorted(sums, share * sums[-1] - 1e-12)) + 1 if len(sums) and sums[-1] > 0 else len(falling)


def _before_gap(falling: npt.NDArray[np.float64], least: int, most: int) -> int:
    """How many of the best scores come before the largest drop, from least to most of them."""
    last = min(most, len(falling) - 1)
    if last < least:
        return len(falling)
    return least + int(np.argmax(falling[least - 1 : last] - falling[least : last + 1]))


def _filling(context: Context, units: Units, floor: float, level: float | None) -> Mask:
    """The units that may fill up a budget."""
    filling: Mask = units.score >= floor
    if level is None:
        return filling
    for at in np.flatnonzero(filling & (units.score < level)).tolist():
        extract = context.pieces[units.piece[at]]
        assert isinstance(extract, Extract)
        span = extract.units[units.unit[at]]
        filling[at] = says_something(extract.source.text[span.start : span.end])
    return filling


def _or_else(context: Context, units: Units, chosen: Mask, limit: float | None, policy: Policy) -> tuple[Context, Mask]:
    """What is chosen, or what `on_empty` says where that is nothing of the whole context, with a warning."""
    others = any(
        isinstance(piece, SoftTokens) or piece_text(piece) for piece in context.pieces if not isinstance(piece, Extract)
    )
    if chosen.any() or others or limit is None or not any(map(piece_text, context.pieces)):
        return context, chosen
    best = units.score.max()
    why = f"nothing {'' if best < limit else 'but labels and rules '}scores at least {limit:g} (the best: {best:.2g})"
    if policy.on_empty == "drop":
        return context.warn(f"{why}: {EMPTY}"), chosen
    if policy.on_empty == "original":
        return context.warn(f"{why}: {ORIGINAL}"), np.ones(len(units), np.bool_)
    return context.warn(f"{why}: the best unit is kept, as on_empty='keep_top1' asks"), units.top(1)


def note_untouched(before: Context, after: Context, threshold: float | None) -> Context:
    """`after`, with a warning when the threshold removed nothing of a long context.

    before: the scored context, all that was kept still kept.
    """
    scores = [unit.score for extract in before.extracts for unit in extract.kept_units()]
    if not threshold or len(scores) < 2 or min(scores) < threshold:
        return after
    if sum(sum(extract.kept) for extract in after.extracts) < len(scores):  # what repeats other text went
        return after
    if sum(end - start for extract in after.extracts for start, end in extract.slices()) < LONG_CONTEXT:
        return after
    return after.warn(
        f"nothing of a long context was removed: all {len(scores)} units score at least {threshold:g} (the lowest: "
        f"{min(scores):.2g}); raise the threshold, or give a budget"
    )
