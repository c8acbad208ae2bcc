"""One conversation on its way through: what was asked, what is known of it and its rows, and what came of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxprune.cache import ENTRY_BYTES, BoundedCache
from ctxprune.errors import InputError
from ctxprune.integrations.server.engine.jobs import Job, Outcome
from ctxprune.integrations.server.gateway.messages import Conversation
from ctxprune.integrations.server.gateway.policy import GatewayOptions
from ctxprune.integrations.server.proxy.context import SentTexts, Slot
from ctxprune.integrations.server.proxy.marks import keeps_balance
from ctxprune.integrations.server.service import told_headers
from ctxprune.prompt import NO_CONTEXT, piece_text
from ctxprune.types import Extract

#: What a compressor that is not told the question keeps.
AGNOSTIC_RATE = 0.66
#: Why something was left alone that is nobody's failure.
FINE = ("no_question", "small_conversation", "originals_full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request of a gateway. caller: whose memory, originals and cached readings it may use. key: the caller in
    statistics. sees_all: the whole conversation is there; otherwise rows are held back, the newest of the user too.
    questions: of each row, where the rows are no conversation. conversation: what the gateway calls it, if it does.
    frozen: so many first rows stay as they came. seconds: how long the gateway waits."""

    messages: Sequence[Any]
    options: GatewayOptions
    caller: bytes
    key: str
    model: str
    dialect: str
    sees_all: bool = True
    questions: Sequence[str] | None = None
    conversation: str = ""
    frozen: int = 0
    bypass: bool = False
    seconds: float | None = None

    @property
    def mode(self) -> str:
        return "off" if self.bypass else self.options.mode or "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What goes on. messages: the same objects where nothing was changed. texts: by slot, of those that were.
    tokens_would_be: after, where nothing is changed; else None. tokens_sent: of the whole conversation as it goes on.
    before, after: what was and what would be left of the texts
    that may be pruned, for whoever compares. reason: a word."""

    messages: Sequence[Any]
    status: str
    reason: str = ""
    texts: Mapping[Slot, str] = field(default_factory=dict)
    hashes: tuple[str, ...] = ()
    offers_tool: bool = False
    tokens_before: int = 0
    tokens_after: int = 0
    tokens_would_be: int | None = None
    tokens_sent: int = 0
    before: str = ""
    after: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return told_headers(self.status, self.tokens_before, self.tokens_after, self.reason, self.tokens_would_be)


@dataclass(slots=True)
class Work:
    """One conversation while it is worked on. by_row: the slots of each row. fresh: of rows that are decided on now.
    texts: of slots that change, without markers for the fresh ones. causes: why some do not."""

    ask: Ask
    conversation: Conversation
    keys: Sequence[bytes]
    tokens: Sequence[int]
    by_row: dict[int, list[Slot]] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    texts: dict[Slot, str] = field(default_factory=dict)
    hashes: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    saved_again: int = 0
    prefix_tokens: int = 0

    @property
    def slots(self) -> list[Slot]:
        return [slot for slots in self.by_row.values() for slot in slots]


#: A tool's name, and arguments that say nothing.
_ARGUES_NOTHING = re.compile(r"[^:]*(?::\s*(?:\{\s*\}|\[\s*\]|null|\"\")?)?")


def question_of(work: Work, row: int, slot: Slot) -> str:
    """The question that a row's texts are read for; "" when there is none. Where the newest text of the user is held
    back, the tool call says more than an older one, if it has any arguments."""
    ask, conversation = work.ask, work.conversation
    if ask.questions is not None or ask.options.question:
        return ask.options.question or (ask.questions or ())[row]
    call = conversation.call(slot) if slot.kind == "tool" else ""
    if ask.sees_all or slot.kind != "tool":
        return conversation.question(row) or call
    before = conversation.question_before(row)
    return before or call if _ARGUES_NOTHING.fullmatch(call) else call


def limits_of(options: GatewayOptions) -> tuple[object, ...]:
    """What says how much to keep; all None where the compressor decides."""
    return (
        options.threshold,
        options.operating_point,
        options.budget,
        options.rate,
        options.top_p,
        options.gap,
    )


def without_question(options: GatewayOptions, compressor: str) -> GatewayOptions:
    """For a compressor that cuts words and knows no question: of the options only what it takes."""
    rate = AGNOSTIC_RATE if options.rate is None and options.budget is None else options.rate
    return GatewayOptions(
        compressor=compressor, rate=rate, budget=options.budget, tokenizer=options.tokenizer, language=options.language
    )


def take(work: Work, slots: Sequence[Slot], job: Job, outcome: Outcome) -> None:
    """Enter what came of a job, or why nothing did."""
    if outcome.cause:
        work.causes.append(outcome.cause)
        return
    after = outcome.result.after
    by_index = {extract.index: _something(extract, slots[extract.index]) for extract in after.extracts}
    if job.is_tool_output:  # a result with a note of what was left out is no extract
        by_index = {0: "".join(map(piece_text, after.pieces))}
    if len(by_index) != len(slots):
        raise InputError(f"{outcome.result.compressor} gives no text for each document; name another")
    for index, slot in enumerate(slots):
        text = by_index[index] if by_index[index].strip() else NO_CONTEXT
        # markup within a sentence goes with it; where half of a pair would stay, all of the stretch does
        if text != slot.text and (slot.kind == "tool" or keeps_balance(slot.text, text)):
            work.texts[slot] = text


def _something(extract: Extract, slot: Slot) -> str:
    """What is left; of a tool's result at least its best sentence: one that vanished looks like a fault."""
    if extract.text.strip() or slot.kind != "tool" or not extract.units:
        return extract.text
    best = max(extract.units, key=lambda unit: unit.score)
    return extract.source.text[best.start : best.end].strip()


