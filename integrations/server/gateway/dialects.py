"""The routes that gateways call: LiteLLM's generic guardrail, Portkey's webhook, Headroom's and Compresr's dialects.

Shapes follow the clients' own source (LiteLLM 1.110: proxy/guardrails/guardrail_hooks; Portkey's gateway:
src/middlewares/hooks, and its page on webhook guardrails), and Headroom's server (0.42). Compresr's texts come with a
question each, and its gateway keeps the originals itself.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ctxprune.cache import BoundedCache
from ctxprune.integrations.originals import retrieve_tool
from ctxprune.integrations.server.callers import CALLER, caller_of
from ctxprune.integrations.server.compress import seconds_of
from ctxprune.integrations.server.errors import ApiError, json_bytes, json_response
from ctxprune.integrations.server.gate import GENERIC_PATH, PORTKEY_PATH, note
from ctxprune.integrations.server.gateway.ledger import Sums
from ctxprune.integrations.server.gateway.policy import GatewayOptions, bypassed, options_for
from ctxprune.integrations.server.gateway.pruning import ConversationPruner
from ctxprune.integrations.server.gateway.schemas import (
    CompresrBatch,
    CompresrInput,
    CompresrOptions,
    CompresrRequest,
    GuardrailRequest,
    HeadroomRequest,
    PortkeyRequest,
    documented,
    guardrail_answer,
    headroom_answer,
    portkey_answer,
)
from ctxprune.integrations.server.gateway.work import Ask, Pruned, limits_of
from ctxprune.integrations.server.service import Service, checked_model, while_connected

Model = TypeVar("Model", bound=BaseModel)

#: What request_data calls whoever asked the gateway, the most particular first.
_ASKERS = ("user_api_key_hash", "user_api_key_alias", "user_api_key_team_id", "user_api_key_team_alias")
_WORD = re.compile(r"\w{3,}")
#: Comparisons of shadow mode that wait for their answers.
_SHADOW_BYTES = 32_000_000


@dataclass(frozen=True, slots=True)
class Caller:
    """scope: whose memory and originals. key: the name in statistics, of which no key can be told. options: of the
    operator for this key."""

    scope: bytes
    key: str
    options: GatewayOptions


def _ask(
    request: Request,
    caller: Caller,
    messages: Sequence[Any],
    options: GatewayOptions,
    *,
    model: str | None,
    bypass: bool | None = None,
    **more: Any,
) -> Ask:
    """What a request asks for. bypass: None: as its own headers say. more: fields of `Ask`."""
    return Ask(
        messages=messages,
        options=options,
        caller=caller.scope,
        key=caller.key,
        model=(model or "")[:200],
        bypass=bypassed(request.headers) if bypass is None else bypass,
        seconds=seconds_of(request),
        **more,
    )


class Gateway:
    """What the routes share over one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pruner = ConversationPruner(service)
        self._shadows: BoundedCache[bytes, tuple[str, str]] = BoundedCache(
            _SHADOW_BYTES, weigh=lambda texts: 4 * sum(map(len, texts)) + 200, max_age=3600.0
        )

    async def guardrail(self, request: Request) -> Response:
        body = await self.checked(request, GuardrailRequest)
        caller = self.caller(request, body.request_data or {})
        if body.input_type == "response":
            seen = await self.service.engine.in_thread(lambda: self._answered(body, caller))
            note(request.scope, model=(body.model or "")[:200], output_tokens=seen)
            return json_response({"action": "NONE"})
        rows = body.structured_messages
        messages = rows if rows is not None else [{"role": "user", "content": text} for text in body.texts or ()]
        options = caller.options.asked(body.additional_provider_specific_params or GatewayOptions())
        ask = _ask(
            request, caller, messages, options, model=body.model, dialect="generic",
            bypass=bypassed(request.headers, body.request_headers or {}),
        )  # fmt: skip
        pruned = await self.pruned(request, ask)
        if pruned.before and body.litellm_call_id:
            self._shadows.put(_call_key(caller, body.litellm_call_id), (pruned.before, pruned.after))
        return await self._rendered(lambda: guardrail_answer(body, pruned, messages), pruned)

    async def headroom(self, body: HeadroomRequest, request: Request) -> Response:
        caller = self.caller(request, {})
        options = caller.options.asked(body.ctxprune or GatewayOptions())
        config = body.config
        if config is not None and config.mode == "ccr" and options.originals is None:
            options = options.model_copy(update={"originals": "marker"})
        first = min((config.frozen_message_count or 0) if config is not None else 0, len(body.messages))
        affinity = request.headers.get("x-headroom-affinity", "")
        ask = _ask(
            request, caller, body.messages, options, model=body.model, dialect="headroom",
            sees_all=False, conversation=affinity[:200], frozen=first,
        )  # fmt: skip
        pruned = await self.pruned(request, ask)
        return await self._rendered(lambda: headroom_answer(pruned), pruned)

    async def portkey(self, request: Request) -> Response:
        body = await self.checked(request, PortkeyRequest)
        chat = body.request.body or {}
        messages = chat.get("messages")
        is_answered = body.event_type == "afterRequestHook" or bool(body.response and body.response.body)
        if is_answered or not isinstance(messages, list):
            return json_response({"verdict": True})
        caller = self.caller(request, {})
        model = str(chat.get("model") or "")
        ask = _ask(request, caller, messages, caller.options, model=model, dialect="portkey")
        pruned = await self.pruned(request, ask)
        return await self._rendered(lambda: portkey_answer(chat, pruned), pruned)

    async def pruned(self, request: Request, ask: Ask) -> Pruned:
        pruned = await while_connected(request, self.pruner.prune(ask))
        note(request.scope, result=pruned.status, reason=pruned.reason, mode=ask.mode, key=ask.key)
        note(request.scope, tokens_before=pruned.tokens_before, tokens_after=pruned.tokens_after, model=ask.model)
        note(request.scope, input_tokens=pruned.tokens_sent)
        if pruned.tokens_would_be is not None:
            note(request.scope, tokens_would_be=pruned.tokens_would_be)
        if self.service.settings.log_text:
            note(request.scope, messages=ask.messages)
        return pruned

    async def checked(self, request: Request, model: type[Model]) -> Model:
        """The body as the model has it; a large one is looked at in a thread."""
        parsed, size = await request.json(), len(await request.body())
        if not isinstance(parsed, dict):
            raise ApiError(400, f"the body must be a JSON object, got {type(parsed).__name__}")
        return await self.service.engine.in_thread(lambda: checked_model(model, parsed), size=size)

    def caller(self, request: Request, asker: Mapping[str, Any]) -> Caller:
        """Whoever asks: by our key, or else by address and the credentials shown; and by whom the gateway names."""
        settings, name = self.service.settings, CALLER.get()
        shown = b"" if settings.api_keys else caller_of(request.headers)
        names = [str(value)[:200] for one in _ASKERS if (value := asker.get(one))]
        whole = "\0".join([name, *names[:1]]).encode("utf-8", "surrogatepass") + b"\0" + shown
        scope = hashlib.blake2b(whole, digest_size=16).digest()
        ours = hashlib.sha256(name.encode()).hexdigest() if not settings.api_keys else name
        named = [*names, ours]
        options = options_for(named, everyone=settings.gateway or GatewayOptions(), by_key=settings.gateway_keys)
        return Caller(scope, self.label(named), options)

    @staticmethod
    def label(names: Sequence[str]) -> str:
        """Twelve digits for our own key, and twelve more for whom the gateway asks for. Names may be secrets, too."""
        asker = f"/{hashlib.sha256(names[0].encode('utf-8', 'surrogatepass')).hexdigest()[:12]}" if names[1:] else ""
        return names[-1][:12] + asker

    async def _rendered(self, build: Any, pruned: Pruned) -> Response:
        body = await self.service.engine.in_thread(lambda: json_bytes(build()))
        return Response(body, headers=pruned.headers, media_type="application/json")

    def _answered(self, body: GuardrailRequest, caller: Caller) -> int:
        """The tokens of an answer; in shadow mode, the words of it that the pruned context lacks are counted, too."""
        texts = [text for text in body.texts or () if isinstance(text, str)]
        engine = self.service.engine
        counter = engine.runner.catalog.counter("default") if engine.ready else None
        sums = Sums(output_tokens=sum(counter.count(texts)) if counter else 0)
        if (info := self.pruner.models.get(body.model or "")) is not None:
            sums.output_money = sums.output_tokens * info.output_cost_per_token
        shadow = self._shadows.get(_call_key(caller, body.litellm_call_id or ""))
        if shadow is not None:
            whole, pruned = ({word.lower() for word in _WORD.findall(text)} for text in shadow)
            used = {word.lower() for text in texts for word in _WORD.findall(text)} & whole
            sums.answer_words, sums.answer_words_lost = len(used), len(used - pruned)
        self.pruner.ledger.answer(caller.key, sums)
        return sums.output_tokens


