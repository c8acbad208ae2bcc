"""The bodies of the gateways' dialects, as clients send and read them. Unknown fields are ignored: clients change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctxprune.integrations.numbers import NUMBER, WHOLE
from ctxprune.integrations.originals import with_tool
from ctxprune.integrations.server.gateway.policy import GatewayOptions
from ctxprune.integrations.server.gateway.work import Pruned
from ctxprune.integrations.server.json_types import AnyText, SomeText

_LENIENT = ConfigDict(extra="ignore", allow_inf_nan=False)
_OWN = Field(default=None, description="Our options, for this request.")
_MESSAGES: list[Any] = [
    {"role": "user", "content": "When was the bridge opened?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": "bridge"}'}}
        ],
    },
    {
        "role": "tool",
        "tool_call_id": "c1",
        "content": "The bridge is of granite. It was opened in 1911. Swallows nest under it in spring, and the ferry "
        "below runs every hour, also on Sundays, for those who like it better.",
    },
]


class GuardrailRequest(BaseModel):
    """LiteLLM's generic guardrail. structured_messages: the whole conversation, where the request has one."""

    model_config = ConfigDict(
        **_LENIENT,
        json_schema_extra={
            "examples": [{"input_type": "request", "texts": [], "structured_messages": _MESSAGES, "model": "m"}]
        },
    )
    input_type: Literal["request", "response"]
    texts: list[Any] | None = None
    structured_messages: list[Any] | None = None
    tools: list[Any] | None = None
    model: str | None = None
    litellm_call_id: str | None = None
    request_data: dict[str, Any] | None = Field(default=None, description="Who asked the gateway: user_api_key_...")
    request_headers: dict[str, Any] | None = None
    additional_provider_specific_params: GatewayOptions | None = _OWN


class PortkeySide(BaseModel):
    """A request or an answer as Portkey's webhook shows it."""

    model_config = _LENIENT
    body: dict[str, Any] | None = Field(default=None, alias="json")


class PortkeyRequest(BaseModel):
    """What Portkey's webhook guardrail sends before a request goes to its provider, and after the answer."""

    model_config = ConfigDict(
        **_LENIENT,
        json_schema_extra={
            "examples": [
                {
                    "request": {"json": {"model": "m", "messages": _MESSAGES}, "text": "", "isStreamingRequest": False},
                    "response": {"json": {}, "text": "", "statusCode": None},
                    "provider": "openai",
                    "requestType": "chatComplete",
                    "eventType": "beforeRequestHook",
                }
            ]
        },
    )
    request: PortkeySide
    response: PortkeySide | None = None
    event_type: str | None = Field(
        default=None, alias="eventType", description="Without it, a request that has no answer yet is pruned."
    )


class HeadroomConfig(BaseModel):
    model_config = _LENIENT
    mode: str | None = Field(default=None, description="ccr: the caller offers the model a tool for originals.")
    frozen_message_count: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        default=None, description="So many first messages stay."
    )


class HeadroomRequest(BaseModel):
    """Headroom's dialect: messages in, the same number of messages out."""

    model_config = ConfigDict(**_LENIENT, json_schema_extra={"examples": [{"messages": _MESSAGES, "model": "m"}]})
    messages: list[Any]
    model: str | None = None
    config: HeadroomConfig | None = None
    ctxprune: GatewayOptions | None = _OWN


class HeadroomResponse(BaseModel):
    """messages: as many as came. ccr_hashes: of originals that can be had. reason: a word; "" when pruned."""

    messages: list[Any]
    tokens_before: int
    tokens_after: int
    tokens_saved: int
    compression_ratio: float = Field(description="tokens_after / tokens_before")
    transforms_applied: list[str]
    ccr_hashes: list[str]
    status: Literal["compressed", "passthrough", "degraded"]
    reason: str


class CompresrOptions(BaseModel):
    """target_compression_ratio: up to 1 the share of tokens to remove, above it how many times shorter. dynamic: as the
    model finds right, within dynamic_min_ratio and dynamic_max_ratio (tokens before / after)."""

    model_config = _LENIENT
    target_compression_ratio: Annotated[float, Field(gt=0, le=1000), NUMBER] | None = None
    dynamic: bool | None = None
    dynamic_min_ratio: Annotated[float, Field(ge=1, le=1000), NUMBER] | None = None
    dynamic_max_ratio: Annotated[float, Field(ge=1, le=1000), NUMBER] | None = None
    ctxprune: GatewayOptions | None = _OWN

    @model_validator(mode="after")
    def _in_order(self) -> CompresrOptions:
        low, high = self.dynamic_min_ratio, self.dynamic_max_ratio
        if low is not None and high is not None and low > high:
            raise ValueError(f"dynamic_min_ratio {low:g} must not exceed dynamic_max_ratio {high:g}")
        return self


class CompresrInput(BaseModel):
    model_config = _LENIENT
    context: AnyText
    query: SomeText


class CompresrRequest(CompresrOptions, CompresrInput):
    """One text and its question."""

    model_config = ConfigDict(
        **_LENIENT,
        json_schema_extra={"examples": [{"context": _MESSAGES[2]["content"], "query": "When was the bridge opened?"}]},
    )


class CompresrBatch(CompresrOptions):
    """Several, answered one for one."""

    model_config = ConfigDict(
        **_LENIENT,
        json_schema_extra={
            "examples": [{"inputs": [{"context": _MESSAGES[2]["content"], "query": "When was the bridge opened?"}]}]
        },
    )
    inputs: list[CompresrInput]


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


def guardrail_answer(body: GuardrailRequest, pruned: Pruned, messages: Sequence[Any]) -> dict[str, Any]:
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


def portkey_answer(chat: Mapping[str, Any], pruned: Pruned) -> dict[str, Any]:
    answer: dict[str, Any] = {"verdict": True, "data": {"status": pruned.status, "reason": pruned.reason}}
    if pruned.messages is chat["messages"]:
        return answer
    body = {**chat, "messages": list(pruned.messages)}
    body |= {"tools": with_tool(chat.get("tools"))} if pruned.offers_tool else {}
    # its code looks into both sides, so both must be there
    return answer | {"transformedData": {"request": {"json": body}, "response": {"json": None}}}


def headroom_answer(pruned: Pruned) -> dict[str, Any]:
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
