"""What Prometheus scrapes: requests, queue, inference, batches, tokens, ratios, degraded answers, cache."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
