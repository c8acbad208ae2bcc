"""The routes that gateways call: LiteLLM's generic guardrail, Headroom's dialect, Portkey's webhook, and figures.

Shapes follow the clients' own source (LiteLLM 1.110: proxy/guardrails/guardrail_hooks; Portkey's gateway:
src/middlewares/hooks, and its page on webhook guardrails), and Headroom's server (0.42).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ctxprune.integrations.cache import BoundedCache
from ctxprune.integrations.originals import retrieve_tool, with_tool
from ctxprune.integrations.server.bodies import checked_model
from ctxprune.integrations.server.callers import CALLER, caller_of
from ctxprune.integrations.server.compress import seconds_of
from ctxprune.integrations.server.errors import ApiError, json_bytes, json_response
from ctxprune.integrations.server.gate import GENERIC_PATH, PORTKEY_PATH, note
from ctxprune.integrations.server.gateway.ledger import Sums
from ctxprune.integrations.server.gateway.policy import GatewayOptions, bypassed, options_for
from ctxprune.integrations.server.gateway.pruning import ConversationPruner
from ctxprune.integrations.server.gateway.schemas import GuardrailRequest, HeadroomRequest, PortkeyRequest
from ctxprune.integrations.server.gateway.work import Ask, Pruned
from ctxprune.integrations.server.service import Service, while_connected

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
        pruned = await self.pruned(
            request,
            Ask(
                messages=messages,
                options=caller.options.asked(body.additional_provider_specific_params or GatewayOptions()),
                caller=caller.scope,
                key=caller.key,
                model=(body.model or "")[:200],
                dialect="generic",
                bypass=bypassed(request.headers, body.request_headers or {}),
                seconds=seconds_of(request),
            ),
        )
        if pruned.before and body.litellm_call_id:
            self._shadows.put(_call_key(caller, body.litellm_call_id), (pruned.before, pruned.after))
        return await self._rendered(lambda: _guardrail_answer(body, pruned, messages), pruned)

    async def headroom(self, body: HeadroomRequest, request: Request) -> Response:
        caller = self.caller(request, {})
        options = caller.options.asked(body.ctxprune or GatewayOptions())
        config = body.config
        if config is not None and config.mode == "ccr" and options.originals is None:
            options = options.model_copy(update={"originals": "marker"})
        first = min((config.frozen_message_count or 0) if config is not None else 0, len(body.messages))
        affinity = request.headers.get("x-headroom-affinity", "")
        ask = Ask(
            messages=body.messages,
            options=options,
            caller=caller.scope,
            key=caller.key,
            model=(body.model or "")[:200],
            dialect="headroom",
            sees_all=False,
            conversation=affinity[:200],
            frozen=first,
            bypass=bypassed(request.headers),
            seconds=seconds_of(request),
        )
        pruned = await self.pruned(request, ask)
        return await self._rendered(lambda: _headroom_answer(pruned), pruned)

    async def portkey(self, request: Request) -> Response:
        body = await self.checked(request, PortkeyRequest)
        chat = body.request.body or {}
        messages = chat.get("messages")
        is_answered = body.event_type == "afterRequestHook" or bool(body.response and body.response.body)
        if is_answered or not isinstance(messages, list):
            return json_response({"verdict": True})
        caller = self.caller(request, {})
        ask = Ask(
            messages=messages,
            options=caller.options,
            caller=caller.scope,
            key=caller.key,
            model=str(chat.get("model") or "")[:200],
            dialect="portkey",
            bypass=bypassed(request.headers),
            seconds=seconds_of(request),
        )
        pruned = await self.pruned(request, ask)
        return await self._rendered(lambda: _portkey_answer(chat, pruned), pruned)

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


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that the route checks itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    example = schema.pop("examples", [{}])[0]
    return {
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _inlined(schema, inner), "example": example}},
            }
        }
    }


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with the definitions in place of references to them; ours do not refer to themselves."""
    if isinstance(value, list):
        return [_inlined(each, definitions) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(each, definitions) for name, each in value.items()}


def _guardrail_answer(body: GuardrailRequest, pruned: Pruned, messages: Sequence[Any]) -> dict[str, Any]:
    if pruned.messages is messages:
        return {"action": "NONE"}
    texts = body.texts or []
    answer: dict[str, Any] = {"action": "GUARDRAIL_INTERVENED"}
    if body.structured_messages is None:
        return answer | {"texts": [message["content"] for message in pruned.messages]}
    answer |= {"texts": _mirrored(texts, messages, pruned.messages), "structured_messages": list(pruned.messages)}
    return answer | ({"tools": with_tool(body.tools)} if pruned.offers_tool else {})


def _mirrored(texts: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """The flat list of texts with the same changes, for routes of the gateway that write back through it alone.

    A text is told by its value, so it is changed only where all that are equal to it were changed in the same way.
    """
    changes: dict[str, set[str]] = {}
    numbers: Counter[str] = Counter()
    for old, new in zip(_leaves(before), _leaves(after), strict=True):
        changes.setdefault(old, set()).add(new)
        numbers[old] += 1
    counted = Counter(text for text in texts if isinstance(text, str))
    clear = {old: next(iter(new)) for old, new in changes.items() if len(new) == 1 and counted[old] <= numbers[old]}
    return [clear.get(text, text) if isinstance(text, str) else text for text in texts]


def _leaves(messages: Sequence[Any]) -> list[str]:
    """The texts of all contents, in order."""
    found: list[str] = []
    waiting = [message.get("content") for message in reversed(messages) if isinstance(message, dict)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            waiting.extend([value.get("content"), value.get("text")])
    return found


def _portkey_answer(chat: Mapping[str, Any], pruned: Pruned) -> dict[str, Any]:
    answer: dict[str, Any] = {"verdict": True, "data": {"status": pruned.status, "reason": pruned.reason}}
    if pruned.messages is chat["messages"]:
        return answer
    body = {**chat, "messages": list(pruned.messages)}
    body |= {"tools": with_tool(chat.get("tools"))} if pruned.offers_tool else {}
    # its code looks into both sides, so both must be there
    return answer | {"transformedData": {"request": {"json": body}, "response": {"json": None}}}


def _headroom_answer(pruned: Pruned) -> dict[str, Any]:
    before, after = pruned.tokens_before, pruned.tokens_after
    return {
        "messages": list(pruned.messages),
        "tokens_before": before,
        "tokens_after": after,
        "tokens_saved": before - after,
        "compression_ratio": after / before if before else 1.0,
        "transforms_applied": ["ctxprune"] if pruned.status == "compressed" else [],
        "ccr_hashes": list(pruned.hashes),
        "status": pruned.status,
        "reason": pruned.reason,
    }


def _call_key(caller: Caller, call_id: str) -> bytes:
    return hashlib.blake2b(caller.scope + call_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
