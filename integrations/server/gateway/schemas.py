"""The bodies of the gateways' dialects, as their clients send them. Unknown fields are ignored: clients change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctxprune.integrations.server.gateway.policy import GatewayOptions

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
    frozen_message_count: int | None = Field(default=None, ge=0, description="So many first messages stay.")


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
    target_compression_ratio: float | None = Field(default=None, gt=0, le=1000)
    dynamic: bool | None = None
    dynamic_min_ratio: float | None = Field(default=None, ge=1, le=1000)
    dynamic_max_ratio: float | None = Field(default=None, ge=1, le=1000)
    ctxprune: GatewayOptions | None = _OWN

    @model_validator(mode="after")
    def _in_order(self) -> CompresrOptions:
        low, high = self.dynamic_min_ratio, self.dynamic_max_ratio
        if low is not None and high is not None and low > high:
            raise ValueError(f"dynamic_min_ratio {low:g} must not exceed dynamic_max_ratio {high:g}")
        return self


class CompresrInput(BaseModel):
    model_config = _LENIENT
    context: str
    query: str = Field(min_length=1)


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
