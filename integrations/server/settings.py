"""What an operator sets: arguments of `Settings`, or environment variables named CTXPRUNE_<FIELD>."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ctxprune.integrations.server.gateway.policy import GatewayOptions, ModelInfo
from ctxprune.plain import refuse_truth

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


_UPSTREAM_KEYS = ("upstream_api_key", "anthropic_api_key")


def _is_sendable(key: str) -> bool:
    """Whether a header can hold the key as it is: another one would never be right, and every request would fail."""
    return key.isascii() and key.isprintable() and " " not in key


class Settings(BaseSettings):
    """Lists and mappings are JSON in the environment: CTXPRUNE_API_KEYS='["..."]'. Sizes are bytes or tokens as named.

    Raises pydantic's ValidationError, which names the field, for a value outside its limits.
    """

    model_config = SettingsConfigDict(env_prefix="CTXPRUNE_", frozen=True, extra="forbid")

    # What runs
    model: str = Field(default="provence-mini", description="The pruner: bundled name, exported folder, or checkpoint.")
    other_languages: str | None = Field(
        default="auto",
        description="The pruner for what is not English; auto: the bundled one beside the bundled; null: none.",
    )
    compressors: tuple[str, ...] = Field(
        default=(
            "provence",
            "dslr",
            "llmlingua2",
            "recomp-extractive",
            "bm25-sentences",
            "embedding-sentences",
            "rerank-truncate",
            "lead",
            "random",
        ),
        description="Compressors that callers may name; paths and hub ids are never taken from a request.",
    )
    default_compressor: str = Field(default="provence", description="For requests that name none.")
    tokenizers: dict[str, str] = Field(
        default={"default": "default", "words": "words"},
        description="Public name to specification as in `load_counter`: what callers may count tokens with.",
    )
    protect_regex: bool = Field(default=True, description="False: callers' `protect` entries are literal texts.")
    fail_closed: bool = Field(default=False, description="An error where the original text would be passed on.")

    # How much at a time
    max_body_bytes: int = Field(default=4_000_000, gt=0, description="A larger body is refused with 413.")
    max_proxy_body_bytes: int = Field(
        default=20_000_000, gt=0, description="The same for the proxy's routes, whose bodies may hold images."
    )
    body_seconds: Seconds = Field(default=30.0, description="A body must have arrived by then.")
    max_bodies_bytes: int = Field(
        default=256_000_000, gt=0, description="All bodies in memory, as they came and as they are read; more: 429."
    )
    max_documents: int = Field(default=1000, gt=0, description="In one request; of the proxy: stretches of context.")
    max_batch: int = Field(default=64, gt=0, description="Requests in one /v1/compress/batch.")
    max_requests: int = Field(default=192, gt=0, description="Requests in flight; more are answered with 429.")
    max_queue_tokens: int = Field(default=262_144, gt=0, description="Estimated model tokens in flight; more: 429.")
    max_queue_units: int = Field(default=65_536, gt=0, description="Estimated sentences in flight; more: 429.")
    caller_share: float = Field(
        default=0.75, gt=0, le=1, description="What one key or address may hold of each pool; with one key: all."
    )
    protect_seconds: Seconds = Field(default=2.0, description="Searching for `protect`, in one request or batch.")
    batch_tokens: int = Field(
        default=2048, gt=0, description="Tokens that the model reads in one call, where it reads batches."
    )
    deadline_seconds: Seconds = Field(default=30.0, description="The longest that a caller waits for the model.")

    # Cache of what the model said of a question and a document
    cache_bytes: int = Field(default=128_000_000, ge=0, description="0 switches the cache off.")
    cache_seconds: Seconds = Field(default=3600.0, description="An entry is used no longer than that.")

    # Connections
    max_connections: int = Field(default=1000, gt=0, description="Open at a time; more are closed at once.")
    header_seconds: Seconds = Field(default=10.0, description="A request's header must have arrived by then.")

    # Operations
    api_keys: tuple[SecretStr, ...] = Field(default=(), description="None: no key is asked for.")
    cors_origins: tuple[str, ...] = Field(default=(), description="Origins whose pages may call; none: no CORS.")
    log_text: bool = Field(default=False, description="True: question and documents go to the log.")
    docs: bool = Field(
        default=False, description="True: `/docs` shows the API; its scripts come from cdn.jsdelivr.net."
    )
    drift_window: int = Field(
        default=500, ge=0, le=100_000, description="Contexts whose scores are compared with the model's own; 0: none."
    )
    drift_bound: float = Field(
        default=0.25, gt=0, allow_inf_nan=False, description="A stability index above it is logged as drift."
    )
    tracing: bool = Field(default=False, description="True: OpenTelemetry spans; needs the extra `otel`.")
    drain_seconds: float = Field(default=5.0, ge=0, description="Between not ready on SIGTERM and not answering.")
    shutdown_seconds: int = Field(default=30, gt=0, description="Then requests in flight get so long to end.")

    # The OpenAI-compatible proxy
    upstream_url: AnyHttpUrl | None = Field(
        default=None, description="Up to and with /v1, e.g. http://localhost:8000/v1."
    )
    upstream_api_key: SecretStr | None = Field(default=None, description="Replaces the caller's Authorization.")
    upstream_connect_seconds: Seconds = Field(default=10.0, description="Until the upstream takes the connection.")
    upstream_read_seconds: Seconds = Field(default=600.0, description="Without a byte from upstream, and for its head.")
    context_name: str = Field(default="context", min_length=1, description="A message of this `name` is context.")
    anthropic_url: AnyHttpUrl | None = Field(
        default=None, description="For /v1/messages, up to and with /v1; by default the upstream's address."
    )
    anthropic_api_key: SecretStr | None = Field(default=None, description="Replaces the caller's key there.")
    tool_message_tokens: int | None = Field(default=None, ge=0, description="Prune tool results longer than this.")
    tool_message_budget: int | None = Field(
        default=None, gt=0, description="Tokens that each may keep, where the request does not say how to prune."
    )
    prune_cached: bool = Field(
        default=False,
        description="Prune what is new up to the last cache_control mark too, before it is cached.",
    )
    proxy_memory_bytes: int = Field(
        default=64_000_000, ge=0, description="How turns were sent is remembered, so that later ones send the same."
    )

    # Gateways that send whole conversations
    gateway: GatewayOptions | None = Field(default=None, description="How conversations are pruned, for all keys.")
    gateway_keys: dict[str, GatewayOptions] = Field(
        default={},
        description="The same for single keys, by SHA-256 (8 digits or more) or the gateway's name.",
    )
    gateway_agnostic: str | None = Field(
        default="llmlingua2", description="For texts without any question, if it is on offer; null: they stay."
    )
    gateway_read_tokens: int = Field(
        default=8192, gt=0, description="Longer texts are first cut to so many by shared words."
    )
    gateway_models: dict[str, ModelInfo] = Field(
        default={}, description="Windows and prices by model, in the names of LiteLLM's table."
    )
    gateway_models_file: str | None = Field(default=None, description="A JSON table of them, such as LiteLLM's.")
    gateway_cost_per_hour: float = Field(default=0.0, ge=0, description="Dollars that an hour of this server costs.")
    originals_bytes: int = Field(default=64_000_000, ge=0, description="Originals that are kept for callers.")
    originals_seconds: Seconds = Field(default=86_400.0, description="An original can be had no longer than that.")
    originals_path: str | None = Field(default=None, description="A SQLite file for them; null: in memory.")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return refuse_truth(name, value, cls.model_fields[name].annotation)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default_compressor not in self.compressors:
            raise ValueError(
                f"default_compressor {self.default_compressor!r} must be one of {', '.join(self.compressors)}"
            )
        asked = "gateway_agnostic" in self.model_fields_set and self.gateway_agnostic is not None
        if asked and self.gateway_agnostic not in self.compressors:
            raise ValueError(
                f"gateway_agnostic {self.gateway_agnostic!r} must be one of {', '.join(self.compressors)}, or null"
            )
        if "default" not in self.tokenizers:
            raise ValueError("tokenizers needs an entry 'default'")
        if any(not key.get_secret_value().strip() for key in self.api_keys):
            raise ValueError("api_keys must not be empty strings; leave the list empty to ask for none")
        named = [("api_keys", key) for key in self.api_keys]
        named += [(name, key) for name in _UPSTREAM_KEYS if (key := getattr(self, name)) is not None]
        for name, key in named:
            if not _is_sendable(key.get_secret_value()):
                raise ValueError(f"{name} must be printable ASCII without spaces; is there a line break at its end?")
        return self
