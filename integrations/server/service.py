"""What every route needs: settings, engine, metrics, log, and how errors are documented."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from ctxprune.integrations.server.bodies import checked_counts, checked_model, measured_json
from ctxprune.integrations.server.engine.engine import Engine
from ctxprune.integrations.server.errors import ApiError, validation_message
from ctxprune.integrations.server.observe import Log, Metrics
from ctxprune.integrations.server.schemas import ErrorResponse, OpenAIErrorResponse
from ctxprune.integrations.server.settings import Settings

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
        parsed = measured_json(body)
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

    @property
    def proxy_error_responses(self) -> dict[int | str, dict[str, Any]]:
        return {status: {"model": OpenAIErrorResponse, "description": text} for status, text in _PROXY_MEANING.items()}


def told_headers(status: str, before: int, after: int, reason: str = "") -> dict[str, str]:
    """The headers that tell of a pruning. before, after: tokens. reason: a word; "" for none."""
    named = {"x-ctxprune-reason": reason} if reason else {}
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
