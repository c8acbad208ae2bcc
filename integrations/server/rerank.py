"""Ranking documents in three vendors' dialects.

Jina: /v1/rerank; Cohere: /v2/rerank; Text Embeddings Inference: /rerank. Shapes follow their public API references.
Every dialect takes `top_n`, and `top_k` as Voyage and Mixedbread call it. Fields that they know and this server has no
use for are ignored, as are unknown ones, which the answer names, so that their clients work as they are.
`pruned_text: true` is ours: each result then carries the document with only what helps with the question.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator

from ctxprune.integrations.numbers import WHOLE
from ctxprune.integrations.server.callers import caller_of
from ctxprune.integrations.server.compress import scored, token_headers
from ctxprune.integrations.server.engine.catalog import RERANKER
from ctxprune.integrations.server.engine.jobs import Job, Outcome
from ctxprune.integrations.server.engine.queue import public_name
from ctxprune.integrations.server.errors import json_bytes
from ctxprune.integrations.server.json_types import AnyText, Question
from ctxprune.integrations.server.lenient import LENIENT, Lenient, ignored_header, ignored_warnings
from ctxprune.integrations.server.schemas import CohereResponse, JinaResponse, TeiRank
from ctxprune.integrations.server.service import Service
from ctxprune.runtime import sigmoid
from ctxprune.types import Document, Extract, TokenCounter

#: What other servers call a chunk of a long document.
CHUNK_TOKENS = 512
#: Characters that a token rarely exceeds: what comes after that many times the number is not looked at.
_LONGEST = 16
_WORD = re.compile(r"\S+\s*")

Count = Annotated[int, Field(gt=0), WHOLE]
_EXAMPLE: dict[str, Any] = {
    "query": "When was the bridge opened?",
    "documents": ["The ferry runs every hour.", "The bridge was opened in 1911."],
    "top_n": 1,
}


@dataclass(frozen=True, slots=True)
class Cuts:
    """Numbers of tokens; None: all. together: of the query and a document."""

    query: int | None = None
    document: int | None = None
    together: int | None = None

    def applied(self, query: str, texts: Sequence[str], counter: TokenCounter) -> tuple[str, list[str]]:
        """Query and texts, each at most so long; something of each text is always left."""
        asked = query if self.query is None else beginning(query, self.query, counter)
        room = self.document
        if self.together is not None:
            left = max(self.together - counter.count([asked])[0], 1)
            room = left if room is None else min(room, left)
        return asked, list(texts) if room is None else [beginning(text, room, counter) for text in texts]


def beginning(text: str, tokens: int, counter: TokenCounter) -> str:
    """Whole words from the start, as many as have at most so many tokens; the first word in any case."""
    ends = [found.end() for found in _WORD.finditer(text[: tokens * _LONGEST])]
    low, high = 1, len(ends)
    if not ends or (ends[-1] == len(text) and counter.count([text])[0] <= tokens):
        return text
    while low < high:
        middle = (low + high + 1) // 2
        if counter.count([text[: ends[middle - 1]]])[0] <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[: ends[low - 1]].rstrip()


class TextDocument(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
    text: AnyText


_Documents = Annotated[
    list[
        Annotated[
            Annotated[AnyText, Tag("as_text")] | Annotated[TextDocument, Tag("as_object")],
            Discriminator(lambda value: "as_text" if isinstance(value, str) else "as_object"),
        ]
    ],
    FailFast(),
]


class _Rerank(Lenient):
    query: Question
    top_n: Count | None = Field(default=None, description="Return only so many of the best (default: all).")
    top_k: Count | None = Field(default=None, description="The same, under another name.")
    pruned_text: bool | None = Field(default=False, description="Give each document's text with only what helps.")
    language: str | None = Field(
        default=None, max_length=35, description="Of the documents, e.g. de or pt-BR; by default each one's is guessed."
    )

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if self.top_n is not None and self.top_k is not None and self.top_n != self.top_k:
            raise ValueError(f"give top_n or top_k, not both: got {self.top_n} and {self.top_k}")
        return self

    @property
    def most(self) -> int | None:
        """How many results are wanted; None: all."""
        return self.top_k if self.top_n is None else self.top_n


class _Cut(_Rerank):
    """What other servers cut long inputs by. A text that is cut is only ranked by its beginning."""

    max_tokens_per_query: Count | None = Field(default=None, description="Read so many tokens of the query.")
    truncate_prompt_tokens: Annotated[int, Field(ge=-1), WHOLE] | None = Field(
        default=None, description="Read so many tokens of query and document together; -1 and null: all."
    )
    max_chunks_per_doc: Count | None = Field(default=None, description=f"Read {CHUNK_TOKENS} tokens times that.")

    @property
    def cuts(self) -> Cuts:
        together = self.truncate_prompt_tokens if (self.truncate_prompt_tokens or 0) > 0 else None
        chunks = None if self.max_chunks_per_doc is None else self.max_chunks_per_doc * CHUNK_TOKENS
        return Cuts(query=self.max_tokens_per_query, document=chunks, together=together)


class JinaRequest(_Cut):
    model_config = ConfigDict(**LENIENT, json_schema_extra={"examples": [_EXAMPLE]})
    model: str | None = Field(default=None, description="Ignored: the server has one reranker.")
    documents: _Documents
    return_documents: bool | None = True


class CohereRequest(_Cut):
    model_config = ConfigDict(**LENIENT, json_schema_extra={"examples": [_EXAMPLE | {"model": "any"}]})
    model: str | None = Field(default=None, description="Ignored: the server has one reranker.")
    documents: _Documents
    max_tokens_per_doc: Annotated[int, WHOLE] | None = Field(
        default=None, description="Ignored: long documents are read to their end."
    )
    return_documents: bool | None = False


class TeiRequest(_Rerank):
    model_config = ConfigDict(
        **LENIENT, json_schema_extra={"examples": [{"query": _EXAMPLE["query"], "texts": _EXAMPLE["documents"]}]}
    )
    texts: Annotated[list[AnyText], FailFast()]
    raw_scores: bool | None = Field(default=False, description="Log-odds instead of probabilities.")
    return_text: bool | None = False
    truncate: bool | None = Field(default=None, description="Ignored: long texts are read to their end.")


def _dialect(body: Any) -> str:
    has_documents = isinstance(body, dict) and "documents" in body and "texts" not in body
    return "as_jina" if has_documents or isinstance(body, JinaRequest) else "as_tei"


TeiOrJina = Annotated[
    Annotated[TeiRequest, Tag("as_tei")] | Annotated[JinaRequest, Tag("as_jina")], Discriminator(_dialect)
]


@dataclass(frozen=True, slots=True)
class Reranking:
    """The routes' answers, over one service."""

    service: Service

    async def jina(self, body: JinaRequest, request: Request) -> Response:
        """Jina's dialect."""
        extracts, outcome = await self._ranked(request, body, [_text(document) for document in body.documents])
        scores = probability_of(self.service, outcome)
        tokens, with_text = outcome.result.tokens_before, body.return_documents is not False

        def answer() -> dict[str, Any]:
            row: dict[str, Any] = {
                "model": outcome.result.model or public_name(self.service.engine.runner.catalog.pruner),
                "object": "list",
                "results": [
                    _result(extract, scores(extract), with_text=with_text, pruned=body.pruned_text)
                    for extract in extracts[: body.most]
                ],
                "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
            }
            return row | ignored_warnings(body.ignored)

        return await _written(self.service, answer, outcome, body)

    async def cohere(self, body: CohereRequest, request: Request) -> Response:
        """Cohere's dialect."""
        extracts, outcome = await self._ranked(request, body, [_text(document) for document in body.documents])
        scores = probability_of(self.service, outcome)

        def answer() -> dict[str, Any]:
            results = [
                _result(extract, scores(extract), with_text=body.return_documents, pruned=body.pruned_text)
                for extract in extracts[: body.most]
            ]
            meta = {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": outcome.result.tokens_before},
            }
            told = meta | ignored_warnings(body.ignored)
            return {"id": str(uuid.uuid4()), "results": results, "meta": told}

        return await _written(self.service, answer, outcome, body)

    async def tei(self, body: TeiOrJina, request: Request) -> Response:
        """The dialect of Text Embeddings Inference; with `documents` in place of `texts` Jina's, as other servers
        answer it here."""
        if isinstance(body, JinaRequest):
            return await self.jina(body, request)
        extracts, outcome = await self._ranked(request, body, body.texts)
        scores = probability_of(self.service, outcome)

        def row(extract: Extract) -> dict[str, Any]:
            score = scores(extract)
            named: dict[str, Any] = {"index": extract.index, "score": _log_odds(score) if body.raw_scores else score}
            named |= {"text": extract.source.text} if body.return_text else {}
            return named | ({"pruned_text": extract.text} if body.pruned_text else {})

        return await _written(self.service, lambda: list(map(row, extracts[: body.most])), outcome, body)

    async def _ranked(self, request: Request, body: _Rerank, texts: list[str]) -> tuple[list[Extract], Outcome]:
        cuts = body.cuts if isinstance(body, _Cut) else Cuts()
        if cuts == Cuts():
            return await rank(self.service, request, body.query, texts, language=body.language)
        runner = self.service.engine.runner
        query, read = await self.service.engine.in_thread(
            lambda: cuts.applied(body.query, texts, runner.catalog.counter("default"))
        )
        extracts, outcome = await rank(self.service, request, query, read, language=body.language)
        return [_whole(extract, texts[extract.index]) for extract in extracts], outcome


