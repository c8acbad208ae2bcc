"""Numbers as callers give them (numpy's, Decimals, whole floats) made plain, so that they compare and become JSON."""

from __future__ import annotations

import math
from numbers import Integral
from typing import get_args

from ctxprune.errors import BudgetError, InputError


def finite(value: object) -> float | None:
    """A score as a float; None for nan, infinity and what is no number."""
    number = as_float(value)
    return None if number is None or not math.isfinite(number) else number


def whole(value: object) -> int | None:
    """A whole number, as 300.0 is one too; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):  # of any size, also one that no float holds
        return int(value)
    number = finite(value)
    return int(number) if number is not None and number.is_integer() else None


def checked_whole(name: str, value: object, *, least: int) -> int:
    """The value of an option. Raises InputError for no whole number and for one below `least`."""
    if (number := whole(value)) is None or number < least:
        raise InputError(f"{name} must be a whole number from {least} up, got {value!r:.80}")
    return number


def refuse_truth(name: str, value: object, annotation: object) -> object:
    """The value of a field. Raises InputError for True and False, alone or in a list, where its type has only numbers.

    pydantic takes them for 1 and 0.
    """
    types = _parts(annotation)
    if bool not in types and types & {int, float}:
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, bool):
                raise InputError(f"{name} must be a number, got {each}")
    return value


def _parts(annotation: object) -> set[object]:
    """The types that an annotation names, however deep they stand in it."""
    return {annotation}.union(*map(_parts, get_args(annotation))) if get_args(annotation) else {annotation}


def plain_budget(value: object) -> int | None:
    """A budget of tokens, which may still be too small; None for none. Raises BudgetError for no whole number."""
    if value is None:
        return None
    if (number := whole(value)) is None:
        raise BudgetError(f"budget must be a whole number of tokens, got {value!r:.80}; leave it out for no budget")
    return number


def plain_threshold(value: object) -> float | None:
    """A threshold, which may still be out of range; None for none. Raises InputError for what is no number."""
    if value is None:
        return None
    if (number := as_float(value)) is None:
        raise InputError(f"threshold must be a number in [0, 1], got {value!r:.80}; leave it out for the default")
    return number


def as_float(value: object) -> float | None:
    """Any real number as a float, nan and infinity too; None for what is none."""
    # numpy's truth values and arrays of one number can be made floats too, the first by mistake
    if isinstance(value, bool | str | bytes) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):  # ValueError: a signalling Decimal, an array that is empty
        return None
