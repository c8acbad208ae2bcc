"""A metadata value as text, where tables and loaders have many ways to say that there is none."""

from __future__ import annotations


def text_of(value: object) -> str:
    """The value as text: "" for what stands for a missing one (None, nan, pandas.NA, NaT), of any library."""
    return "" if is_missing(value) else str(value)


def is_missing(value: object) -> bool:
    if value is None or type(value).__name__ == "NAType":
        return True
    if isinstance(value, str | bytes):
        return False
    try:
        return bool(value != value)  # what is missing equals nothing, itself included
    except (TypeError, ValueError):  # an array compares by element
        return False
