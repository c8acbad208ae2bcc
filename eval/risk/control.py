"""Choose the most aggressive setting whose risk stays below a level, with a finite-sample guarantee; pure statistics.

Rows are calibration questions, columns are settings from the safest to the most aggressive, losses lie in [0, 1].
Sources: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control" (2022); Bates, Angelopoulos, Lei, Malik
and Jordan, "Distribution-Free, Risk-Controlling Prediction Sets" (2021); Angelopoulos, Bates, Candès, Jordan and Lei,
"Learn then Test" (2021).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ctxprune.calibration import Method
from ctxprune.errors import InputError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Correction = Literal["fixed-sequence", "bonferroni"]

#: The chance of failure where a loss that is not monotone rules out a guarantee in expectation and none was named.
DEFAULT_DELTA = 0.1


@dataclass(frozen=True, slots=True)
class Certified:
    """The column chosen and why it may be.

    risk: mean calibration loss there. bound: the risk with the method's correction, at most the level asked for.
    delta: the chance that the guarantee fails; None for a guarantee in expectation.
    """

    place: int
    method: Method
    risk: float
    bound: float
    delta: float | None


def certify(
    losses: Array,
    removed: Array,
    *,
    risk: float,
    delta: float | None = None,
    correction: Correction = "fixed-sequence",
) -> Certified:
    """The setting that removes most among those whose mean loss is certified to stay at most `risk`.

    losses, removed: (n, settings), settings from the safest to the most aggressive. A monotone loss is controlled in
    expectation (delta None: conformal risk control) or with probability 1 - delta (upper confidence bound). Else it is
    Learn then Test at delta, or at DEFAULT_DELTA where none is given. correction: of Learn then Test.
    Raises InputError for too few questions (the message names how many it takes), and when no setting is certified.
    """
    _check_level(losses, risk, delta)
    monotone = is_monotone(losses)
    method: Method
    if monotone and delta is None:
        allowed, method = crc_bound(losses) <= risk, "conformal risk control"
    else:
        delta = DEFAULT_DELTA if delta is None else delta
        allowed = learn_then_test(
            losses, risk=risk, delta=delta, correction="fixed-sequence" if monotone else correction
        )
        method = "upper confidence bound" if monotone else "learn then test"
    if not allowed.any():
        raise InputError(_nothing_certified(losses, risk, delta))
    place = _most_removed(allowed, removed)
    mean = float(losses[:, place].mean())
    bound = float(crc_bound(losses)[place]) if delta is None else upper_bound(mean, len(losses), delta)
    return Certified(place, method, mean, min(bound, risk), delta)


def crc_bound(losses: Array) -> Array:
    """(settings,): n / (n + 1) * mean loss + B / (n + 1) with B = 1 (Conformal Risk Control, equation 4).

    The most aggressive setting where this is at most alpha has E[loss of the next question] <= alpha, when questions
    are exchangeable and no loss falls from one setting to the next.
    """
    n = len(losses)
    bound: Array = (losses.sum(axis=0) + 1.0) / (n + 1)
    return bound


def learn_then_test(losses: Array, *, risk: float, delta: float, correction: Correction = "fixed-sequence") -> Mask:
    """(settings,): for which "the risk is above `risk`" is rejected; P(any rejected wrongly) <= delta.

    fixed-sequence: tests from the safest setting on at level delta each and stops at the first that stands (Learn then
    Test, section 2.3.2). With a monotone loss that is the risk-controlling prediction sets of Bates et al., section 2:
    the upper bound is below the risk here and at every safer setting. bonferroni: each at delta / settings, which needs
    no order. The settings must be fixed before the losses are seen.
    """
    if correction not in ("fixed-sequence", "bonferroni"):
        raise InputError(f"correction must be fixed-sequence or bonferroni, got {correction!r}")
    means = losses.mean(axis=0)
    level = delta if correction == "fixed-sequence" else delta / len(means)
    distinct = np.unique(means)
    # p-values rise with the mean, so that a search by halves finds the first that is too high
    passed = bisect_right(distinct, level, key=lambda mean: hoeffding_bentkus(float(mean), len(losses), risk))
    rejected: Mask = means < (distinct[passed] if passed < len(distinct) else np.inf)
    return np.logical_and.accumulate(rejected) if correction == "fixed-sequence" else rejected


def hoeffding_bentkus(mean: float, n: int, risk: float) -> float:
    """The p-value of "the expected loss is above `risk`", from the mean of n independent losses in [0, 1].

    min(exp(-n * h(min(mean, risk), risk)), e * P(Binomial(n, risk) <= ceil(n * mean))), where h(a, b) =
    a log(a / b) + (1 - a) log((1 - a) / (1 - b)) (Learn then Test, proposition 2; Bates et al., section 3.1).
    """
    below = min(mean, risk)
    entropy = _times_log(below, below / risk) + _times_log(1 - below, (1 - below) / (1 - risk))
    # a whole number of losses may come out a hair above itself, and its ceiling one too high
    bentkus = math.e * _binomial_cdf(math.ceil(n * mean - 1e-9), n, risk)
    return min(1.0, math.exp(-n * entropy), bentkus)


def upper_bound(mean: float, n: int, delta: float) -> float:
    """The smallest risk that Hoeffding-Bentkus rejects at delta (to 1e-9): an upper confidence bound of 1 - delta."""
    low, high = mean, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if hoeffding_bentkus(mean, n, middle) <= delta else (middle, high)
    return high


def is_monotone(losses: Array) -> bool:
    """Whether no question's loss falls from a setting to a more aggressive one."""
    return bool((np.diff(losses, axis=1) >= 0).all())


