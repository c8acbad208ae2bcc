"""What Prometheus scrapes: requests, queue, inference, batches, tokens, ratios, degraded answers, cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ctxprune.errors import MissingExtraError
from ctxprune.result import CompressionResult

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