def rerank_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(tags=["rerank"], route_class=service.route_class, responses=service.error_responses)
    answers = Reranking(service)
    without_none: dict[str, Any] = {"response_model_exclude_none": True}
    router.post("/v1/rerank", response_model=JinaResponse, **without_none)(answers.jina)
    router.post("/v2/rerank", response_model=CohereResponse, **without_none)(answers.cohere)
    example = {"query": _EXAMPLE["query"], "texts": _EXAMPLE["documents"]}
    shown = {"requestBody": {"content": {"application/json": {"example": example}}}}
    router.post("/rerank", response_model=list[TeiRank] | JinaResponse, openapi_extra=shown, **without_none)(
        answers.tei
    )
    return router


async def rank(
    service: Service, request: Request, query: str, texts: list[str], *, language: str | None = None
) -> tuple[list[Extract], Outcome]:
    """The documents, most relevant first, each pruned at the default threshold. Earlier ones win ties.

    Raises ApiError 424 when the model failed and 504 when it was too slow: a made-up order would help nobody.
    """
    documents = tuple(map(Document, texts))
    caller = caller_of(request.headers)
    job = Job(query=query, documents=documents, compressor=RERANKER, language=language, caller=caller)
    outcome = await scored(service, request, job)
    extracts = sorted(outcome.result.after.extracts, key=lambda extract: -_relevance(extract))
    return extracts, outcome


