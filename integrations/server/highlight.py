"""Highlighting the sentences of search hits that answer a question, in the shape that search back ends expect."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, Request, Response

from ctxprune.integrations.server.callers import caller_of
from ctxprune.integrations.server.compress import job_from, scored, token_headers
from ctxprune.integrations.server.errors import json_bytes
from ctxprune.integrations.server.lenient import ignored_header
from ctxprune.integrations.server.schemas import HighlightRequest, HighlightResponse, Options
from ctxprune.integrations.server.service import Service
from ctxprune.types import Document, Extract


def highlight_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(tags=["rerank"], route_class=service.route_class, responses=service.error_responses)

    @router.post("/v1/highlight", response_model=HighlightResponse, response_model_exclude_none=True)
    async def highlight(body: HighlightRequest, request: Request) -> Response:
        """The sentences that answer the question, one result a document, in order.

        Nothing is highlighted where nothing answers it. Fails, as reranking does, when the model fails.
        """
        options = Options(threshold=body.threshold, on_empty="drop", language=body.language)
        documents = [Document(each) if isinstance(each, str) else each.document() for each in body.documents]
        caller = caller_of(request.headers)
        job = job_from(options, service, query=body.query, documents=documents, caller=caller)
        outcome = await scored(service, request, job)
        extracts = sorted(outcome.result.after.extracts, key=lambda extract: extract.index)
        rows = await service.engine.in_thread(
            lambda: json_bytes({"results": [highlighted(extract, body) for extract in extracts]})
        )
        headers = token_headers([outcome]) | ignored_header(body.ignored)
        return Response(rows, headers=headers, media_type="application/json")

    return router


def highlighted(extract: Extract, body: HighlightRequest) -> dict[str, Any]:
    """One document's row."""
    text, spans = extract.source.text, list(extract.kept_units())
    if body.number_of_fragments is not None:
        best = sorted(spans, key=lambda span: -span.score)[: body.number_of_fragments]
        spans = sorted(best, key=lambda span: span.start)
    before, after = (body.pre_tags or ["<em>"])[0], (body.post_tags or ["</em>"])[0]
    encoded = html.escape if body.encoder == "html" else str
    offsets = [_trimmed(text, span.start, span.end) for span in spans]
    fragments = [before + encoded(text[start:end]) + after for start, end in offsets]
    row = {
        "index": extract.index,
        "id": extract.source.id,
        "score": extract.score,
        "fragments": fragments,
        "scores": [span.score for span in spans],
        "offsets": offsets,
    }
    if body.highlight_only:
        return row
    pieces, last = list[str](), 0
    for (start, end), fragment in zip(offsets, fragments, strict=True):
        pieces += [encoded(text[last:start]), fragment]
        last = end
    return row | {"text": "".join(pieces) + encoded(text[last:])}


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the white space at the edges, which no tag should hold."""
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())
