"""Bodies that other vendors' clients send: fields that nobody reads are no error, but the answer names them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

LENIENT = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
#: The header that names them, so many at most; a name that is no word is told as "?".
IGNORED_HEADER = "x-ctxprune-ignored"
_SHOWN = 8
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII)


class Lenient(BaseModel):
    """A body with fields of any other name."""

    model_config = LENIENT

    @property
    def ignored(self) -> list[str]:
        """The names of fields that nobody reads; those with null ask for nothing."""
        extra = self.model_extra or {}
        return [name if _WORD.fullmatch(name) else "?" for name, value in extra.items() if value is not None]


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    return {IGNORED_HEADER: _listed(names)} if names else {}


def ignored_warnings(names: Sequence[str]) -> dict[str, list[str]]:
    """The field of an answer that names them; no field when all was read."""
    return {"warnings": [f"ignored, as this server has no such parameter: {_listed(names)}"]} if names else {}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