def gateway_routes(service: Service, gateway: Gateway) -> APIRouter:
    """The routes over one service; Headroom's is that of the documents, too."""
    router = APIRouter(tags=["gateway"], route_class=service.route_class, responses=service.error_responses)

    @router.post(GENERIC_PATH, **documented(GuardrailRequest))
    async def generic_guardrail(request: Request) -> Response:
        """LiteLLM's generic guardrail: the conversation with tool results and marked context pruned.

        `action` is GUARDRAIL_INTERVENED when anything was changed, else NONE.
        """
        return await gateway.guardrail(request)

    @router.post(PORTKEY_PATH, **documented(PortkeyRequest))
    async def portkey_webhook(request: Request) -> Response:
        """Portkey's webhook guardrail: the verdict is always true, and `transformedData` the pruned request, if any."""
        return await gateway.portkey(request)

    @router.get("/v1/retrieve", response_description="The definitions by the shape of the API.")
    async def tool_definitions() -> Response:
        """The tool to offer a model, which asks for originals with it."""
        return json_response({"openai": retrieve_tool("openai"), "anthropic": retrieve_tool("anthropic")})

    @router.get("/v1/retrieve/{hash}", response_description="The text before it was pruned.")
    async def retrieve(request: Request, hash: str) -> Response:
        """The original behind `hash=` of a pruned text; 404 for all that this caller was not given."""
        # those whom a gateway asks for have texts of their own, and the gateway vouches for them in a header
        scope = gateway.caller(request, {_ASKERS[0]: request.headers.get("x-ctxprune-asker")}).scope
        text = await service.engine.in_thread(lambda: gateway.pruner.originals.get(scope, hash))
        if text is None:
            raise ApiError(404, "no original with this hash: it was never given to this caller, or has expired")
        body = await service.engine.in_thread(lambda: json_bytes({"hash": hash, "original_content": text}))
        return Response(body, media_type="application/json")

    @router.get("/v1/stats", response_description="Sums by hour and key, and over all of them.")
    async def stats(request: Request) -> Response:
        """What pruning saved, over the last seven days of this process; with several keys each sees its own."""
        ours = gateway.caller(request, {}).key
        sees_all = len(service.settings.api_keys) <= 1

        def shown(key: str) -> bool:
            return sees_all or key.partition("/")[0] == ours

        ledger = gateway.pruner.ledger
        rows = {"totals": ledger.totals(shown), "hours": ledger.rows(shown)}
        return Response(await service.engine.in_thread(lambda: json_bytes(rows)), media_type="application/json")

    return router


