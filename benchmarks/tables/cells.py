"""Figures with their intervals, as cells of the tables have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(figure: Mapping[str, Any], sign: str = "") -> str:
    """Of a mean, with its interval; a dash where nothing was measured. sign: what follows the mean."""
    if not figure["n"]:
        return "–"
    mean, low, high = (round(100 * figure[name]) for name in ("mean", "low", "high"))
    return f"{mean}{sign} [{low}, {high}]"


def signed(difference: float, low: float, high: float, *, scale: float = 100, digits: int = 0) -> str:
    """A difference with its interval, bold where that excludes 0."""
    shown, least, most = (f"{scale * value:+.{digits}f}" for value in (difference, low, high))
    text = f"{shown} [{least}, {most}]"
    return f"**{text}**" if low > 0 or high < 0 else text
