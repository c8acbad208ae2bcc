"""POST /v1/compress, /v1/compress/batch and /v1/estimate; GET /v1/compressors and /info."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Discriminator, Tag

from ctxprune import __version__
from ctxprune.errors import InputError
from ctxprune.integrations.server import schemas
from ctxprune.integrations.server.callers import caller_of
from ctxprune.integrations.server.engine.jobs import Job, Outcome
from ctxprune.integrations.server.errors import ApiError, json_bytes, json_response
from ctxprune.integrations.server.gate import note
from ctxprune.integrations.server.gateway.schemas import HeadroomRequest, HeadroomResponse
from ctxprune.integrations.server.patterns import Pattern, checked_patterns
from ctxprune.integrations.server.service import Service, told_headers, while_connected
from ctxprune.types import Document, Extract, Span

#: Spans that are written before other threads may have a turn, about a millisecond.
PIECE_SPANS = 1000


def object_bytes(row: Mapping[str, Any], extracts: Mapping[int, Extract]) -> Iterator[bytes]:
    """`row` with `kept_spans` and `removed_spans` in each of its documents that `extracts` has, by index."""
    separator = b"{"
    for name, value in row.items():
        yield separator + json_bytes(name) + b":"
        separator = b","
        if name == "documents":
            yield from array_bytes(_document(document, extracts.get(document["index"])) for document in value)
        else:
            yield json_bytes(value)
    yield b"}"


def array_bytes(entries: Iterator[Iterator[bytes]]) -> Iterator[bytes]:
    separator = b"["
    for entry in entries:
        yield separator
        yield from entry
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def _document(document: Mapping[str, Any], extract: Extract | None) -> Iterator[bytes]:
    whole = json_bytes(document)
    if extract is None:
        yield whole
        return
    yield whole[:-1] + b',"kept_spans":'
    yield from _spans(extract.kept_units())
    yield b',"removed_spans":'
    yield from _spans(extract.removed_units())
    yield b"}"


def _spans(units: Iterator[Span]) -> Iterator[bytes]:
    separator = b"["
    while piece := list(islice(units, PIECE_SPANS)):
        yield separator + ",".join(map(_span, piece)).encode()
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def _span(unit: Span) -> str:
    score = repr(float(unit.score)) if math.isfinite(unit.score) else "null"
    return f'{{"start":{unit.start},"end":{unit.end},"score":{score}}}'


#: An answer of no more sentences and tokens is written in about a millisecond, less than another thread costs.
SMALL_UNITS, SMALL_TOKENS = 100, 4000
#: Compiling a pattern takes as long as looking at so many characters, and more.
PATTERN_SIZE = 100_000
_POLICY = (
    "keep_title",
    "min_keep",
    "floor",
    "empty_below",
    "top_p",
    "companions",
    "repeats",
    "on_empty",
    "order",
    "elision",
)


Conversations = Callable[[HeadroomRequest, Request], Awaitable[Response]]


def _dialect(body: Any) -> str:
    return (
        "as_messages"
        if isinstance(body, HeadroomRequest)
        or (isinstance(body, dict) and "messages" in body and "documents" not in body)
        else "as_documents"
    )


DocumentsOrMessages = Annotated[
    Annotated[schemas.CompressRequest, Tag("as_documents")] | Annotated[HeadroomRequest, Tag("as_messages")],
    Discriminator(_dialect),
]


@dataclass(frozen=True, slots=True)
class Compressing:
    """The routes' answers, over one service. conversations: answers what comes as messages instead of documents."""

    service: Service
    conversations: Conversations

    async def compress(self, body: DocumentsOrMessages, request: Request) -> Response:
        """Keep what helps to answer the question.

        The text of each document is made of slices of the original, whose offsets are given. `messages` in place of
        `documents` are answered in Headroom's shape: as many of them, those that hold retrieved text shorter.
        """
        if isinstance(body, HeadroomRequest):
            return await self.conversations(body, request)
        service, caller = self.service, caller_of(request.headers)
        job = await service.engine.in_thread(lambda: job_of(body, service, caller=caller), size=size_of(body))
        (outcome,) = await while_connected(request, service.engine.compress([job], seconds=seconds_of(request)))
        log_outcomes(service, request, [job], [outcome])
        return await _rendered(service, lambda: response_bytes(body, outcome), [outcome])

    async def compress_batch(self, body: schemas.BatchRequest, request: Request) -> Response:
        """Several requests at once, answered in order; one that cannot be answered fails them all."""
        service, caller = self.service, caller_of(request.headers)
        size = sum(map(size_of, body.requests))
        jobs = await service.engine.in_thread(lambda: jobs_of(body, service, caller=caller), size=size)
        outcomes = await while_connected(request, service.engine.compress(jobs, seconds=seconds_of(request)))
        log_outcomes(service, request, jobs, outcomes)
        pairs = list(zip(body.requests, outcomes, strict=True))

        def pieces() -> Iterator[bytes]:
            yield b'{"results":'
            yield from array_bytes(response_bytes(*pair) for pair in pairs)
            yield b"}"

        return await _rendered(service, pieces, outcomes)

    async def estimate(self, body: schemas.CompressRequest, request: Request) -> Response:
        """What a request would mean in tokens, without running a model."""
        engine, caller = self.service.engine, caller_of(request.headers)
        job = await engine.in_thread(lambda: job_of(body, self.service, caller=caller), size=size_of(body))
        runner = engine.runner
        plan = await engine.in_thread(lambda: runner.plan(job))
        row = {
            "compressor": job.compressor,
            "documents": len(job.documents),
            "tokens_before": plan.tokens_before,
            "tokenizer": plan.tokenizer,
            "exact": plan.exact,
            "budget": plan.budget,
            "model_tokens": job.cost,
            "cached_documents": plan.known,
            "accepted": engine.accepts([job]),
        }
        return json_response(row)

    async def compressors(self) -> Response:
        """The compressors that requests may name. Loads none of them."""
        runner = self.service.engine.runner
        offers = await self.service.engine.in_thread(runner.catalog.offers)
        rows = [
            {
                "name": offer.name,
                "description": offer.description,
                "loaded": offer.is_loaded,
                "threshold": offer.threshold,
                "needs_query": offer.needs_query,
                "default": offer.name == self.service.settings.default_compressor,
            }
            for offer in offers
        ]
        return json_response({"compressors": rows})

    async def info(self) -> Response:
        """What this server is, offers and takes."""
        settings, model = self.service.settings, self.service.engine.runner.catalog.pruner
        return json_response(
            {
                "name": "ctxprune",
                "version": __version__,
                "model": model.name.replace("\\", "/").rsplit("/", 1)[-1],  # a folder's path is nobody's business
                "device": str(model.runtime.device),
                "default_compressor": settings.default_compressor,
                "compressors": list(settings.compressors),
                "tokenizers": list(settings.tokenizers),
                "proxy": settings.upstream_url is not None,
                "limits": {
                    "body_bytes": settings.max_body_bytes,
                    "documents": settings.max_documents,
                    "batch": settings.max_batch,
                    "requests_in_flight": settings.max_requests,
                    "tokens_in_flight": settings.max_queue_tokens,
                    "units_in_flight": settings.max_queue_units,
                    "caller_share": self.service.engine.share,
                    "deadline_seconds": settings.deadline_seconds,
                },
            }
        )


