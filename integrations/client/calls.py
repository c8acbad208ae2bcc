"""Each of the sidecar's routes as a value: what is sent, and how the answer is read. Nothing here touches a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Required, TypeAlias, TypedDict, TypeVar

from ctxprune.errors import InputError
from ctxprune.integrations.client import results
from ctxprune.integrations.client.results import Compressed, CompressorInfo, Estimate, Ranked, ServerInfo
from ctxprune.operating_points import PointName
from ctxprune.select import OnEmpty, Order
from ctxprune.text import UnitKind
from ctxprune.types import Document

T_co = TypeVar("T_co", covariant=True)
#: A mapping has the server's fields: text, and optionally id, title and metadata.
AnyDocument: TypeAlias = "str | Document | Mapping[str, Any]"


class CompressOptions(TypedDict, total=False):
    """How to compress; with none of threshold, operating_point, rate, budget, top_p and gap the compressor's own
    threshold holds.

    compressor: by default the server's. threshold: in [0, 1]; keep what scores at least this. operating_point: "safe",
    "balanced" or "aggressive", in place of a threshold. rate: in (0, 1]; keep at most this share of the tokens. budget:
    keep at most so many tokens in all. tokenizer: what counts them, one of `info().tokenizers`. protect: regular
    expressions; a sentence that one touches is kept. keep_title, min_keep, floor, top_p, gap, companions, on_empty,
    order, elision: as in `ctxprune.Policy`. language: of the documents, e.g. "de". units: what to choose among,
    "sentences", "lines", "records" or "paragraphs". None is as good as leaving an option out.
    """

    compressor: str | None
    threshold: float | None
    operating_point: PointName | None
    rate: float | None
    budget: int | None
    tokenizer: str | None
    protect: Sequence[str] | None
    keep_title: bool | None
    min_keep: int | None
    floor: float | None
    top_p: float | None
    gap: Sequence[int] | None
    companions: bool | None
    on_empty: OnEmpty | None
    order: Order | None
    language: str | None
    units: UnitKind | None
    elision: str | None
    return_spans: bool
    return_html: bool


class CompressRequest(CompressOptions, total=False):
    """One question of a batch, with its own options."""

    query: Required[str]
    documents: Required[Sequence[AnyDocument]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """body: None for GET. read: from the parsed answer; raises TypeError, LookupError or AttributeError when unfit."""

    path: str
    body: bytes | None
    read: Callable[[Any], T_co]

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


COMPRESSORS: Call[tuple[CompressorInfo, ...]] = Call("/v1/compressors", None, results.compressor_infos)
INFO: Call[ServerInfo] = Call("/info", None, results.server_info)


def compress_call(query: str, documents: Sequence[AnyDocument], options: CompressOptions) -> Call[Compressed]:
    """The options must be those of CompressOptions: the server refuses others by name."""
    return Call("/v1/compress", _json(_request(query, documents, options)), results.compressed)


def batch_call(requests: Sequence[CompressRequest]) -> Call[list[Compressed]]:
    rows = []
    for request in requests:
        options: dict[str, Any] = {name: value for name, value in request.items() if name not in ("query", "documents")}
        rows.append(_request(request["query"], request["documents"], options))
    return Call(
        "/v1/compress/batch", _json({"requests": rows}), lambda row: [results.compressed(one) for one in row["results"]]
    )


def estimate_call(query: str, documents: Sequence[AnyDocument], options: CompressOptions) -> Call[Estimate]:
    return Call("/v1/estimate", _json(_request(query, documents, options)), results.estimate)


def rerank_call(
    query: str, documents: Sequence[str], *, top_n: int | None, return_documents: bool, pruned_text: bool
) -> Call[tuple[Ranked, ...]]:
    row = {
        "query": query,
        "documents": _listed(documents),
        "return_documents": return_documents,
        "pruned_text": pruned_text,
    }
    return Call("/v1/rerank", _json(row | ({} if top_n is None else {"top_n": top_n})), results.ranked)


def _request(query: str, documents: Sequence[AnyDocument], options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("protect", "gap"):
        if name in given:
            given[name] = _listed(given[name], name=name)
    return given | {"query": query, "documents": [_sent(document) for document in _listed(documents)]}


def _sent(document: AnyDocument) -> Any:
    """A document as the server takes it; a retriever's score is not sent, since the server has no use for it."""
    if not isinstance(document, Document):
        return document
    row: dict[str, Any] = {"text": document.text, "id": document.id, "title": document.title}
    return row | ({"metadata": dict(document.metadata)} if document.metadata else {})


def _listed(values: Sequence[Any], *, name: str = "documents") -> list[Any]:
    if isinstance(values, str | bytes | Mapping):
        raise InputError(f"{name} must be a sequence, got one {type(values).__name__}; wrap it in a list")
    return list(values)


def _json(value: Mapping[str, Any]) -> bytes:
    """ASCII with escapes, so that lone surrogates travel too."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"the request is not JSON ({error}); convert metadata to plain values first") from None
