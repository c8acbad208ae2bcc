"""What every route needs: bodies measured, parsed and checked, a server's parts, and how errors are documented.

No list of a body costs more than its limit: it is measured before it is parsed, and parsed and checked in threads.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ctxprune.integrations.server.engine.engine import Engine
from ctxprune.integrations.server.errors import ApiError, parse_json, validation_message
from ctxprune.integrations.server.observe import Log, Metrics
from ctxprune.integrations.server.schemas import ErrorResponse, OpenAIErrorResponse
from ctxprune.integrations.server.settings import Settings

#: Values in one body (each number, text, list, object and name counts), and lists or objects within each other.
MAX_VALUES, MAX_DEPTH = 200_000, 64
#: A body of no more bytes is looked at in the event loop: another thread costs more than the work.
SMALL_BODY = 8_192
#: Bytes of a value in memory besides those of its text, about.
VALUE_BYTES = 100
#: Names that an object of ours may have, where unknown ones are an error each.
MAX_FIELDS = 64
#: Entries of a list that may each be wrong; the count of others, which have limits of their own, is checked elsewhere.
ENTRIES = {"protect": 32, "messages": 10_000}

Model = TypeVar("Model", bound=BaseModel)


def measured_json(body: bytes, *, unique: bool = False) -> Any:
    """The body as Python values. Raises ApiError 400 for no JSON or too deep nesting, 413 for too many values.

    unique: see `parse_json`.
    """
    check_shape(body)
    return parse_json(body, unique=unique)


def check_shape(body: bytes) -> None:
    """Count what stands outside the texts of a JSON body, without making a value of it."""
    quotes = body.count(b'"')
    if quotes > 4 * MAX_VALUES:
        raise _too_many(quotes // 2)
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    outside = b"".join(plain.split(b'"')[::2])
    counts = np.bincount(np.frombuffer(outside, np.uint8), minlength=128)
    values = int(counts[list(b"[{,:")].sum()) + 1
    if values > MAX_VALUES:
        raise _too_many(values)
    brackets = np.frombuffer(outside.translate(None, _NO_BRACKETS), np.uint8)
    if len(brackets):
        steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
        if int(np.cumsum(steps).max()) > MAX_DEPTH:
            raise ApiError(400, f"the body is nested too deeply: more than {MAX_DEPTH} lists or objects in each other")


def parsed_bytes(body: bytes) -> int:
    """Bytes that the values of a JSON body take, about, at most: one letter beyond those of Latin makes Python keep two
    for each letter of its text, one beyond the basic plane four."""
    letters = np.frombuffer(body, np.uint8)
    highest = int(letters.max(initial=0))
    is_wide = highest >= 0xF0 or _HIGH_SURROGATE.search(body) is not None
    width = 4 if is_wide else 2 if highest >= 0xC4 or b"\\u" in body else 1
    values = min(sum(map(body.count, (b",", b"[", b"{"))), MAX_VALUES)
    return width * int(((letters & 0xC0) != 0x80).sum()) + VALUE_BYTES * values


def _too_many(values: int) -> ApiError:
    return ApiError(413, f"the body holds about {values} values, the limit is {MAX_VALUES}; split the request")


_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def checked_counts(value: Any, limits: Mapping[str, int], *, place: str = "") -> None:
    """Look at the length of every list, and of every object of ours, before anything in it is looked at.

    limits: by the name of the list. Raises ApiError 413 for one that the operator limits, 422 for others.
    """
    if not isinstance(value, dict):
        return
    _check_fields(value, place)
    for name, entries in value.items():
        if not isinstance(entries, list) or (name not in limits and name not in ENTRIES):
            continue
        if name in limits and len(entries) > limits[name]:
            raise ApiError(413, f"{place}{name} must be at most {limits[name]}, got {len(entries)}; split the request")
        if name not in limits and len(entries) > ENTRIES[name]:
            raise ApiError(422, f"{place}{name}: at most {ENTRIES[name]} entries, got {len(entries)}")
        for at, entry in enumerate(entries):
            if name == "requests":
                checked_counts(entry, limits, place=f"requests[{at}].")
            elif isinstance(entry, dict):
                _check_fields(entry, f"{place}{name}[{at}].")


def _check_fields(value: Mapping[str, Any], place: str) -> None:
    if len(value) > MAX_FIELDS:
        raise ApiError(422, f"{place or 'body'}: at most {MAX_FIELDS} fields, got {len(value)}")


def checked_model(model: type[Model], value: Any, *, place: Sequence[str | int] = ()) -> Model:
    """The value as `model` has it. Raises ApiError 422, which names a few of the places that are wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise ApiError(422, validation_message([{**item, "loc": (*place, *item["loc"])} for item in found])) from None


ACCEPTED = ("gzip", "deflate", "identity")
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(body: bytes, coding: str, *, limit: int) -> bytes:
    """The body without its content coding, as the header Content-Encoding names it.

    Never holds more than `limit` bytes and a little. Raises ApiError 415 for another coding or several, 413 for more
    than `limit` bytes, 400 for what is not in that coding.
    """
    coding = coding.strip().lower().removeprefix("x-")
    if coding in ("", "identity") or not body:
        return body
    if coding not in ACCEPTED:
        raise ApiError(
            415,
            f"content-encoding must be one of {', '.join(ACCEPTED)}, got {coding!r:.40}; send the body without it",
            code="content_encoding",
            headers={"accept-encoding": ", ".join(ACCEPTED[:2])},
        )
    try:
        return _inflated(body, _window(body, coding), limit)
    except zlib.error:
        raise ApiError(400, f"the body is not valid {coding}") from None