def compress_routes(service: Service, conversations: Conversations) -> APIRouter:
    """The routes over one service. conversations: answers what comes as messages instead of documents."""
    router = APIRouter(tags=["compress"], route_class=service.route_class, responses=service.error_responses)
    answers = Compressing(service, conversations)
    shown = {"requestBody": {"content": {"application/json": {"example": schemas.EXAMPLE}}}}
    without_none: dict[str, Any] = {"response_model_exclude_none": True}
    either = schemas.CompressResponse | HeadroomResponse
    router.post("/v1/compress", response_model=either, openapi_extra=shown, **without_none)(answers.compress)
    router.post("/v1/compress/batch", response_model=schemas.BatchResponse, **without_none)(answers.compress_batch)
    router.post("/v1/estimate", response_model=schemas.EstimateResponse)(answers.estimate)
    router.get("/v1/compressors", response_model=schemas.CompressorsResponse)(answers.compressors)
    router.get("/info", response_model=schemas.InfoResponse)(answers.info)
    return router


def size_of(body: schemas.CompressRequest) -> int:
    """Characters to look at before there is a job; a pattern, which must be compiled, counts as many."""
    texts = (item if isinstance(item, str) else item.text for item in body.documents)
    return PATTERN_SIZE * len(body.protect or ()) + sum(map(len, texts))


def jobs_of(body: schemas.BatchRequest, service: Service, *, caller: bytes) -> list[Job]:
    """The requests in order. Raises ApiError 422 for more patterns in all of them than one may have."""
    patterns = {pattern for request in body.requests for pattern in request.protect or ()}
    if len(patterns) > schemas.MAX_PATTERNS:
        limit = schemas.MAX_PATTERNS
        raise ApiError(422, f"the batch has {len(patterns)} different protect patterns, at most {limit}; split it")
    known: dict[str, Pattern] = {}
    return [
        job_of(one, service, caller=caller, place=f"requests[{at}].", known=known)
        for at, one in enumerate(body.requests)
    ]


