"""Whether the proxy prunes a request, measures what pruning would save, or leaves it alone; and the books of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from starlette.requests import Request

from ctxprune.integrations.server.engine.queue import estimated_tokens
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.gate import note
from ctxprune.integrations.server.gateway.dialects import Gateway
from ctxprune.integrations.server.gateway.ledger import Sums, saved_money
from ctxprune.integrations.server.gateway.policy import GatewayOptions, Mode, bypassed
from ctxprune.integrations.server.proxy.compress import Rewriting

#: A request's body to what is sent in its place.
Rewrite = Callable[[Mapping[str, Any]], Coroutine[Any, Any, Rewriting]]


#: Where messages, their parts and calls of tools hold text.
_SAID = ("content", "text", "output", "arguments", "tool_calls", "function")


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to one request. mode: off, on or a measuring one. reason: why it is left alone; "" when it is not.
    key: the caller in the books. tokens: of all texts, estimated."""

    mode: Mode
    reason: str
    key: str
    model: str
    tokens: int


class Modes:
    """`mode` and `window_share` of the gateways' options, for all, by key and by request, on the proxy's routes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def rewritten(
        self, request: Request, body: Mapping[str, Any], rewrite: Rewrite, *, dialect: str, size: int
    ) -> Rewriting:
        """What is sent upstream, entered into the books. size: of the body in bytes. Raises what `rewrite` raises."""
        began = time.perf_counter()
        course = await self.gateway.service.engine.in_thread(lambda: self._course(request, body), size=size)
        note(request.scope, mode=course.mode, key=course.key, model=course.model)
        if course.reason:
            rewriting = replace(await rewrite(_asking(body, enabled=False)), reason=course.reason)
        elif course.mode == "on":
            rewriting = await rewrite(body)
        else:
            rewriting = await _measured(body, course.mode, rewrite)
        self._enter(course, dialect, rewriting, time.perf_counter() - began)
        return rewriting

    def _course(self, request: Request, body: Mapping[str, Any]) -> Course:
        caller = self.gateway.caller(request, {})
        asked = _field(body).get("mode")
        options = caller.options.asked(GatewayOptions(mode=asked if asked in get_args(Mode) else None))
        model, tokens = str(body.get("model") or "")[:200], estimated_tokens(_said(body))
        mode, reason = options.mode or "on", ""
        if bypassed(request.headers):
            mode, reason = "off", "bypassed"
        elif mode == "off" or _field(body).get("enabled") is False:
            reason = "off" if mode == "off" else "disabled"
            mode = "off"
        elif not self.gateway.pruner.fills(options.window_share, model, tokens):
            reason = "small_conversation"
        return Course(mode, reason, caller.key, model, tokens)

    def _enter(self, course: Course, dialect: str, rewriting: Rewriting, seconds: float) -> None:
        left = rewriting.tokens_after if rewriting.tokens_would_be is None else rewriting.tokens_would_be
        saved, again = rewriting.tokens_before - left, rewriting.saved_again
        money = saved_money(self.gateway.pruner.models.get(course.model), new=saved - again, again=again)
        is_on = course.mode == "on"
        sums = Sums(
            degraded=int(rewriting.status == "degraded"),
            tokens_in=0 if course.mode == "off" else course.tokens,
            tokens_before=rewriting.tokens_before,
            tokens_after=left,
            tokens_saved=saved if is_on else 0,
            tokens_would_save=0 if is_on else saved,
            seconds=seconds,
            money_saved=money if is_on else 0.0,
            money_would_save=0.0 if is_on else money,
        )
        self.gateway.pruner.ledger.request(course.key, sums, dialect=dialect, mode=course.mode, status=rewriting.status)


async def _measured(body: Mapping[str, Any], mode: str, rewrite: Rewrite) -> Rewriting:
    """The body as it came, with what pruning would have made of it; a failure to measure fails nothing."""
    plain = await rewrite(_asking(body, enabled=False))
    try:
        # with the mode in its field, since what would have been sent must not be remembered as sent
        found = await rewrite(_asking(body, mode=mode))
    except ApiError as error:
        if error.status == 422:
            raise
        return replace(plain, status="degraded", reason=error.code or "refused")
    is_degraded = found.status == "degraded"
    return replace(
        plain,
        status="degraded" if is_degraded else "passthrough",
        reason=found.reason if is_degraded else mode,
        tokens_before=found.tokens_before,
        tokens_after=found.tokens_before,
        tokens_would_be=found.tokens_after,
        saved_again=found.saved_again,
    )


def _field(body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = body.get("ctxprune")
    return given if isinstance(given, dict) else {}


def _asking(body: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The body with these in its field of ours; one whose field is no object stays, to be refused."""
    given = body.get("ctxprune")
    if given is not None and not isinstance(given, dict):
        return dict(body)
    return {**body, "ctxprune": {**_field(body), **options}}


def _said(body: Mapping[str, Any]) -> str:
    """The texts of a request of any of the APIs, for an estimate; images and what a schema says are none."""
    texts: list[str] = []
    waiting = [body.get(name) for name in ("system", "instructions", "prompt", "messages", "input")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [value.get(name) for name in _SAID]
    return "\n".join(texts)
