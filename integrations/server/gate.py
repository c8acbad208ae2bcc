"""What stands before every route: request id, key, body size, JSON log line, metrics, and no leak of an exception."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctxprune.integrations.server.callers import CALLER, KeyRing, Shares, Throttle, offered_keys, send_at_once
from ctxprune.integrations.server.errors import ApiError, error_response, is_proxy
from ctxprune.integrations.server.observe import Log, Metrics, Tracing, no_tracing
from ctxprune.integrations.server.pages import DOCS_PATH, PLAYGROUND_PATH
from ctxprune.integrations.server.service import SMALL_BODY, BrokenOffError, GoneError, decoded, parsed_bytes, too_large
from ctxprune.integrations.server.settings import Settings

#: Routes for probes and scrapers, which carry no key.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
#: The gateways' routes whose bodies hold conversations with their images: LiteLLM's, and Portkey's webhook.
GENERIC_PATH, PORTKEY_PATH = "/beta/litellm_basic_guardrail_api", "/v1/hooks/portkey"
WHOLE_CONVERSATIONS = (GENERIC_PATH, PORTKEY_PATH)
#: How much of a refused body is read and thrown away: so long, and so many times the largest body.
DISCARD_SECONDS, DISCARD_BODIES = 1.0, 4
#: Methods whose bodies a route may look at.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
#: Answers that outsiders can cause at no cost: some lines of each in the log, then their number.
_REFUSALS = frozenset({400, 401, 404, 405, 408, 413, 415, 429})
#: The status in logs and metrics of a request whose caller left before the answer.
CALLER_LEFT = 499


class Gate:
    """The outermost layer of the application.

    Bodies are read here as a whole, so that one too large or too slow is refused before anything is parsed, whether it
    announces its length or comes in chunks.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics, log: Log, tracing: Tracing) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.log = log
        self.tracing = tracing
        self._keys = KeyRing(settings.api_keys)
        self._bodies = Shares(settings.max_bodies_bytes, 1.0 if len(settings.api_keys) == 1 else settings.caller_share)
        self._refusals = Throttle()
        metrics.watch("bodies_bytes", "Size of all request bodies in memory.", lambda: self._bodies.held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send_at_once(receive)
        exchange = Exchange(scope, send)
        with no_tracing(exchange) if scope["path"] in OPEN_PATHS else self.tracing(exchange):
            await self._guarded(scope, receive, exchange)

    async def _guarded(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        try:
            await self._answer(scope, receive, exchange)
        except asyncio.CancelledError:  # the time to end in is over
            await self._refuse(exchange, ApiError(503, "the server stops; ask another", retry_after=1))
        except GoneError:
            exchange.status = exchange.status or CALLER_LEFT
        except BrokenOffError as error:
            note(scope, upstream_broke_off=str(error))
        except ApiError as error:
            await self._refuse(exchange, error)
        except Exception:
            self.log.exception("unexpected error", request_id=exchange.request_id, path=scope["path"])
            await self._refuse(exchange, ApiError(500, "internal error; the server's log has it", code="internal"))
        finally:
            self._bodies.give(exchange.caller, exchange.held)
            self._note(exchange)

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        is_open = scope["path"] in OPEN_PATHS or is_page(scope["path"], docs=self.settings.docs)
        exchange.unread = announces_body(exchange.headers)
        if "transfer-encoding" in exchange.headers and "content-length" in exchange.headers:
            # two who disagree on where a body ends could be made to see different requests
            message = "a request with both Content-Length and Transfer-Encoding is refused; send one of them"
            raise ApiError(400, message, headers={"connection": "close"})
        if not is_open:
            self._check_key(exchange.headers)
        exchange.caller = self._caller(exchange)
        CALLER.set(exchange.caller)
        # nobody pays for a body that no route looks at
        body = b"" if is_open or scope["method"] not in _WITH_BODY else await self._body(exchange, receive)
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed, body
            if replayed:
                return await receive()
            replayed, whole, body = True, body, b""  # whoever takes it makes a copy of its own
            return {"type": "http.request", "body": whole, "more_body": False}

        await self.app(scope, receive_again, exchange.send)

    def _check_key(self, headers: Headers) -> None:
        if self._keys and not self._keys.opens(offered_keys(headers)):
            raise ApiError(401, "a valid key is needed: Authorization: Bearer <key>, or X-API-Key", code="invalid_key")

    def _caller(self, exchange: Exchange) -> str:
        """A name for whoever asks: by key where one is asked for, else by address."""
        if self._keys:
            return self._keys.name_of(offered_keys(exchange.headers))
        return str((exchange.scope.get("client") or ("",))[0])

    async def _body(self, exchange: Exchange, receive: Receive) -> bytes:
        limit = self._limit(exchange)
        announced = exchange.headers.get("content-length", "")
        is_too_large = announced.isdigit() and int(announced[:20]) > limit
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while more and not is_too_large:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    part = message.get("body", b"")
                    self._hold(exchange, len(part))
                    body += part
                    more = message.get("more_body", False)
                    is_too_large = len(body) > limit
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.settings.body_seconds:g} s") from None
        if is_too_large:
            if more and "expect" not in exchange.headers:  # who asks first is not invited to send
                await _discard(receive, DISCARD_BODIES * limit)
            raise too_large(limit)
        exchange.unread = False
        came, coding = bytes(body), ", ".join(exchange.headers.getlist("content-encoding"))
        body.clear()

        def read() -> tuple[bytes, int]:
            plain = decoded(came, coding, limit=limit)
            if len(plain) > self.settings.max_body_bytes:
                _check_shape(plain, self.settings.max_body_bytes)
            return plain, parsed_bytes(plain)

        plain, parsed = read() if len(came) <= SMALL_BODY and not coding else await asyncio.to_thread(read)
        self._hold(exchange, len(plain) - len(came) + parsed)
        return plain

    def _limit(self, exchange: Exchange) -> int:
        """Images travel in the proxy's bodies, which it passes on."""
        settings = self.settings
        path = exchange.scope["path"]
        has_upstream = settings.upstream_url is not None or settings.anthropic_url is not None
        larger = (has_upstream and is_proxy(path)) or path in WHOLE_CONVERSATIONS
        return max(settings.max_body_bytes, settings.max_proxy_body_bytes) if larger else settings.max_body_bytes

    def _hold(self, exchange: Exchange, size: int) -> None:
        """Count bytes until the request ends; only the event loop's thread comes here, so there is no lock."""
        if not self._bodies.take(exchange.caller, size):
            self.metrics.refused()
            raise ApiError(429, "too many bodies are in memory; try again later", code="overloaded", retry_after=1)
        exchange.held += size

    async def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        if exchange.status:  # the answer has begun: all that is left is to break the connection off
            return
        response = error_response(exchange.scope["path"], error)
        await response(exchange.scope, _nothing, exchange.send)

    def _note(self, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        self.metrics.answered(exchange.route, exchange.method, exchange.status, seconds)
        if exchange.scope["path"] in OPEN_PATHS:
            return  # probes come every few seconds
        kept_back = self._refusals.passes(str(exchange.status)) if exchange.status in _REFUSALS else 0
        if kept_back is None:
            return
        if kept_back:
            note(exchange.scope, not_written=kept_back)
        self.log.info(
            "request",
            request_id=exchange.request_id,
            method=exchange.scope["method"],
            path=exchange.scope["path"],
            status=exchange.status,
            milliseconds=round(seconds * 1000, 2),
            **exchange.notes,
        )


class AnySlash:
    """Before all: a route is found with a slash more or less at its end, too.

    Starlette would redirect, to the scheme and host that it sees itself, which a proxy before us may hide from callers;
    and where all other paths go to the upstream, the request would go there. paths: of the routes, without parameters.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str]) -> None:
        self.app = app
        others = {path[:-1] if path.endswith("/") else f"{path}/": path for path in paths}
        self._paths = {other: path for other, path in others.items() if other and other not in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (path := self._paths.get(scope["path"])):
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)


class Exchange:
    """One request and what has been sent for it. status: 0 until the answer begins. held: bytes of its body.
    unread: a body was announced and not taken to its end."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.status = 0
        self.held = 0
        self.caller = ""
        self.unread = False
        self.began = time.perf_counter()
        asked = self.headers.get("x-request-id", "")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id
        self._send = send

    @property
    def method(self) -> str:
        """As a label, of which callers must not be able to make up ever more."""
        method = str(self.scope["method"])
        return method if method in _METHODS else "other"

    @property
    def route(self) -> str:
        """The path as the route declares it; "other" where there is none."""
        return str(getattr(self.scope.get("route"), "path", "other"))

    @property
    def notes(self) -> dict[str, Any]:
        found: dict[str, Any] = self.scope["state"].get("notes", {})
        return found

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers.setdefault("x-content-type-options", "nosniff")
            if self.unread:  # or the rest of the body would be waited for, and read, after all
                headers["connection"] = "close"
        await self._send(message)


def is_page(path: str, *, docs: bool = False) -> bool:
    """Whether a request for `path` is for one of the page's files or for what leads to it.

    docs: the page of the API, and the document that it shows, count too.
    """
    if docs and path in (DOCS_PATH, "/openapi.json"):
        return True
    return path in ("/", PLAYGROUND_PATH) or path.startswith(PLAYGROUND_PATH + "/")


def announces_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def note(scope: Scope, **values: Any) -> None:
    """Values for this request's line in the log."""
    scope["state"].setdefault("notes", {}).update(values)


def _check_shape(body: bytes, limit: int) -> None:
    """Beyond the limit of other bodies there may be long strings, images, but no more values than these could hold."""
    values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if values > limit // 4:
        raise ApiError(
            413,
            f"a body over {limit} bytes may hold {limit // 4} values, it holds about {values}; split the request, or "
            "raise the server's setting max_body_bytes (CTXPRUNE_MAX_BODY_BYTES)",
            code="too_large",
        )


async def _discard(receive: Receive, limit: int) -> None:
    """Take a little more of a refused body: an answer while the caller still sends would reset the connection, and the
    caller would not get to read it."""
    size = 0
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while size < limit:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