def job_of(
    body: schemas.CompressRequest,
    service: Service,
    *,
    caller: bytes,
    place: str = "",
    known: dict[str, Pattern] | None = None,
) -> Job:
    """The request as the engine takes it. Raises ApiError 422 for a bad pattern."""
    documents = tuple(Document(item) if isinstance(item, str) else item.document() for item in body.documents)
    try:
        return job_from(body, service, query=body.query, documents=documents, caller=caller, known=known)
    except InputError as error:
        raise ApiError(422, f"{place}{error}") from None


def job_from(
    options: schemas.Options,
    service: Service,
    *,
    query: str,
    documents: Sequence[Document],
    caller: bytes,
    known: dict[str, Pattern] | None = None,
) -> Job:
    policy: dict[str, Any] = {name: value for name in _POLICY if (value := getattr(options, name)) is not None}
    if options.gap is not None:
        policy["gap"] = tuple(options.gap)
    if options.protect:
        policy["protect"] = checked_patterns(
            options.protect,
            regex=service.settings.protect_regex,
            texts=[document.text for document in documents],
            known=known,
        )
    return Job(
        query=query,
        documents=tuple(documents),
        compressor=options.compressor or service.settings.default_compressor,
        tokenizer=options.tokenizer or "default",
        threshold=options.threshold,
        operating_point=options.operating_point,
        budget=options.budget,
        rate=options.rate,
        policy=policy,
        language=options.language,
        unit_kind=options.units,
        caller=caller,
    )


def response_bytes(body: schemas.CompressRequest, outcome: Outcome) -> Iterator[bytes]:
    """`CompressionResult.to_dict()`, with the number of sentences, metadata and what else was asked for."""
    row = outcome.result.to_dict(spans=False)
    extracts = {extract.index: extract for extract in outcome.result.after.extracts}
    for document in row["documents"]:
        extract = extracts.get(document["index"])
        document["sentences"] = 0 if extract is None else len(extract.units)
        source = body.documents[document["index"]] if document["index"] < len(body.documents) else ""
        if isinstance(source, schemas.DocumentIn) and source.metadata is not None:
            document["metadata"] = source.metadata
    row["seconds"] = {"queue": outcome.queue_seconds, **row["seconds"]}
    row |= {"html": outcome.result.to_html()} if body.return_html else {}
    return object_bytes(row, extracts if body.return_spans is not False else {})


def token_headers(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """x-ctxprune-status and the tokens before and after, of all results together."""
    results = [outcome.result for outcome in outcomes]
    states = {result.status for result in results}
    status = next((state for state in ("degraded", "compressed") if state in states), "passthrough")
    before, after = (sum(getattr(each, name) for each in results) for name in ("tokens_before", "tokens_after"))
    return told_headers(status, before, after)


async def scored(service: Service, request: Request, job: Job) -> Outcome:
    """What came of one job, for routes that must not make anything up: ApiError 424 when the model failed, and 504 when
    it was too slow."""
    (outcome,) = await while_connected(request, service.engine.compress([job], seconds=seconds_of(request)))
    log_outcomes(service, request, [job], [outcome])
    if outcome.cause:
        raise ApiError(504 if outcome.cause == "deadline" else 424, outcome.result.reason or outcome.cause)
    return outcome


def seconds_of(request: Request) -> float | None:
    """The caller's own deadline, of the header x-ctxprune-timeout. Raises ApiError 422 for no positive number."""
    asked = request.headers.get("x-ctxprune-timeout")
    if asked is None:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ApiError(422, f"x-ctxprune-timeout must be a positive number of seconds, got {asked!r:.40}")
    return seconds


async def _rendered(service: Service, pieces: Callable[[], Iterator[bytes]], outcomes: Sequence[Outcome]) -> Response:
    """Rendered in a thread when the answer is large, which takes a while to write."""
    units = sum(len(extract.units) for outcome in outcomes for extract in outcome.result.after.extracts)
    is_small = units <= SMALL_UNITS and sum(outcome.result.tokens_before for outcome in outcomes) <= SMALL_TOKENS
    body = b"".join(pieces()) if is_small else await service.engine.in_thread(lambda: b"".join(pieces()))
    return Response(body, headers=token_headers(outcomes), media_type="application/json")


def log_outcomes(service: Service, request: Request, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
    """Put what was done into the request's line of the log."""
    results = [outcome.result for outcome in outcomes]
    note(
        request.scope,
        compressor=jobs[0].compressor or "rerank",
        documents=sum(len(job.documents) for job in jobs),
        result=token_headers(outcomes)["x-ctxprune-status"],
        tokens_before=sum(result.tokens_before for result in results),
        tokens_after=sum(result.tokens_after for result in results),
    )
    if service.settings.log_text:
        texts = [{"query": job.query, "documents": [document.text for document in job.documents]} for job in jobs]
        note(request.scope, texts=texts)
