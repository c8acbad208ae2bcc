"""Seconds by stage, recorded where the work happens and read by whoever asked for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_recorder: ContextVar[dict[str, float] | None] = ContextVar("ctxprune_seconds", default=None)


@contextmanager
def record() -> Iterator[dict[str, float]]:
    """Collect the seconds of every `stage` that runs inside this block, in this thread or task."""
    seconds: dict[str, float] = {}
    token = _recorder.set(seconds)
    try:
        yield seconds
    finally:
        _recorder.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the seconds of this block to the stage `name`; costs nothing to speak of when nobody records."""
    seconds = _recorder.get()
    if seconds is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
