"""Compresr's dialect: texts with a question each in, shorter texts out; the gateway keeps the originals itself."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from ctxprune.integrations.server.compress import seconds_of
from ctxprune.integrations.server.errors import ApiError, json_bytes
from ctxprune.integrations.server.gateway.dialects import Gateway, documented
from ctxprune.integrations.server.gateway.policy import GatewayOptions, bypassed
from ctxprune.integrations.server.gateway.schemas import (
    CompresrBatch,
    CompresrInput,
    CompresrOptions,
    CompresrRequest,
)
from ctxprune.integrations.server.gateway.work import Ask, Pruned, limits_of
from ctxprune.integrations.server.service import Service

_PATH = "/api/compress/question-specific"
#: Keeping less than that of a text is no compression of it.
_LEAST_RATE = 0.01


def compresr_routes(service: Service, gateway: Gateway) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(tags=["gateway"], route_class=service.route_class, responses=service.error_responses)

    @router.post(f"{_PATH}/", **documented(CompresrRequest))
    async def question_specific(request: Request) -> Response:
        """One text, pruned for its question."""
        body = await gateway.checked(request, CompresrRequest)
        pruned, rows = await _compressed(gateway, request, [body], body)
        return _answer(pruned, rows[0])

    @router.post(f"{_PATH}/batch", **documented(CompresrBatch))
    async def question_specific_batch(request: Request) -> Response:
        """Several texts, answered one for one."""
        limit, parsed = service.settings.max_documents, await request.json()
        inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
        if isinstance(inputs, list) and len(inputs) > limit:  # before any of them is looked at
            raise ApiError(413, f"inputs must be at most {limit}, got {len(inputs)}; split the request")
        body = await gateway.checked(request, CompresrBatch)
        pruned, rows = await _compressed(gateway, request, body.inputs, body)
        return _answer(pruned, {"results": rows, "count": len(rows)})

    return router


async def _compressed(
    gateway: Gateway, request: Request, inputs: Sequence[CompresrInput], body: CompresrOptions
) -> tuple[Pruned, list[dict[str, Any]]]:
    caller = gateway.caller(request, {})
    asked = _with_ratio(caller.options.asked(body.ctxprune or GatewayOptions()), body)
    ask = Ask(
        # the question stands in the row, so that the row is another one for another question
        messages=[{"role": "tool", "content": each.context, "query": each.query} for each in inputs],
        options=asked.model_copy(update={"min_tokens": asked.min_tokens or 0, "originals": "none"}),
        caller=caller.scope,
        key=caller.key,
        model="",
        dialect="compresr",
        questions=[each.query for each in inputs],
        bypass=bypassed(request.headers),
        seconds=seconds_of(request),
    )
    pruned = await gateway.pruned(request, ask)
    texts = await _in_bounds(gateway, ask, [row["content"] for row in pruned.messages], body)
    rows = await gateway.service.engine.in_thread(lambda: _rows(gateway, inputs, texts))
    return pruned, rows


def _with_ratio(options: GatewayOptions, body: CompresrOptions) -> GatewayOptions:
    """The ratio as a rate, unless the text itself is to decide or our own options say how much to keep."""
    target = body.target_compression_ratio
    if target is None or body.dynamic or any(limit is not None for limit in limits_of(options)):
        return options
    rate = 1 - target if target < 1 else 1 / target
    return options.model_copy(update={"rate": max(rate, _LEAST_RATE)})


async def _in_bounds(gateway: Gateway, ask: Ask, texts: list[str], body: CompresrOptions) -> list[str]:
    """Once more, with a rate, for what came out longer or shorter than the bounds allow; scores are cached."""
    if not body.dynamic or ask.mode != "on":
        return texts
    for bound, is_beyond in ((body.dynamic_min_ratio, operator.lt), (body.dynamic_max_ratio, operator.gt)):
        if bound is None:
            continue
        before = await gateway.pruner.count([message["content"] for message in ask.messages])
        after = await gateway.pruner.count(texts)
        wrong = [at for at in range(len(texts)) if before[at] and is_beyond(before[at] / max(after[at], 1), bound)]
        if wrong:
            options = ask.options.model_copy(update={"rate": 1 / bound, "floor": 0.0})
            messages = [ask.messages[at] for at in wrong]
            questions = [(ask.questions or ())[at] for at in wrong]
            again = await gateway.pruner.prune(replace(ask, messages=messages, questions=questions, options=options))
            for at, row in zip(wrong, again.messages, strict=True):
                texts[at] = row["content"]
    return texts


def _rows(gateway: Gateway, inputs: Sequence[CompresrInput], texts: Sequence[str]) -> list[dict[str, Any]]:
    before = gateway.pruner.counted([each.context for each in inputs])
    after = gateway.pruner.counted(texts)
    return [
        {
            "compressed_context": text,
            "original_tokens": old,
            "compressed_tokens": new,
            "tokens_saved": old - new,
            "actual_compression_ratio": round(old / new, 4) if new else 1.0,
        }
        for text, old, new in zip(texts, before, after, strict=True)
    ]


def _answer(pruned: Pruned, data: dict[str, Any]) -> Response:
    return Response(
        json_bytes({"success": True, "data": data, "status": pruned.status, "reason": pruned.reason}),
        headers=pruned.headers,
        media_type="application/json",
    )
