"""What a key, a model and a request want: mode, sizes from which to prune, windows and prices of models."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ctxprune.errors import InputError
from ctxprune.integrations.numbers import NUMBER, WHOLE
from ctxprune.integrations.server.gateway.messages import checked_blocks
from ctxprune.integrations.server.schemas import MAX_TOKENS, Options

Mode = Literal["on", "off", "audit", "shadow"]
#: Headers that ask for one request to be left alone: ours, and those of the dialects.
BYPASS_HEADERS = ("x-ctxprune-bypass", "x-headroom-bypass", "x-compresr-bypass")
#: LiteLLM tells of a header that it does not pass on only that it is there.
_TRUE = ("true", "[present]")


class GatewayOptions(Options):
    """How conversations are pruned: for all, for a key, or for a request."""

    mode: Mode | None = Field(
        default=None,
        description="on; off; audit (measure and log, change nothing); shadow (audit, and compare with the answer).",
    )
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS), WHOLE] | None = Field(
        default=None, description="Tool results and blocks of fewer tokens stay (default 32)."
    )
    window_share: float | None = Field(
        default=None, gt=0, le=1, description="Prune only conversations above this share of the model's window."
    )
    originals: Literal["none", "marker", "tool"] | None = Field(
        default=None, description="marker: name a hash that gives the original back; tool: offer the tool for it, too."
    )
    blocks: list[str] | None = Field(
        default=None, max_length=32, description="Elements whose text is retrieved context, such as documents."
    )
    question: str | None = Field(default=None, max_length=20_000, description="In place of the user's newest text.")
    fail_closed: bool | None = Field(default=None, description="An error where the original would be passed on.")

    @field_validator("blocks")
    @classmethod
    def _names(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else list(checked_blocks(value))

    def under(self, other: GatewayOptions) -> GatewayOptions:
        """These, with those of `other` where it has any."""
        mine, theirs = self.model_dump(exclude_none=True), other.model_dump(exclude_none=True, exclude_unset=True)
        for one, another in (("budget", "rate"), ("threshold", "operating_point")):  # not both
            if one in theirs or another in theirs:
                mine = {name: value for name, value in mine.items() if name not in (one, another)}
        return GatewayOptions.model_validate(mine | theirs)

    def asked(self, request: GatewayOptions) -> GatewayOptions:
        """These with a request's own, which may turn pruning off or down, but not on where the operator has not."""
        merged = self.under(request)
        return merged if self.mode in (None, "on") else merged.model_copy(update={"mode": self.mode})


Price = Annotated[float, Field(ge=0), NUMBER]


class ModelInfo(BaseModel):
    """What a model costs and holds, in the names of LiteLLM's table; dollars a token."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    max_input_tokens: Annotated[int, Field(gt=0), WHOLE] | None = None
    input_cost_per_token: Price = 0.0
    output_cost_per_token: Price = 0.0
    cache_read_input_token_cost: Price | None = None


class ModelTable:
    """Windows and prices by name of model. Names may be patterns such as `claude-*`; the first that fits holds."""

    def __init__(self, models: Mapping[str, ModelInfo]) -> None:
        self._models = dict(models)
        self._patterns = [name for name in models if any(sign in name for sign in "*?[")]

    def get(self, name: str) -> ModelInfo | None:
        """Of the name as it is, without its provider (`openai/gpt-4o`), or of a pattern; None when not in the table."""
        for one in (name, name.rpartition("/")[2]):
            if one in self._models:
                return self._models[one]
            if pattern := next((each for each in self._patterns if fnmatch.fnmatchcase(one, each)), None):
                return self._models[pattern]
        return None


def model_table(models: Mapping[str, ModelInfo], file: str | None) -> ModelTable:
    """The models of the settings before those of a file like LiteLLM's. Raises InputError for any other file."""
    if file is None:
        return ModelTable(models)
    try:
        rows = json.loads(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"gateway_models_file {file!r} cannot be read ({reason}); give a JSON table") from None
    if not isinstance(rows, dict):
        raise InputError(f"gateway_models_file {file!r} must be a JSON object by model, got {type(rows).__name__}")
    known = {name: info for name, row in rows.items() if (info := _info(row)) is not None}
    return ModelTable(dict(models) | {name: info for name, info in known.items() if name not in models})


def bypassed(*headers: Mapping[str, Any]) -> bool:
    """Whether any of these headers asks to be left alone."""
    return any(
        name.lower() in BYPASS_HEADERS and str(value).strip().lower() in _TRUE
        for each in headers
        for name, value in each.items()
    )


def options_for(
    names: Sequence[str], *, everyone: GatewayOptions, by_key: Mapping[str, GatewayOptions]
) -> GatewayOptions:
    """What the operator set for the first of these names that has an entry; a digest may be given by its beginning.

    names: of whoever asks, the most particular first.
    """
    for name in names:
        for known, options in by_key.items():
            if name and (known == name or (len(known) >= 8 and _is_digest(name) and name.startswith(known))):
                return everyone.under(options)
    return everyone


def _is_digest(name: str) -> bool:
    return len(name) >= 32 and all(sign in "0123456789abcdef" for sign in name)


def _info(row: Any) -> ModelInfo | None:
    """A row of the table; None for one that says nothing of tokens (an image model, a note)."""
    if not isinstance(row, dict):
        return None
    named = {name: row[name] for name in ModelInfo.model_fields if isinstance(row.get(name), int | float)}
    try:
        return ModelInfo.model_validate(named) if named else None
    except ValueError:
        return None
