"""What stands before every route: request id, key, body size, JSON log line, metrics, and no leak of an exception."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctxprune.integrations.server.caller import CALLER, Shares
from ctxprune.integrations.server.connections import Throttle
from ctxprune.integrations.server.errors import ApiError, error_response
from ctxprune.integrations.server.gone import BrokenOffError, GoneError
from ctxprune.integrations.server.logs import Log
from ctxprune.integrations.server.metrics import Metrics
from ctxprune.integrations.server.playground_routes import is_playground
from ctxprune.integrations.server.settings import Settings
from ctxprune.integrations.server.tracing import Tracing, no_tracing

#: Routes for probes and scrapers, which carry no key.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
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
        self._keys = [_digest(key.get_secret_value()) for key in settings.api_keys]
        self._bodies = Shares(settings.max_bodies_bytes, 1.0 if len(settings.api_keys) == 1 else settings.caller_share)
        self._refusals = Throttle()
        metrics.watch("bodies_bytes", "Size of all request bodies in memory.", lambda: self._bodies.held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
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
        is_open = scope["path"] in OPEN_PATHS or is_playground(scope["path"])
        exchange.unread = announces_body(exchange.headers)
        if not is_open:
            self._check_key(exchange.headers)
        exchange.caller = self._caller(exchange)
        CALLER.set(exchange.caller)
        # nobody pays for a body that no route looks at
        body = b"" if is_open or scope["method"] not in _WITH_BODY else await self._body(exchange, receive)
        replayed = False

        async def receive_again() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_again, exchange.send)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        given = [_digest(key) for key in offered_keys(headers)]
        # every pair is compared, each in constant time: how long it takes says nothing about the keys
        matches = [hmac.compare_digest(mine, key) for mine in self._keys for key in given]
        if not any(matches):
            raise ApiError(401, "a valid key is needed: Authorization: Bearer <key>, or X-API-Key", code="invalid_key")

    def _caller(self, exchange: Exchange) -> str:
        """A name for whoever asks: by key where one is asked for, else by address."""
        if self._keys:
            return next((key.hex() for key in map(_digest, offered_keys(exchange.headers)) if key in self._keys), "")
        return str((exchange.scope.get("client") or ("",))[0])

    async def _body(self, exchange: Exchange, receive: Receive) -> bytes:
        limit = self.settings.max_body_bytes
        announced = exchange.headers.get("content-length", "")
        too_large = announced.isdigit() and int(announced[:20]) > limit
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while more and not too_large:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    part = message.get("body", b"")
                    self._hold(exchange, len(part))
                    body += part
                    more = message.get("more_body", False)
                    too_large = len(body) > limit
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.settings.body_seconds:g} s") from None
        if too_large:
            if more and "expect" not in exchange.headers:  # who asks first is not invited to send
                await _discard(receive, DISCARD_BODIES * limit)
            raise ApiError(413, f"the body is larger than {limit} bytes; split the request", code="too_large")
        exchange.unread = False
        return bytes(body)

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


def offered_keys(headers: Headers) -> list[str]:
    """The keys that a request shows, by either header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return bearer + headers.getlist("x-api-key")


def announces_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def note(scope: Scope, **values: Any) -> None:
    """Values for this request's line in the log."""
    scope["state"].setdefault("notes", {}).update(values)


def _digest(key: str) -> bytes:
    """Of one length for every key, so that a comparison does not tell the length either."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


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
