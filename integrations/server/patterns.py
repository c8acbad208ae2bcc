"""Callers' regular expressions on RE2, which does not go back: bounded in memory, and stopped between two matches."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import re2

from ctxprune.errors import InputError
from ctxprune.integrations.server.dialect import MARK, MARKS, Translation, searchable, translated
from ctxprune.integrations.server.engine.ticket import Ticket

#: Places of a pattern times bytes of one text, a few seconds' worth at worst: one search cannot be interrupted.
MAX_STEPS = 20_000_000

#: Seconds of the processor for compiling a request's patterns: each keeps Python from all other threads.
COMPILE_SECONDS = 0.5

#: Bytes of a compiled pattern and of what RE2 remembers while it searches.
MAX_MEMORY = 1 << 20

_BOUNDARY = re.compile(r"\b")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A caller's pattern that RE2 takes."""

    source: str
    translation: Translation

    def check(self, size: int) -> None:
        """Raise InputError when a search of `size` bytes could take too long."""
        steps = self.translation.width * size
        if steps > MAX_STEPS and not self.translation.is_literal:
            raise InputError(
                f"protect could take too long on {size} bytes of text, at {self.source!r:.80}: {steps:,} steps, the "
                f"limit is {MAX_STEPS:,}; bound its repetitions, as in \\d{{1,9}}, or split the document"
            )


@dataclass(frozen=True, slots=True)
class Touch:
    """Where matches touch a text, as `re.Match` says it; matches that follow on each other are one."""

    first: int
    last: int

    def start(self) -> int:
        return self.first

    def end(self) -> int:
        return self.last


def checked_patterns(
    patterns: Sequence[str], *, regex: bool, texts: Sequence[str], known: dict[str, Pattern] | None = None
) -> tuple[Pattern, ...]:
    """The patterns, ready for `Search`; with `regex` false they are literal texts.

    texts: what they will be searched for in. known: patterns of the same request, which are not compiled again.
    Raises InputError, which names it, for what RE2 does not take, for patterns that take too long to compile, and for
    one too long for the longest text.
    """
    known = {} if known is None else known
    began = time.thread_time()  # of this thread alone: on a busy machine patterns are not worse
    for pattern in patterns:
        if pattern in known:
            continue
        if time.thread_time() - began > COMPILE_SECONDS:
            raise InputError(
                f"protect took longer than {COMPILE_SECONDS:g} s to compile, up to {pattern!r:.80}; name fewer "
                "patterns, or such as repeat less often"
            )
        known[pattern] = _checked(pattern if regex else re.escape(pattern))
    checked = tuple(known[pattern] for pattern in patterns)
    longest = max((len(text.encode("utf-8", "replace")) for text in texts), default=0)
    for one in checked:
        one.check(longest)
    return checked


def _checked(source: str) -> Pattern:
    translation = translated(source)
    for text in {translation.plain, translation.marked if translation.has_boundary else translation.plain}:
        _compiled(text, source)
    return Pattern(source, translation)


def _compiled(text: str, source: str) -> Any:
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        said = said.split(":", 1)[0] if ": " in said and "large" not in said else said  # the rest shows our own syntax
        raise InputError(f"protect has a bad regular expression {source!r:.80}: {said}") from None
    finally:
        re2.purge()  # the module would keep the last 128, each with its memory


@dataclass(slots=True, eq=False)
class Search:
    """One job's searches. They share a slot with all other jobs', so that patterns hold one core and one job's memory.

    Close it when the job has ended.
    """

    ticket: Ticket
    slot: threading.Lock
    _held: bool = False
    _compiled: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def bound(self, patterns: Sequence[Pattern]) -> tuple[BoundPattern, ...]:
        """The patterns as `Policy.protect` takes them."""
        return tuple(BoundPattern(pattern, self) for pattern in patterns)

    def close(self) -> None:
        self._compiled.clear()
        if self._held:
            self._held = False
            self.slot.release()

    def spans(self, pattern: Pattern, text: str) -> Iterator[Touch]:
        """Raises ExpiredError and AbandonedError between two matches, InputError when patterns took too long in all."""
        self._take_slot()
        began = time.monotonic()
        try:
            for first, last in _merged(self._matches(pattern, text)):
                yield Touch(first, last)
        finally:
            self.ticket.allowance.seconds -= time.monotonic() - began
        self._check(pattern, 0.0)

    def _take_slot(self) -> None:
        if not self._held:
            self._held = self.slot.acquire(timeout=min(self.ticket.remaining(), threading.TIMEOUT_MAX))
        self.ticket.check()

    def _check(self, pattern: Pattern, seconds: float) -> None:
        self.ticket.check()
        if self.ticket.allowance.seconds < seconds:
            raise InputError(
                f"protect took longer than {self.ticket.allowance.limit:g} s in all, at {pattern.source!r:.80}; name "
                "fewer patterns, or such as match less often"
            )

    def _matches(self, pattern: Pattern, text: str) -> Iterator[tuple[int, int]]:
        translation = pattern.translation
        marked = translation.has_boundary and not text.isascii()
        searched = searchable(text)
        if marked:
            searched = _BOUNDARY.sub(MARK * MARKS, searched)
        key = (pattern.source, marked)
        if key not in self._compiled:
            self._compiled[key] = _compiled(translation.marked if marked else translation.plain, pattern.source)
        encoded = searched.encode()
        places = None if text.isascii() else _places(encoded, without=MARK if marked else "")
        end = len(text) - (translation.at_end and text.endswith("\n"))
        began = time.monotonic()
        for match in self._compiled[key].finditer(encoded):
            first, last = match.span()
            self._check(pattern, time.monotonic() - began)
            if places is not None:
                first, last = int(places[first]), int(places[last])
            if first < min(last, end):
                yield first, min(last, end)


@dataclass(frozen=True, slots=True)
class BoundPattern:
    """One pattern of one job, with the one method that `Policy.protect` asks for."""

    pattern: Pattern
    search: Search

    def finditer(self, text: str) -> Iterator[Touch]:
        return self.search.spans(self.pattern, text)


def _merged(spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans that follow on each other as one: `.` matches every character, and each costs."""
    last: tuple[int, int] | None = None
    for span in spans:
        if last is not None and span[0] == last[1]:
            last = last[0], span[1]
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _places(encoded: bytes, *, without: str) -> npt.NDArray[np.int64]:
    """(n_bytes + 1,): code points before each byte, marks not counted."""
    array = np.frombuffer(encoded, np.uint8)
    starts = ((array & 0xC0) != 0x80).astype(np.int64)
    if without:
        first, second, third = without.encode()
        marks = np.flatnonzero((array[:-2] == first) & (array[1:-1] == second) & (array[2:] == third))
        starts[marks] = 0
    return np.concatenate([[0], np.cumsum(starts)])
