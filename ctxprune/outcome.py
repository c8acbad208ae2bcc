"""One context on its way through a pipeline: what was read of it, what was kept, and what a failure leaves of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ctxprune.errors import CtxpruneError
from ctxprune.types import Context

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """One context as it came, what the compressors before the last left of it, and the last one's scores.

    scored: None where nothing is scored. error: why nothing was read.
    """

    before: Context
    entered: Context
    scored: Context | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """error: why `after` is the original."""

    after: Context
    error: str | None = None


def unread(context: Context, error: Exception) -> Reading:
    return Reading(context, context, error=_logged(context, error))


def unchosen(reading: Reading, error: Exception) -> Outcome:
    return Outcome(reading.before, error=_logged(reading.before, error))


def _logged(context: Context, error: Exception) -> str:
    reason = f"{type(error).__name__}: {error}"
    expected = isinstance(error, CtxpruneError)
    logger.warning("context %r passes through uncompressed: %s", context.id, reason, exc_info=not expected)
    return reason
