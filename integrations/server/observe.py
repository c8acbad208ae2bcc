"""What Prometheus scrapes: requests, queue, inference, batches, tokens, ratios, degraded answers, cache, and drift.

Drift: do the pruner's scores still look as they did on its training questions? Gauges, a warning, a word in /readyz.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, TextIO

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.provence.reference import WIDTH, Array, Observation, Reference, stability_index
from ctxprune.errors import MissingExtraError
from ctxprune.result import CompressionResult
from ctxprune.types import Context

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_RATIOS = (1, 1.5, 2, 3, 5, 8, 13, 20, 50)


class Metrics:
    """One registry a server, so that two servers in a process do not share counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ctxprune_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "ctxprune_request_seconds", "From request to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._queue_seconds = Histogram(
            "ctxprune_queue_seconds", "Wait for the model's first turn.", buckets=_SECONDS, registry=registry
        )
        self._inference_seconds = Histogram(
            "ctxprune_inference_seconds", "One call of the model.", buckets=_SECONDS, registry=registry
        )
        self._batch_tokens = Histogram(
            "ctxprune_batch_tokens", "Tokens in one call.", buckets=_SIZES, registry=registry
        )
        self._batch_sequences = Histogram(
            "ctxprune_batch_sequences",
            "Documents, or windows of long ones, in one call.",
            buckets=_SIZES,
            registry=registry,
        )
        self._tokens = Counter("ctxprune_tokens", "Tokens before and after.", ["stage"], registry=registry)
        self._stage_seconds = Counter("ctxprune_stage_seconds", "Seconds by stage.", ["stage"], registry=registry)
        self._ratio = Histogram("ctxprune_ratio", "tokens_before / tokens_after.", buckets=_RATIOS, registry=registry)
        self._degraded = Counter("ctxprune_degraded", "Answers with the original text.", ["reason"], registry=registry)
        self._refused = Counter("ctxprune_refused", "Requests refused as too many (429).", registry=registry)
        self._cache = Counter("ctxprune_cache_lookups", "Passages looked up.", ["outcome"], registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is scraped."""
        Gauge(f"ctxprune_{name}", text, registry=self.registry).set_function(value)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def inferred(self, seconds: float, *, sequences: int, tokens: int) -> None:
        self._inference_seconds.observe(seconds)
        self._batch_sequences.observe(sequences)
        self._batch_tokens.observe(tokens)

    def compressed(self, result: CompressionResult, queue_seconds: float) -> None:
        self._queue_seconds.observe(queue_seconds)
        self._tokens.labels("before").inc(result.tokens_before)
        self._tokens.labels("after").inc(result.tokens_after)
        self._ratio.observe(result.ratio)
        for name, seconds in result.seconds.items():
            self._stage_seconds.labels(name).inc(seconds)

    def degraded(self, reason: str) -> None:
        """reason: one of a few words, never a message."""
        self._degraded.labels(reason).inc()

    def refused(self) -> None:
        self._refused.inc()

    def cached(self, *, hits: int, misses: int) -> None:
        self._cache.labels("hit").inc(hits)
        self._cache.labels("miss").inc(misses)

    def text(self) -> bytes:
        """The exposition format, text version 0.0.4."""
        return generate_latest(self.registry)


class Log(Protocol):
    """What the server needs of a logger."""

    def info(self, event: str, **values: Any) -> Any: ...

    def warning(self, event: str, **values: Any) -> Any: ...

    def exception(self, event: str, **values: Any) -> Any: ...


def json_log(stream: TextIO | None = None) -> Log:
    """Level, time (UTC), event, its values, and a stack trace where there is one."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    return log


#: What a span tells of the notes for the log; never any text.
_TOLD = ("compressor", "documents", "result", "reason", "tokens_before", "tokens_after")

#: The same in the names that OpenTelemetry has for requests to language models.
_TOLD_AS = {
    "model": "gen_ai.request.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
}


class Traced(Protocol):
    """A request; all but its headers are known when it ends."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def method(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...


#: A span around a block that answers the request.
Tracing = Callable[[Traced], AbstractContextManager[None]]


def no_tracing(request: Traced) -> AbstractContextManager[None]:
    return nullcontext()


def opentelemetry_tracing(provider: Any = None) -> Tracing:
    """Spans of the process's tracer provider, which `opentelemetry-instrument` or the operator's code sets up.

    provider: another one. Raises MissingExtraError without opentelemetry-api.
    """
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        raise MissingExtraError("tracing", "otel") from None
    tracer = trace.get_tracer("ctxprune.server", tracer_provider=provider)

    @contextmanager
    def traced(request: Traced) -> Iterator[None]:
        caller = propagate.extract(dict(request.headers))
        with tracer.start_as_current_span("request", context=caller, kind=trace.SpanKind.SERVER) as span:
            try:
                yield
            finally:
                span.update_name(f"{request.method} {request.route}")
                span.set_attribute("http.request.method", request.method)
                span.set_attribute("http.route", request.route)
                span.set_attribute("http.response.status_code", request.status)
                for name in _TOLD:
                    if name in request.notes:
                        span.set_attribute(f"ctxprune.{name}", request.notes[name])
                for name, attribute in _TOLD_AS.items():
                    if request.notes.get(name):
                        span.set_attribute(attribute, request.notes[name])
                if request.status >= 500:
                    span.set_status(trace.StatusCode.ERROR)

    return traced


#: Figures that are shown beside those of the reference, and what they are.
_FIGURES = {
    "below_threshold": ("below", "Share of sentences below the default threshold"),
    "mean_score": ("score", "Mean score of sentences"),
    "emptied": ("emptied", "Share of contexts with no sentence above the default threshold"),
}


class Drift:
    """Compares the last `window` contexts with the reference of the model; 0 switches it off.

    Each context is compared with those of its size, so that longer contexts alone are no drift. The index and its
    usual readings are those of `stability_index`; over `bound` with a full window is drift. Safe to use from several
    threads.
    """

    def __init__(self, *, window: int, bound: float, metrics: Metrics, log: Log) -> None:
        self.bound = bound
        self.warnings = 0
        self._log = log
        self._window = window
        #: (2, WIDTH) each: what a context had, and what was expected of it; and their sum.
        self._seen: deque[Array] = deque()
        self._sum: Array = np.zeros((2, WIDTH))
        self._reference: Reference | None = None
        self._points: OperatingPoints | None = None
        self._is_over = False
        self._lock = threading.Lock()
        if window:
            self._show(metrics)

    def _show(self, metrics: Metrics) -> None:
        for name, (field, text) in _FIGURES.items():
            metrics.watch(f"live_{name}", f"{text}, last requests.", partial(self._figure, 0, field))
            metrics.watch(f"reference_{name}", f"{text}, expected.", partial(self._figure, 1, field))
        metrics.watch("drift", "Population stability index of the scores.", lambda: self.index)
        metrics.watch("drift_warnings", "How often the scores left the reference.", lambda: self.warnings)

    def expect(self, model: PrunerModel) -> None:
        """Compare with the reference of this model from now on; a model without one is never compared."""
        self._reference, self._points = model.reference, model.operating_points

    def note(self, scored: Context) -> None:
        """Take a context in whose units have scores of the model, kept or not."""
        if not self._window or self._reference is None or self._points is None:
            return
        scores = [unit.score for extract in scored.extracts for unit in extract.units]
        if (one := Observation.of(scores, self._points)) is None:
            return
        pair = np.stack([one.values, self._reference.expected(len(scores)).values])
        with self._lock:
            self._seen.append(pair)
            self._sum = self._sum + pair
            if len(self._seen) > self._window:
                self._sum = self._sum - self._seen.popleft()
            self._judge()

    def _judge(self) -> None:
        """One warning a crossing, not one a request."""
        index = self.index
        is_over = len(self._seen) == self._window and index > self.bound
        if is_over and not self._is_over:
            self.warnings += 1
            sides = {"live": 0, "reference": 1}
            figures = {
                f"{side}_{name}": round(self._figure(place, field), 3)
                for name, (field, _) in _FIGURES.items()
                for side, place in sides.items()
            }
            self._log.warning(
                "scores left the reference", index=round(index, 3), bound=self.bound, requests=self._window, **figures
            )
        self._is_over = is_over

    @property
    def index(self) -> float:
        """Of the contexts in the window; NaN before the first."""
        if not self._seen:
            return math.nan
        live, expected = self._mean(0), self._mean(1)
        return stability_index(live.shares, expected.shares, len(self._seen))

    @property
    def state(self) -> str:
        """A word for people: off, no reference, collecting, as expected, or drifted."""
        if not self._window:
            return "off"
        if self._reference is None or self._points is None:
            return "no reference"
        if len(self._seen) < self._window:
            return "collecting"
        return "drifted" if self._is_over else "as expected"

    def _mean(self, side: int) -> Observation:
        # adding and taking away leaves a rounding error behind, which must not make a share negative
        return Observation.from_values(np.clip(self._sum[side] / max(len(self._seen), 1), 0.0, 1.0))

    def _figure(self, side: int, field: str) -> float:
        return float(getattr(self._mean(side), field)) if self._seen else math.nan
