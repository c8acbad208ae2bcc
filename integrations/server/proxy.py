"""The OpenAI-compatible routes: compress the marked context, then pass request and answer through."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from ctxprune.integrations.server.callers import caller_of
from ctxprune.integrations.server.compress_routes import seconds_of
from ctxprune.integrations.server.errors import ApiError, json_bytes
from ctxprune.integrations.server.gate import note
from ctxprune.integrations.server.gone import while_connected
from ctxprune.integrations.server.proxy_compress import ProxyCompressor, Rewriting
from ctxprune.integrations.server.relay import Relay, Upstream
from ctxprune.integrations.server.service import Service

_CHAT_EXAMPLE = {
    "model": "my-llm",
    "messages": [
        {"role": "system", "content": "Answer from the context."},
        {
            "role": "user",
            "content": "<context>The bridge is of granite. It was opened in 1911.</context>\nWhen was it opened?",
        },
    ],
    "ctxprune": {"threshold": 0.1},
    "stream": True,
}
_PROMPT_EXAMPLE = {
    "model": "my-llm",
    "prompt": "<context>The bridge is of granite. It was opened in 1911.</context>\nWhen was it opened?",
}
_HEADERS = {
    "x-ctxprune-status": "compressed, passthrough or degraded",
    "x-ctxprune-reason": "why nothing was removed, or what failed, in a word",
    "x-ctxprune-tokens-before": "tokens of the marked context",
    "x-ctxprune-tokens-after": "tokens of it that went upstream",
}

_ANSWERS: dict[str, Any] = {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}}


class Rewrite(Protocol):
    def __call__(
        self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes
    ) -> Coroutine[Any, Any, Rewriting]: ...


def proxy_routes(service: Service, upstream: Upstream) -> APIRouter:
    """The routes over one service and its upstream."""
    router = APIRouter(tags=["proxy"], route_class=service.route_class, responses=service.proxy_error_responses)
    compressor = ProxyCompressor(service)

    async def rewritten(request: Request, rewrite: Rewrite, path: str) -> Response:
        upstream.check()
        body = await request.json()
        if not isinstance(body, dict):
            raise ApiError(400, f"the body must be a JSON object, got {type(body).__name__}")
        came = await request.body()
        work = rewrite(body, size=len(came), seconds=seconds_of(request), caller=caller_of(request.headers))
        rewriting = await while_connected(request, work)

        def outgoing() -> bytes:
            # what was not rewritten goes on as it came, to the byte
            return json_bytes(rewriting.body) if rewriting.body != body else came

        sent = await service.engine.in_thread(outgoing, size=len(came))
        note(request.scope, result=rewriting.status, reason=rewriting.reason)
        note(request.scope, tokens_before=rewriting.tokens_before, tokens_after=rewriting.tokens_after)
        if service.settings.log_text:
            note(request.scope, body=rewriting.body)
        return await relayed(request, path, sent, rewriting.headers())

    async def relayed(request: Request, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        return Relay(await while_connected(request, upstream.send(request, path, body)), headers)

    @router.post("/v1/chat/completions", **_documented("A chat request; the answer is the upstream's.", _CHAT_EXAMPLE))
    async def chat_completions(request: Request) -> Response:
        """Compress what is marked as context, then answer as the upstream does, streams included.

        Marked is: a message named "context" or with `"ctxprune": true`, messages listed in `ctxprune.messages`, and
        text between `<context>` and `</context>`.
        """
        return await rewritten(request, compressor.chat, "/chat/completions")

    @router.post("/v1/completions", **_documented("A completion; the answer is the upstream's.", _PROMPT_EXAMPLE))
    async def completions(request: Request) -> Response:
        """The same for a plain prompt with `<context>` blocks."""
        return await rewritten(request, compressor.completion, "/completions")

    @router.get("/v1/models", response_description="The upstream's models.")
    async def models(request: Request) -> Response:
        """The upstream's list of models."""
        return await relayed(request, "/models", b"", {})

    @router.get("/v1/models/{model:path}", response_description="The upstream's model.")
    async def one_model(request: Request, model: str) -> Response:
        """One of the upstream's models."""
        if {".", ".."} & set(model.split("/")):  # would name another address of the upstream, with the server's key
            raise ApiError(404, "no such model")
        return await relayed(request, f"/models/{quote(model)}", b"", {})

    return router


def _documented(description: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that is passed on, whatever fields it has."""
    field = {"$ref": "#/components/schemas/ProxyOptions"}
    schema = {"type": "object", "additionalProperties": True, "properties": {"ctxprune": field}}
    content = {"application/json": {"schema": schema, "example": dict(example)}}
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    return {
        "response_description": description,
        "openapi_extra": {
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": description, "headers": headers, "content": _ANSWERS}},
        },
    }
