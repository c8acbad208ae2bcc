"""Read an answer, or decide to ask again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2

from ctxprune.integrations.client.calls import Call
from ctxprune.integrations.client.errors import SidecarFailedError, error_of

T = TypeVar("T")
#: Statuses after which the same request may well succeed.
PATIENCE = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """retries: after 429 and 503, each after Retry-After seconds (0.5, 1, 2, ... without). A wait longer than
    `max_wait` seconds is not begun."""

    retries: int
    max_wait: float

    def wait(self, response: httpx2.Response, attempt: int) -> float | None:
        """Seconds until the next attempt, the first being 0; None to give up."""
        if response.status_code not in PATIENCE or attempt >= self.retries:
            return None
        asked = retry_after(response)
        seconds = 0.5 * 2**attempt if asked is None else asked
        return seconds if seconds <= self.max_wait else None


def read(call: Call[T], response: httpx2.Response) -> T:
    """The answer as the call reads it. Raises the SidecarError that the status or an unfit answer stands for."""
    request_id = response.headers.get("x-request-id", "")
    if response.status_code != 200:
        raise error_of(response.status_code, response.content, request_id=request_id, retry_after=retry_after(response))
    try:
        return call.read(json.loads(response.content))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SidecarFailedError(
            f"{call.path} answered in an unknown shape ({error!r:.200}); is this the sidecar's address?",
            status=200,
            request_id=request_id,
        ) from error


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds from a Retry-After header, which gives a number or, from some gateways, a date."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked[:9])
    try:
        moment = parsedate_to_datetime(asked)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