async def _written(service: Service, answer: Callable[[], Any], outcome: Outcome, body: Lenient) -> Response:
    """The answer as JSON, put together in a thread when the texts in it are long."""
    size = sum(len(extract.source.text) for extract in outcome.result.after.extracts)
    content = await service.engine.in_thread(lambda: json_bytes(answer()), size=size)
    headers = token_headers([outcome]) | ignored_header(body.ignored)
    return Response(content, headers=headers, media_type="application/json")


def probability_of(service: Service, outcome: Outcome) -> Callable[[Extract], float]:
    """From a scored document to its relevance in [0, 1], whatever scale the model's scores have."""
    is_logit = service.engine.runner.model_of(outcome).score == "logit"

    def probability(extract: Extract) -> float:
        score = _relevance(extract)
        if score == -math.inf:
            return 0.0
        return float(sigmoid(np.array(score))) if is_logit else score

    return probability


def _relevance(extract: Extract) -> float:
    """A document without any text was not judged: it comes last."""
    return -math.inf if extract.score is None or not extract.units else extract.score


def _result(extract: Extract, score: float, *, with_text: bool | None, pruned: bool | None) -> dict[str, Any]:
    row: dict[str, Any] = {"index": extract.index, "relevance_score": score}
    row |= {"document": {"text": extract.source.text}} if with_text else {}
    return row | ({"pruned_text": extract.text} if pruned else {})


def _whole(extract: Extract, text: str) -> Extract:
    """The ranked beginning with all of its document again; the offsets stay right."""
    return replace(extract, source=replace(extract.source, text=text))


def _text(document: str | TextDocument) -> str:
    return document if isinstance(document, str) else document.text


def _log_odds(probability: float) -> float:
    inside = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(inside / (1 - inside))
