"""Numbers as fields of pydantic models: 30.0 is a whole number, as JavaScript writes one, and True is no number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from ctxprune.plain import as_float, whole


def _as_whole(value: Any) -> Any:
    """A whole number as an int; what is no number is left to pydantic."""
    if (number := whole(value)) is not None:
        return number
    if isinstance(value, bool | float):
        raise ValueError(f"must be a whole number, got {value!r}")
    return value


def _as_number(value: Any) -> Any:
    """A number as a float; what is no number is left to pydantic."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value!r}")
    return value if (number := as_float(value)) is None else number


#: To be put behind the limits of an `Annotated`, which then stand in its JSON schema too.
WHOLE, NUMBER = BeforeValidator(_as_whole), BeforeValidator(_as_number)
Whole = Annotated[int, WHOLE]
Number = Annotated[float, NUMBER]
