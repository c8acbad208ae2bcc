"""Pass a request on to the configured upstream and its answer back, byte for byte, and hang up when the caller does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import httpx2
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ctxprune.integrations.server.callers import KeyRing, caller_of
from ctxprune.integrations.server.compress import seconds_of
from ctxprune.integrations.server.errors import ANTHROPIC_PATH, ApiError
from ctxprune.integrations.server.gate import note
from ctxprune.integrations.server.gateway.dialects import Gateway
from ctxprune.integrations.server.proxy.compress import ProxyCompressor, Rewriting
from ctxprune.integrations.server.proxy.modes import Modes
from ctxprune.integrations.server.proxy.tool_results import ToolResultPruner
from ctxprune.integrations.server.proxy.wires import changed_bytes
from ctxprune.integrations.server.schemas import AnthropicErrorResponse, OpenAIErrorResponse
from ctxprune.integrations.server.service import BrokenOffError, Service, while_connected
from ctxprune.integrations.server.settings import Settings

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
#: Ours, or made anew for the other connection.
_OWN = {"host", "content-length", "content-encoding", "expect", "x-api-key"}
_PREFIX = "x-ctxprune-"


class Upstream:
    """One pool of connections to the addresses in the settings; nothing in a request can name another.

    Cookies are passed on and never stored, redirects are the caller's to follow.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._keys = KeyRing(settings.api_keys)
        self.url = str(settings.upstream_url or "").rstrip("/")
        self.anthropic_url = str(settings.anthropic_url or "").rstrip("/")
        self._timeout = httpx2.Timeout(settings.upstream_read_seconds, connect=settings.upstream_connect_seconds)
        self._head_seconds = settings.upstream_connect_seconds + settings.upstream_read_seconds
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.max_requests)
        self._client = httpx2.AsyncClient(limits=limits, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    def check(self, path: str = "") -> None:
        """Raise ApiError 503 when no upstream is configured for the path."""
        if not self._base(path):
            raise ApiError(503, "no upstream is configured; set CTXPRUNE_UPSTREAM_URL", code="upstream_missing")

    async def send(self, request: Request, path: str, body: bytes) -> httpx2.Response:
        """The upstream's answer, of which only the head has been read; the caller of this closes it.

        path: after the configured address, quoted. Raises ApiError 502 when the upstream cannot be reached or speaks no
        HTTP, 504 when no whole head comes in time.
        """
        self.check(path)
        query = f"?{request.url.query}" if request.url.query else ""
        # built by hand: the client's own way would add its cookies, which are other callers' cookies
        outgoing = httpx2.Request(
            request.method,
            self._base(path) + path + query,
            headers=self._headers(request.headers, path),
            content=body,
            extensions={"timeout": self._timeout.as_dict()},
        )
        try:
            # the client's own timeout begins anew with every byte, and interim answers may come for ever
            response = await asyncio.wait_for(self._client.send(outgoing, stream=True), self._head_seconds)
        except httpx2.ProtocolError as error:
            message = f"the upstream's answer is no valid HTTP, or was broken off ({type(error).__name__})"
            raise ApiError(502, message, code="upstream_invalid") from None
        except (httpx2.TimeoutException, TimeoutError):
            raise ApiError(504, "the upstream did not answer in time", code="upstream_timeout") from None
        except httpx2.HTTPError as error:
            message = f"the upstream cannot be reached ({type(error).__name__})"
            raise ApiError(502, message, code="upstream_unreachable") from None
        if not 200 <= response.status_code <= 599:
            await response.aclose()
            message = f"the upstream answered with status {response.status_code}, which is none of HTTP's final ones"
            raise ApiError(502, message, code="upstream_invalid")
        return response

    def _base(self, path: str) -> str:
        return self.anthropic_url or self.url if is_anthropic(path) else self.url

    def _headers(self, headers: Headers, path: str) -> list[tuple[str, str]]:
        """The caller's headers but those of its connection, our own, and a key that is meant for us."""
        dropped = _HOP_BY_HOP | _OWN | _named(headers.getlist("connection"))
        key, ours = self.settings.upstream_api_key, list[tuple[str, str]]()
        if is_anthropic(path):
            key = None if self.anthropic_url else key  # the key of one address is nothing for the other
            if self.settings.anthropic_api_key is not None:
                key, ours = None, [("x-api-key", self.settings.anthropic_api_key.get_secret_value())]
                dropped |= {"authorization"}
            elif not self._keys.opens(headers.getlist("x-api-key")):
                dropped -= {"x-api-key"}
        if key is not None:
            ours.append(("authorization", f"Bearer {key.get_secret_value()}"))
        if key is not None or self._is_ours(headers.get("authorization", "")):
            dropped |= {"authorization"}
        kept = [
            (name, value.strip())  # blanks around a value mean nothing, and may not be sent
            for name, value in headers.items()
            if name not in dropped and not name.startswith(_PREFIX)
        ]
        return kept + ours

    def _is_ours(self, authorization: str) -> bool:
        """Whether the key opens this server, so that the upstream must not see it."""
        token = authorization.partition(" ")[2].strip()
        return self._keys.opens([token])


def is_anthropic(path: str) -> bool:
    """Whether a path after the upstream's address is of Anthropic's messages."""
    return f"/v1{path}" == ANTHROPIC_PATH or f"/v1{path}".startswith(ANTHROPIC_PATH + "/")


class Relay(Response):
    """The upstream's answer, its bytes untouched and passed on as they come; `headers` are added."""

    def __init__(self, upstream: httpx2.Response, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=upstream.status_code)
        self.upstream = upstream
        self.raw_headers = _answer_headers(upstream.headers.raw) + [
            (name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises BrokenOffError when the upstream breaks off; the connection to the caller is then broken off too."""
        passing = asyncio.ensure_future(self._pass_on(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        except httpx2.HTTPError as error:
            raise BrokenOffError(type(error).__name__) from None
        finally:
            for unfinished in (passing, leaving):
                unfinished.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)
            await self.upstream.aclose()

    async def _pass_on(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.upstream.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _answer_headers(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    pairs = [(name.lower(), value) for name, value in raw]
    named = _named(value.decode("latin-1") for name, value in pairs if name == b"connection")
    # the date is the server's to set, and who may read an answer from a browser is this server's to say
    dropped = {name.encode("latin-1") for name in _HOP_BY_HOP | named | {"date"}}
    if any(name == b"transfer-encoding" for name, _ in pairs):
        dropped.add(b"content-length")  # which then means nothing
    # the request id is ours; the upstream's is kept under another name
    return [
        (b"x-upstream-request-id" if name == b"x-request-id" else name, value)
        for name, value in pairs
        if name not in dropped and not name.startswith((b"access-control-", _PREFIX.encode()))
    ]


def _named(connection: Iterable[str]) -> set[str]:
    """Headers that a Connection header declares to be of this hop only."""
    return {name.strip().lower() for value in connection for name in value.split(",")}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
_MESSAGES_EXAMPLE = {
    "model": "my-llm",
    "max_tokens": 500,
    "messages": [
        {"role": "user", "content": "Which orders to Turin are late?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "list_orders", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": '{"orders": []}'}]},
    ],
}
_RESPONSES_EXAMPLE = {
    "model": "my-llm",
    "input": [
        {"role": "user", "content": "Which orders to Turin are late?"},
        {"type": "function_call", "call_id": "c1", "name": "list_orders", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": '{"orders": []}'},
    ],
}
_HEADERS = {
    "x-ctxprune-status": "compressed, passthrough or degraded",
    "x-ctxprune-reason": "why nothing was removed, or what failed, in a word",
    "x-ctxprune-tokens-before": "tokens of the marked context and of the tool results looked at",
    "x-ctxprune-tokens-after": "tokens of it that went upstream",
    "x-ctxprune-tokens-would-be": "tokens of it that would have, in audit and shadow",
}

_PASSED_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_ANSWERS: dict[str, Any] = {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}}


class Rewrite(Protocol):
    def __call__(
        self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes
    ) -> Coroutine[Any, Any, Rewriting]: ...


@dataclass(frozen=True, slots=True)
class Proxying:
    """The routes' answers, over one service and its upstream."""

    service: Service
    upstream: Upstream
    compressor: ProxyCompressor
    tools: ToolResultPruner
    modes: Modes

    async def chat_completions(self, request: Request) -> Response:
        """Compress what is marked as context, then answer as the upstream does, streams included.

        Marked is: a message named "context" or with `"ctxprune": true`, messages listed in `ctxprune.messages`, and
        text between `<context>` and `</context>`.
        """
        return await self._rewritten(request, self.tools.chat, "/chat/completions")

    async def completions(self, request: Request) -> Response:
        """The same for a plain prompt with `<context>` blocks."""
        return await self._rewritten(request, self.compressor.completion, "/completions")

    async def messages(self, request: Request) -> Response:
        """Compress what is marked as context and, where the server is set to, what tools gave; then answer as the
        upstream does, streams included.

        What stands up to the last `cache_control` mark goes on as it came, or as it was sent before.
        """
        return await self._rewritten(request, self.tools.anthropic, "/messages")

    async def responses(self, request: Request) -> Response:
        """The same for instructions, messages and the outputs of function calls in OpenAI's responses API."""
        return await self._rewritten(request, self.tools.responses, "/responses")

    async def models(self, request: Request) -> Response:
        """The upstream's list of models."""
        return await self._relayed(request, "/models", b"", {})

    async def one_model(self, request: Request, model: str) -> Response:
        """One of the upstream's models."""
        if {".", ".."} & set(model.split("/")):  # would name another address of the upstream, with the server's key
            raise ApiError(404, "no such model")
        return await self._relayed(request, f"/models/{quote(model)}", b"", {})

    async def passed_by(self, request: Request) -> Response:
        """Whatever else the upstream offers under /v1, byte for byte."""
        path = request.scope.get("raw_path", request.scope["path"].encode()).partition(b"?")[0].decode("latin-1")
        if {".", ".."} & set(request.scope["path"].split("/")) or not path.startswith("/v1/"):
            raise ApiError(404, "no such path")
        return await self._relayed(request, path.removeprefix("/v1"), await request.body(), {})

    async def _rewritten(self, request: Request, rewrite: Rewrite, path: str) -> Response:
        self.upstream.check(path)
        body = await request.json()
        if not isinstance(body, dict):
            raise ApiError(400, f"the body must be a JSON object, got {type(body).__name__}")
        came = await request.body()
        how: dict[str, Any] = {"size": len(came), "seconds": seconds_of(request), "caller": caller_of(request.headers)}

        def pruned(body: Mapping[str, Any]) -> Coroutine[Any, Any, Rewriting]:
            return rewrite(body, **how)

        work = self.modes.rewritten(request, body, pruned, dialect=path.strip("/"), size=len(came))
        rewriting = await while_connected(request, work)
        # what was not rewritten goes on as it came, to the byte
        sent = await self.service.engine.in_thread(lambda: changed_bytes(came, body, rewriting.body), size=len(came))
        note(request.scope, result=rewriting.status, reason=rewriting.reason)
        note(request.scope, tokens_before=rewriting.tokens_before, tokens_after=rewriting.tokens_after)
        if rewriting.tokens_would_be is not None:
            note(request.scope, tokens_would_be=rewriting.tokens_would_be)
        if self.service.settings.log_text:
            note(request.scope, body=rewriting.body)
        return await self._relayed(request, path, sent, rewriting.headers())

    async def _relayed(self, request: Request, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        return Relay(await while_connected(request, self.upstream.send(request, path, body)), headers)


def proxy_routes(service: Service, upstream: Upstream, gateway: Gateway) -> APIRouter:
    """The routes over one service and its upstream. gateway: whose options by key, and whose books, hold here too."""
    router = APIRouter(tags=["proxy"], route_class=service.route_class, responses=service.proxy_error_responses())
    compressor = ProxyCompressor(service)
    answers = Proxying(service, upstream, compressor, ToolResultPruner(service, compressor), Modes(gateway))
    for path, answer, description, example in (
        ("chat/completions", answers.chat_completions, "A chat request; the answer is the upstream's.", _CHAT_EXAMPLE),
        ("completions", answers.completions, "A completion; the answer is the upstream's.", _PROMPT_EXAMPLE),
        ("messages", answers.messages, "Anthropic messages; the answer is the upstream's.", _MESSAGES_EXAMPLE),
        ("responses", answers.responses, "A response; the answer is the upstream's.", _RESPONSES_EXAMPLE),
    ):
        shape = AnthropicErrorResponse if is_anthropic(f"/{path}") else OpenAIErrorResponse
        router.post(f"/v1/{path}", responses=service.proxy_error_responses(shape), **_documented(description, example))(
            answer
        )
    router.get("/v1/models", response_description="The upstream's models.")(answers.models)
    router.get("/v1/models/{model:path}", response_description="The upstream's model.")(answers.one_model)
    if upstream.url or upstream.anthropic_url:
        # last, and of no class that looks into the body: it may be a file
        every = Route("/v1/{path:path}", answers.passed_by, methods=_PASSED_METHODS, include_in_schema=False)
        router.routes.append(every)
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
