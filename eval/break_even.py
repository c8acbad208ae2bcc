"""What compression saves or costs per request, answers included: longer answers can eat what a shorter prompt saves."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from ctxprune.errors import InputError

#: What can be moved until the two bills are equal.
Lever: TypeAlias = Literal["tokens_after", "output_after", "compress_seconds", "machine_hour", "cached_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One request, without and with compression.

    input_price, output_price: of a million tokens. cached_price: of a million input tokens that the provider's prompt
    cache serves (None: input_price). tokens_before, tokens_after: of the context. other_tokens: input tokens that stay
    as they are (system text, question). output_before, output_after: tokens of the answer. compress_seconds: of the
    compressor. machine_hour: price of an hour of its machine. cached_share: of the uncompressed context, the share that
    the prompt cache would serve and that a pruned context cannot use, in [0, 1]. prefill, decode: tokens a second that
    the generator reads and writes (None: no times). Raises InputError for what is negative, not finite or out of range.
    """

    input_price: float
    output_price: float
    tokens_before: float
    tokens_after: float
    output_before: float
    output_after: float
    compress_seconds: float
    machine_hour: float = 0.0
    other_tokens: float = 0.0
    cached_share: float = 0.0
    cached_price: float | None = None
    prefill: float | None = None
    decode: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{field.name} must be zero or more and finite, got {value}")
            if value == 0 and field.name in ("prefill", "decode"):
                raise InputError(f"{field.name} is a speed in tokens a second and must be positive; leave it out")
        if self.cached_share > 1:
            raise InputError(f"cached_share is a share in [0, 1], got {self.cached_share}")


@dataclass(frozen=True, slots=True)
class Bill:
    """One request: money for the context, for other input, for the answer and for the compressor; seconds if known.

    first_token: until the first token of the answer; total: until the last. Each None without the generator's speeds.
    """

    context: float
    other: float
    output: float
    compressor: float
    first_token: float | None
    total: float | None

    @property
    def money(self) -> float:
        return self.context + self.other + self.output + self.compressor


def bills(work: Workload) -> tuple[Bill, Bill]:
    """(without, with) compression."""
    cached = work.input_price if work.cached_price is None else work.cached_price
    whole = work.cached_share * cached + (1 - work.cached_share) * work.input_price
    return (
        _bill(work, work.tokens_before, whole, work.output_before, 0.0),
        _bill(work, work.tokens_after, work.input_price, work.output_after, work.compress_seconds),
    )


def _bill(work: Workload, tokens: float, token_price: float, output: float, seconds: float) -> Bill:
    first = None if work.prefill is None else seconds + (tokens + work.other_tokens) / work.prefill
    return Bill(
        context=tokens * token_price / 1e6,
        other=work.other_tokens * work.input_price / 1e6,
        output=output * work.output_price / 1e6,
        compressor=seconds * work.machine_hour / 3600,
        first_token=first,
        total=None if first is None or work.decode is None else first + output / work.decode,
    )


def saved(work: Workload) -> float:
    """Money saved a request; negative where compression costs more than it saves."""
    without, compressed = bills(work)
    return without.money - compressed.money


def break_even_at(work: Workload, lever: Lever) -> float | None:
    """The value of `lever` at which the bills are equal, all else as it is; None where no value in range makes them so.

    The bills are linear in each lever, so two points give the line.
    """
    if lever not in get_args(Lever):
        raise InputError(f"lever must be one of {', '.join(get_args(Lever))}, got {lever!r}")
    ends = (0.0, 1.0)
    at_zero, at_one = (saved(replace(work, **_moved(lever, end))) for end in ends)
    slope = at_one - at_zero
    if slope == 0:
        return None
    value = -at_zero / slope
    return value if value >= 0 and (lever != "cached_share" or value <= 1) else None


def _moved(lever: Lever, value: float) -> dict[str, Any]:
    return {lever: value}


_NAMES: dict[Lever, str] = {
    "tokens_after": "context tokens left",
    "output_after": "answer tokens",
    "compress_seconds": "compressor seconds",
    "machine_hour": "price of a machine hour",
    "cached_share": "share the prompt cache would serve",
}


def table(work: Workload, *, requests: int = 1000) -> str:
    """Markdown: the bill of so many requests, seconds of one, and how far each figure can move."""
    without, compressed = bills(work)
    lines = [f"| of {requests:,} requests | without | with compression |", "| --- | ---: | ---: |"]
    for name in ("context", "other", "output", "compressor", "money"):
        label = {"other": "other input", "output": "answers", "money": "**total**"}.get(name, name)
        lines.append(f"| {label} | {_money(without, name, requests)} | {_money(compressed, name, requests)} |")
    for name, label in (("first_token", "seconds to first token"), ("total", "seconds to last token")):
        if getattr(without, name) is not None:
            lines.append(f"| {label} | {getattr(without, name):.2f} | {getattr(compressed, name):.2f} |")
    gain = saved(work)
    share = gain / without.money if without.money else 0.0
    verdict = "saves" if gain > 0 else "costs" if gain < 0 else "changes"
    lines += ["", f"Compression {verdict} {abs(gain) * requests:,.4g} on {requests:,} requests ({abs(share):.1%}).", ""]
    lines += ["| nothing is saved when | is | break-even |", "| --- | ---: | ---: |"]
    for lever, label in _NAMES.items():
        value = break_even_at(work, lever)
        lines.append(f"| {label} | {getattr(work, lever):,.4g} | {'none' if value is None else f'{value:,.4g}'} |")
    return "\n".join(lines) + "\n"


def _money(bill: Bill, name: str, requests: int) -> str:
    return f"{getattr(bill, name) * requests:,.4g}"
