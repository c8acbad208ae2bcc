"""What the sidecar answers, as immutable values; fields that a newer server adds are passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ctxprune.errors import CtxpruneError
from ctxprune.result import Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerSpan:
    """Half-open offsets into the document's text, in characters. score: None where it is not finite."""

    start: int
    end: int
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedDocument:
    """What is left of one document. index: its place in the request. dropped: nothing of it is kept.

    kept_spans, removed_spans: None when not asked for, and for summaries. sentences: units that were scored.
    """

    index: int
    id: str
    title: str
    text: str
    score: float | None
    dropped: bool
    sentences: int
    kept_spans: tuple[ServerSpan, ...] | None = None
    removed_spans: tuple[ServerSpan, ...] | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A question's context after compression, in the fields of `CompressionResult.to_dict()`.

    text: what goes into the prompt. model: which scored, where the compressor chooses
    among several. seconds: on the server, by stage. html: when asked for.
    """

    query: str
    compressor: str
    status: Status
    documents: tuple[CompressedDocument, ...]
    text: str
    tokens_before: int
    tokens_after: int
    tokenizer: str
    exact: bool
    reason: str | None = None
    model: str | None = None
    budget: int | None = None
    over_budget: bool | None = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    html: str | None = None

    @property
    def ratio(self) -> float:
        """tokens_before / tokens_after; 4.0 means four times shorter. An emptied context counts as one token."""
        return self.tokens_before / max(self.tokens_after, 1) if self.tokens_before else 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place in the order. index: its place in the request. relevance_score: in [0, 1]."""

    index: int
    relevance_score: float
    text: str | None = None
    pruned_text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A dry run. model_tokens: what the model would read, about. accepted: the server takes a request of this size."""

    compressor: str
    documents: int
    tokens_before: int
    tokenizer: str
    exact: bool
    budget: int | None
    model_tokens: int
    cached_documents: int
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressorInfo:
    """A compressor on offer. threshold: its default; None when a budget or rate must be given. loaded: False while its
    model waits for a first request; threshold and needs_query are then None."""

    name: str
    description: str
    threshold: float | None
    needs_query: bool | None
    default: bool
    loaded: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, and all in flight together, may be."""

    body_bytes: int
    documents: int
    batch: int
    requests_in_flight: int
    tokens_in_flight: int
    deadline_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What the server is and takes. proxy: whether it stands before an OpenAI-compatible API."""

    name: str
    version: str
    model: str
    device: str
    default_compressor: str
    compressors: tuple[str, ...]
    tokenizers: tuple[str, ...]
    proxy: bool
    limits: Limits


def compressed(row: Mapping[str, Any]) -> Compressed:
    """Raises TypeError or LookupError for a row that lacks a field, like the other readers here."""
    documents = tuple(map(_document, row["documents"]))
    return _made(Compressed, row, documents=documents, warnings=tuple(row.get("warnings") or ()))


def ranked(row: Mapping[str, Any]) -> tuple[Ranked, ...]:
    return tuple(_made(Ranked, found, text=(found.get("document") or {}).get("text")) for found in row["results"])


def estimate(row: Mapping[str, Any]) -> Estimate:
    return _made(Estimate, row)


def compressor_infos(row: Mapping[str, Any]) -> tuple[CompressorInfo, ...]:
    return tuple(_made(CompressorInfo, offer) for offer in row["compressors"])


def server_info(row: Mapping[str, Any]) -> ServerInfo:
    names = {name: tuple(row[name]) for name in ("compressors", "tokenizers")}
    return _made(ServerInfo, row, **names, limits=_made(Limits, row["limits"]))


def _document(row: Mapping[str, Any]) -> CompressedDocument:
    spans = {
        name: tuple(_made(ServerSpan, span) for span in row[name])
        for name in ("kept_spans", "removed_spans")
        if row.get(name) is not None
    }
    return _made(CompressedDocument, row, **spans)


def _made(kind: type[T], row: Mapping[str, Any], **values: Any) -> T:
    known = {item.name: row[item.name] for item in fields(kind) if item.name in row}  # type: ignore[arg-type]
    return kind(**(known | values))


class SidecarError(CtxpruneError):
    """status: of the answer, None without one. error_type: the server's word, such as "Validation"; "" without one.

    request_id: as in the server's log. retry_after: seconds to wait, where the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_type: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.request_id = request_id
        self.retry_after = retry_after


class NoAnswerError(SidecarError):
    """The sidecar was not reached, broke off, or took longer than `timeout`."""


class RefusedError(SidecarError, ValueError):
    """The server takes no such request; sending it again would not help."""


class UnauthorizedError(SidecarError):
    """The server wants a key, or another one."""


class OverloadedError(SidecarError):
    """The server takes no more now, also after the client's own retries."""


class SidecarFailedError(SidecarError):
    """The server could not answer, or what answered is no sidecar."""


_BY_STATUS: dict[int, type[SidecarError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    408: SidecarFailedError,
    424: SidecarFailedError,
    429: OverloadedError,
    503: OverloadedError,
}


def error_of(status: int, body: bytes, *, request_id: str = "", retry_after: float | None = None) -> SidecarError:
    """The error that an answer other than 200 stands for. Gateways in between answer in shapes of their own."""
    kind = _BY_STATUS.get(status, RefusedError if 400 <= status < 500 else SidecarFailedError)
    message, error_type = _said(body)
    return kind(
        f"the sidecar answered {status}" + (f" ({error_type}): {message}" if error_type else f": {message}"),
        status=status,
        error_type=error_type,
        request_id=request_id,
        retry_after=retry_after,
    )


def _said(body: bytes) -> tuple[str, str]:
    try:
        row = json.loads(body)
        return str(row["error"]), str(row["error_type"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return f"{body[:200].decode('utf-8', 'replace') or '(nothing)'}; is this the sidecar's address?", ""