def _window(body: bytes, coding: str) -> int:
    if coding == "gzip":
        return _GZIP
    # "deflate" is zlib's format, but some clients send the bare stream
    return _ZLIB if len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0 else _RAW


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    parts, size = [], 0
    while body:  # gzip may be of several members one after the other
        member = zlib.decompressobj(window)
        part = member.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise too_large(limit, "unpacked, ")
        if not member.eof:
            raise zlib.error("the stream is cut off")
        parts.append(part)
        body = member.unused_data if window == _GZIP else b""
    return b"".join(parts)


def too_large(limit: int, when: str = "") -> ApiError:
    """The refusal of a body, which names the settings. when: before the comparison, if need be."""
    return ApiError(
        413,
        f"{when}the body is larger than {limit} bytes; split the request, or raise the server's setting max_body_bytes "
        "(CTXPRUNE_MAX_BODY_BYTES), for the proxy's routes max_proxy_body_bytes (CTXPRUNE_MAX_PROXY_BODY_BYTES)",
        code="too_large",
    )


_MEANING = {
    400: "The body is no JSON.",
    401: "A key is needed.",
    408: "The body came too slowly.",
    413: "The request is too large.",
    415: "The content type is not application/json.",
    422: "A value is wrong.",
    424: "The model failed, and the server is set to fail closed.",
    429: "Too much is waiting; see Retry-After.",
    500: "Internal error.",
    503: "Not ready yet.",
    504: "The deadline passed, and the server is set to fail closed.",
}
_PROXY_MEANING = {
    400: "The body is no JSON object.",
    401: "A key is needed.",
    408: "The body came too slowly.",
    413: "The request is too large.",
    415: "The content type is not application/json.",
    422: "The field ctxprune is wrong.",
    500: "Internal error.",
    502: "The upstream failed.",
    503: "No upstream is configured, or compression failed and the server is set to fail closed.",
    504: "The upstream did not answer in time.",
}


class StrictRequest(Request):
    """A request whose JSON was parsed, measured and checked before the route saw it."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class StrictRoute(APIRoute):
    """Bodies must be JSON in fact (no NaN) and in name, and what is wrong with them is said in our own words.

    Both are found out in a thread, and lists are counted before their entries are looked at. `service` is set by
    `Service.route_class`.
    """

    service: Service

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if request.method == "POST":
                body = await _json_body(strict)
                strict.parsed = await self.service.engine.in_thread(lambda: self._checked(body), size=len(body))
            return await handle(strict)

        return strictly

    def _checked(self, body: bytes) -> Any:
        """The model of the route's body, which FastAPI takes as it is; plain values where there is none."""
        parsed = measured_json(body, unique=self.body_field is not None)
        model = self.body_field.field_info.annotation if self.body_field else None
        if self.body_field:  # also where the body is of one model or another
            checked_counts(parsed, self.service.list_limits)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return checked_model(model, parsed)
        if self.body_field:
            value, errors = self.body_field.validate(parsed, {}, loc=())
            if errors:
                raise ApiError(422, validation_message(errors))
            return value
        if isinstance(parsed, dict) and "ctxprune" in parsed:
            checked_counts(parsed["ctxprune"], {}, place="ctxprune.")
        return parsed


async def _json_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, f"the content type must be application/json, got {kind or 'none'!r:.60}")
    body = await request.body()
    if not body:
        raise ApiError(400, "the body is empty; it must be a JSON object")
    return body


@dataclass(slots=True)
class Service:
    """One server's parts. draining: set by SIGTERM; `/readyz` then says no while requests are still answered."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    log: Log
    draining: bool = False
    failure: str = ""
    route_class: type[APIRoute] = field(init=False)

    def __post_init__(self) -> None:
        self.route_class = type("ServiceRoute", (StrictRoute,), {"service": self})

    @property
    def list_limits(self) -> dict[str, int]:
        """The most entries of the lists that a request's size hangs on."""
        documents = self.settings.max_documents
        return {"documents": documents, "texts": documents, "requests": self.settings.max_batch}

    @property
    def ready(self) -> bool:
        return self.engine.ready and not self.draining

    @property
    def error_responses(self) -> dict[int | str, dict[str, Any]]:
        return {status: {"model": ErrorResponse, "description": text} for status, text in _MEANING.items()}

    def proxy_error_responses(self, shape: type[BaseModel] = OpenAIErrorResponse) -> dict[int | str, dict[str, Any]]:
        return {status: {"model": shape, "description": text} for status, text in _PROXY_MEANING.items()}


def told_headers(status: str, before: int, after: int, reason: str = "", would_be: int | None = None) -> dict[str, str]:
    """The headers that tell of a pruning. before, after, would_be: tokens. reason: a word."""
    named = {"x-ctxprune-reason": reason} if reason else {}
    named |= {} if would_be is None else {"x-ctxprune-tokens-would-be": str(would_be)}
    tokens = {"x-ctxprune-tokens-before": str(before), "x-ctxprune-tokens-after": str(after)}
    return {"x-ctxprune-status": status} | tokens | named


T = TypeVar("T")


class GoneError(Exception):
    """The caller closed the connection; there is nobody to answer."""


class BrokenOffError(Exception):
    """The upstream broke off in the middle of its answer: the caller's is broken off too, lest it look complete."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves. Raises GoneError then.

    The body must have been read: the next thing that the server can say is that the caller left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError
    finally:
        for unfinished in (task, left):
            unfinished.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
