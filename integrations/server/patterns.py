"""Refuse regular expressions of callers that could keep the interpreter busy: a match cannot be interrupted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from ctxprune.errors import InputError

#: Steps of the matcher at worst, a few seconds' worth, during which nothing else runs.
MAX_STEPS = 3e8

# the interpreter's own parser, under its private name: another one would miss what it does not know
_parse = import_module("re._parser").parse


def checked_patterns(patterns: Sequence[str], *, regex: bool, lengths: Sequence[int]) -> tuple[str, ...]:
    """The patterns as `Policy.protect` takes them; with `regex` false they are literal texts.

    lengths: characters of the texts that they will be searched for in. Raises InputError for a pattern that does not
    compile, and where the worst of all texts of these lengths would take more than MAX_STEPS.
    """
    if not regex:
        return tuple(map(re.escape, patterns))
    total, longest, steps = sum(lengths), max(lengths, default=0), 0.0
    for pattern in patterns:
        steps += total * _steps(_searched(list(_parsed(pattern))), longest)
        if steps > MAX_STEPS:
            raise InputError(
                f"protect could take too long on {total} characters, at {pattern!r:.80}; bound its repetitions, "
                "as in \\d{1,20}, do not repeat groups, or write the text out"
            )
    return tuple(patterns)


def _parsed(pattern: str) -> Any:
    try:
        re.compile(pattern)
        return _parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"protect has a bad regular expression {pattern!r:.80}: {error}") from None


def _searched(items: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The items without a simple repetition at the end, as in `[A-Z]-\\d+`: it cannot fail, and what it takes no
    later search looks at again."""
    if not items:
        return items
    operation, argument = items[-1]
    is_simple = str(operation).endswith("REPEAT") and argument[0] <= 1 and len(argument[2]) == 1
    if is_simple and _item(str(argument[2][0][0]), argument[2][0][1], 1) == (1.0, 1.0):
        return [*items[:-1], argument[2][0]]
    return items


def _steps(items: Iterable[tuple[Any, Any]], length: int) -> float:
    """Steps of a backtracking matcher from one start, at worst: the rest is tried again for every way that an item has
    to match, unless there is no rest, which cannot fail."""
    steps, ways = 0.0, 1.0
    for operation, argument in items:
        item_steps, item_ways = _item(str(operation), argument, length)
        steps, ways = steps + ways * item_steps, ways * item_ways
    return steps


def _item(name: str, argument: Any, length: int) -> tuple[float, float]:
    """Steps of one item, and ways in which it can match."""
    if name.endswith("REPEAT"):
        low, high, inner = int(argument[0]), int(argument[1]), argument[2]
        times = min(high, max(length, low))
        ways = _power(_ways(inner, length), times) * (times - low + 1)
        return max(times, 1) * _steps(inner, length) * max(ways / (times - low + 1), 1.0), ways
    parts = _parts(name, argument)
    if parts is None:
        return math.inf, math.inf
    if not parts:
        return 1.0, 1.0
    return sum(_steps(part, length) for part in parts), sum(_ways(part, length) for part in parts)


def _ways(items: Iterable[tuple[Any, Any]], length: int) -> float:
    return math.prod(_item(str(operation), argument, length)[1] for operation, argument in items)


def _parts(name: str, argument: Any) -> Sequence[Any] | None:
    """What a compound item is made of, one of which matches; none for a single character or place, None for back
    references, whose cost depends on what was matched."""
    if name == "BRANCH":
        return list(argument[1])
    if name in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
        return [argument[-1]]
    if name == "ATOMIC_GROUP":
        return [argument]
    return None if name.startswith("GROUPREF") else []


def _power(base: float, exponent: int) -> float:
    return 1.0 if base == 1 or exponent == 0 else math.inf if exponent * math.log(base) > 100 else base**exponent