def smallest_n(risk: float, delta: float | None = None) -> int:
    """The fewest questions with which a setting without any loss is certified.

    ceil(1 / risk) - 1 in expectation (B / (n + 1) <= risk); with delta, log(delta) / log(1 - risk) rounded up, where
    Hoeffding's p-value of a mean loss of zero, (1 - risk)**n, reaches delta.
    """
    if delta is None:
        return max(1, math.ceil(1 / risk - 1e-9) - 1)
    return max(1, math.ceil(math.log(delta) / math.log1p(-risk) - 1e-9))


def _most_removed(allowed: Mask, removed: Array) -> int:
    """Among equals the more aggressive setting, since an unseen question may lose more text there."""
    means = np.where(allowed, removed.mean(axis=0), -np.inf)
    return int(len(means) - 1 - np.argmax(means[::-1]))


def _check_level(losses: Array, risk: float, delta: float | None) -> None:
    if not 0 < risk < 1 or (delta is not None and not 0 < delta < 1):
        raise InputError(f"risk and delta must lie in (0, 1), got risk={risk} and delta={delta}")
    if losses.ndim != 2 or not losses.shape[1]:
        raise InputError(f"losses must be (questions, settings), got the shape {losses.shape}")
    if losses.size and not (losses.min() >= 0 and losses.max() <= 1):  # false for NaN too
        raise InputError(f"losses must lie in [0, 1], got {losses.min()} to {losses.max()}")
    if len(losses) < (least := smallest_n(risk, delta)):
        raise InputError(
            f"{len(losses)} usable questions cannot certify a risk of {risk:g}"
            f"{'' if delta is None else f' at delta={delta:g}'}: it takes at least {least}, and more to remove much; "
            "give more questions or allow a higher risk"
        )


def _nothing_certified(losses: Array, risk: float, delta: float | None) -> str:
    n, mean = len(losses), float(losses[:, 0].mean())
    bound = float(crc_bound(losses)[0]) if delta is None else upper_bound(mean, n, delta)
    return (
        f"no setting keeps the risk at {risk:g}: the safest loses {mean:.4f} on {n} questions, so no less than "
        f"{bound:.4f} is certified; give more questions, allow a higher risk, or begin from a safer setting"
    )


def _times_log(weight: float, ratio: float) -> float:
    return weight * math.log(ratio) if weight > 0 else 0.0


def _binomial_cdf(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k), summed in logarithms so that no factor under- or overflows."""
    if k >= n:
        return 1.0
    terms = np.arange(k + 1)
    steps = np.log(n - terms[:-1]) - np.log(terms[1:])  # log C(n, i + 1) - log C(n, i)
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + terms * math.log(p) + (n - terms) * math.log1p(-p)
    peak = float(logs.max())
    return min(1.0, math.exp(peak) * float(np.exp(logs - peak).sum()))
