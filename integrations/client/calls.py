"""What the methods of both clients ask the sidecar for: the path, the body, and how the answer is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Required, TypeAlias, TypedDict, TypeVar

from ctxprune.calibration import PointName
from ctxprune.documents import listed
from ctxprune.errors import InputError
from ctxprune.integrations.client import results
from ctxprune.integrations.client.results import Compressed, CompressorInfo, Estimate, Ranked, ServerInfo
from ctxprune.plain import checked_whole, plain_budget, plain_threshold
from ctxprune.select import OnEmpty, Order
from ctxprune.text import UnitKind
from ctxprune.types import Document

T_co = TypeVar("T_co", covariant=True)
#: A string, a mapping with the fields of the server (text, id, title, metadata), or what `Document.of` reads.
AnyDocument: TypeAlias = object


class CompressOptions(TypedDict, total=False):
    """How to compress; with none of threshold, operating_point, rate, budget, top_p and gap the compressor's own
    threshold holds.

    compressor: by default the server's. threshold: in [0, 1]; keep what scores at least this. operating_point: "safe",
    "balanced" or "aggressive", in place of a threshold. rate: in (0, 1]; keep at most this share of the tokens. budget:
    keep at most so many tokens in all. tokenizer: what counts them, one of `info().tokenizers`. protect: regular
    expressions; a sentence that one touches is kept. keep_title, min_keep, floor, empty_below, top_p, gap, companions,
    repeats, on_empty, order, elision: as in `ctxprune.Policy`. language: of the documents, e.g. "de". units: what to
    choose among, "sentences", "lines", "records" or "paragraphs". None is as good as leaving an option out.
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
    empty_below: float | None
    top_p: float | None
    gap: Sequence[int] | None
    companions: bool | None
    repeats: bool | None
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
    row: dict[str, Any] = {
        "query": query,
        "documents": listed(documents),
        "return_documents": return_documents,
        "pruned_text": pruned_text,
    }
    if top_n is not None:
        row["top_n"] = checked_whole("top_n", top_n, least=1)
    return Call("/v1/rerank", _json(row), results.ranked)


def _request(query: str, documents: Sequence[AnyDocument], options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("protect", "gap"):
        if name in given:
            given[name] = _listed(given[name], name)
    if "budget" in given:
        given["budget"] = plain_budget(given["budget"])
    if "threshold" in given:
        given["threshold"] = plain_threshold(given["threshold"])
    return given | {"query": query, "documents": [_sent(document) for document in listed(documents)]}


def _sent(document: AnyDocument) -> Any:
    """A document as the server takes it; a retriever's score is not sent, since the server has no use for it."""
    if isinstance(document, str | Mapping):
        return document
    read = Document.of(document)
    row: dict[str, Any] = {"text": read.text, "id": read.id, "title": read.title}
    return row | ({"metadata": dict(read.metadata)} if read.metadata else {})


def _listed(values: Sequence[Any], name: str) -> list[Any]:
    if isinstance(values, str | bytes | Mapping):
        raise InputError(f"{name} must be a sequence, got one {type(values).__name__}; wrap it in a list")
    return list(values)


def _json(value: Mapping[str, Any]) -> bytes:
    """ASCII with escapes, so that lone surrogates travel too."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"the request is not JSON ({error}); convert metadata to plain values first") from None