def failure(causes: Sequence[str]) -> str:
    return next((cause for cause in causes if cause not in FINE), "")


def reason_of(work: Work) -> str:
    if work.ask.mode != "on":
        return work.ask.mode
    if not work.by_row:
        return "no_context"
    return work.causes[0] if work.causes else "nothing_to_remove"


def scope_of(ask: Ask) -> bytes:
    """What a remembered row belongs to: a caller, and how that one wants it pruned."""
    beside = {"question", "mode", "min_tokens", "window_share", "fail_closed"}
    how = ask.options.model_dump_json(exclude=beside, exclude_defaults=True)
    watched = "" if ask.mode == "on" else "\0watched"  # what would have been sent was not
    whole = f"{ask.conversation}\0{how}{watched}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(ask.caller + whole, digest_size=16).digest()


class RowMemory(SentTexts):
    """What each row was sent as, and which rows were sent at all; `limit` holds for either."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._seen: BoundedCache[bytes, bool] = BoundedCache(limit, weigh=lambda _: ENTRY_BYTES)

    def seen(self, keys: Sequence[bytes]) -> int:
        """How many of the first rows were sent before; all are then remembered as sent."""
        number = next((at for at, key in enumerate(keys) if self._seen.get(key) is None), len(keys))
        for key in keys[number:]:
            self._seen.put(key, True)
        return number


def prefix_keys(messages: Sequence[Any], *, scope: bytes) -> list[bytes]:
    """A key for the messages up to each row. Cache marks do not count: clients move them on at every turn."""
    digest, keys = hashlib.blake2b(scope, digest_size=16), []
    for message in messages:
        digest.update(_canonical(message) + b"\n")
        keys.append(digest.digest())
    return keys


def row_keys(messages: Sequence[Any], *, scope: bytes) -> list[bytes]:
    """A key for each row by itself, for dialects that show ever other parts of one conversation."""
    return [hashlib.blake2b(scope + b"\0" + _canonical(message), digest_size=16).digest() for message in messages]


def _canonical(value: Any) -> bytes:
    """The value as bytes, without the cache marks at any depth."""
    text = json.dumps(_unmarked(value), sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unmarked(each) for name, each in value.items() if name != "cache_control"}
    return [_unmarked(each) for each in value] if isinstance(value, list) else value