def _call_key(caller: Caller, call_id: str) -> bytes:
    return hashlib.blake2b(caller.scope + call_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


COMPRESR_PATH = "/api/compress/question-specific"
#: Keeping less than that of a text is no compression of it.
_LEAST_RATE = 0.01


def compresr_routes(service: Service, gateway: Gateway) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(tags=["gateway"], route_class=service.route_class, responses=service.error_responses)

    @router.post(f"{COMPRESR_PATH}/", **documented(CompresrRequest))
    async def question_specific(request: Request) -> Response:
        """One text, pruned for its question."""
        body = await gateway.checked(request, CompresrRequest)
        pruned, rows = await _compresr(gateway, request, [body], body)
        return _compresr_answer(pruned, rows[0])

    @router.post(f"{COMPRESR_PATH}/batch", **documented(CompresrBatch))
    async def question_specific_batch(request: Request) -> Response:
        """Several texts, answered one for one."""
        limit, parsed = service.settings.max_documents, await request.json()
        inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
        if isinstance(inputs, list) and len(inputs) > limit:  # before any of them is looked at
            raise ApiError(413, f"inputs must be at most {limit}, got {len(inputs)}; split the request")
        body = await gateway.checked(request, CompresrBatch)
        pruned, rows = await _compresr(gateway, request, body.inputs, body)
        return _compresr_answer(pruned, {"results": rows, "count": len(rows)})

    return router


async def _compresr(
    gateway: Gateway, request: Request, inputs: Sequence[CompresrInput], body: CompresrOptions
) -> tuple[Pruned, list[dict[str, Any]]]:
    caller = gateway.caller(request, {})
    asked = _with_ratio(caller.options.asked(body.ctxprune or GatewayOptions()), body)
    options = asked.model_copy(update={"min_tokens": asked.min_tokens or 0, "originals": "none"})
    # the question stands in the row, so that the row is another one for another question
    messages = [{"role": "tool", "content": each.context, "query": each.query} for each in inputs]
    questions = [each.query for each in inputs]
    ask = _ask(request, caller, messages, options, model="", dialect="compresr", questions=questions)
    pruned = await gateway.pruned(request, ask)
    texts = await _in_bounds(gateway, ask, [row["content"] for row in pruned.messages], body)
    rows = await gateway.service.engine.in_thread(lambda: _compresr_rows(gateway, inputs, texts))
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


def _compresr_rows(gateway: Gateway, inputs: Sequence[CompresrInput], texts: Sequence[str]) -> list[dict[str, Any]]:
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


def _compresr_answer(pruned: Pruned, data: dict[str, Any]) -> Response:
    return Response(
        json_bytes({"success": True, "data": data, "status": pruned.status, "reason": pruned.reason}),
        headers=pruned.headers,
        media_type="application/json",
    )
