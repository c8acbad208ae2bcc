"""OpenTelemetry, when switched on: one span a request, as a child of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from ctxprune.errors import MissingExtraError

#: What a span tells of the notes for the log; never any text.
_TOLD = ("compressor", "documents", "result", "reason", "tokens_before", "tokens_after")


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
                if request.status >= 500:
                    span.set_status(trace.StatusCode.ERROR)

    return traced
