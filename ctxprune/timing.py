"""Seconds by stage, and how far a long reading has come: recorded where the work happens, read by who asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_recorder: ContextVar[dict[str, float] | None] = ContextVar("ctxprune_seconds", default=None)
_watcher: ContextVar[Callable[[int, int], None] | None] = ContextVar("ctxprune_watcher", default=None)


@contextmanager
def watch(report: Callable[[int, int], None]) -> Iterator[None]:
    """Call `report(done, total)`, which count model inputs, as models read inside this block, in this thread."""
    token = _watcher.set(report)
    try:
        yield
    finally:
        _watcher.reset(token)


def watched(items: Iterable[T], total: int) -> Iterator[T]:
    """The items as they are, each reported to `watch` once it is there."""
    report = _watcher.get()
    for done, item in enumerate(items, 1):
        if report is not None:
            report(done, total)
        yield item


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
    """Add the seconds of this block to the stage `name`; free when nobody records."""
    seconds = _recorder.get()
    if seconds is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
