"""Tokens counted, and what pruning saved of them: by key and hour, money net of our own time, and its metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from ctxprune.cache import ENTRY_BYTES, BoundedCache, key_of
from ctxprune.integrations.server.engine.queue import estimated_tokens
from ctxprune.integrations.server.gateway.policy import ModelInfo
from ctxprune.types import TokenCounter

HOUR = 3600
#: Hours that are kept, and keys that are told apart; what more there are is counted together.
MAX_HOURS, MAX_KEYS = 7 * 24, 200
OTHERS = "others"


@dataclass(slots=True)
class Sums:
    """Of requests and answers. tokens_in: of all texts that came. tokens_before, tokens_after: of what could be pruned,
    in audit and shadow as it would be.

    tokens_saved: taken out of what was sent on. tokens_would_save: the same in audit and shadow, where it was not.
    prefix_tokens: at the beginning of conversations, sent with the bytes of the last request. output_tokens: of
    answers, as far as they were shown to us. answer_words, answer_words_lost: of shadow's comparison, words of answers
    that stood in the whole context, and those of them that the pruned one lacks. money in dollars: saved at the
    model's price, spent on our own seconds and, for output_tokens, at the upstream.
    """

    requests: int = 0
    degraded: int = 0
    tokens_in: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    tokens_saved: int = 0
    tokens_would_save: int = 0
    prefix_tokens: int = 0
    answers: int = 0
    output_tokens: int = 0
    answer_words: int = 0
    answer_words_lost: int = 0
    seconds: float = 0.0
    money_saved: float = 0.0
    money_would_save: float = 0.0
    money_spent: float = 0.0
    output_money: float = 0.0

    def add(self, other: Sums) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def to_dict(self) -> dict[str, Any]:
        row = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: round(value, 9) for name, value in row.items()} | {
            "money_net": round(self.money_saved - self.money_spent, 9)
        }


def saved_money(info: ModelInfo | None, *, new: int, again: int) -> float:
    """Dollars. new: tokens left out for the first time; again: out of a prefix that the provider may have cached, and
    would have billed at its lower price."""
    if info is None:
        return 0.0
    price = info.input_cost_per_token
    cached = price if info.cache_read_input_token_cost is None else info.cache_read_input_token_cost
    return new * price + again * cached


class Ledger:
    """Safe to use from several threads. cost_per_hour: dollars that an hour of this server's work costs."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        cost_per_hour: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cost = cost_per_hour
        self._clock = clock
        self._lock = threading.Lock()
        self._hours: dict[int, dict[str, Sums]] = {}
        self._keys: set[str] = set()
        self._tokens = Counter(
            "ctxprune_gateway_tokens", "Tokens of conversations.", ["key", "kind"], registry=registry
        )
        self._requests = Counter(
            "ctxprune_gateway_requests", "Conversations.", ["dialect", "mode", "status"], registry=registry
        )
        self._seconds = Counter("ctxprune_gateway_seconds", "Spent on conversations.", ["dialect"], registry=registry)
        self._money = Counter("ctxprune_gateway_dollars", "Saved and spent.", ["key", "kind"], registry=registry)

    def request(self, key: str, sums: Sums, *, dialect: str, mode: str, status: str) -> None:
        """Count one conversation. key: stands for the caller, never a key itself."""
        sums.requests = 1
        sums.money_spent = sums.seconds / HOUR * self._cost
        label = self._add(key, sums)
        self._requests.labels(dialect, mode, status).inc()
        self._seconds.labels(dialect).inc(sums.seconds)
        self._count(label, sums)

    def answer(self, key: str, sums: Sums) -> None:
        """Count one answer of a model."""
        sums.answers = 1
        self._count(self._add(key, sums), sums)

    def rows(self, shown: Callable[[str], bool] = lambda key: True) -> list[dict[str, Any]]:
        """By hour (its beginning, seconds since the epoch) and key, oldest first; of the keys that are `shown`."""
        with self._lock:
            return [
                {"hour": hour * HOUR, "key": key} | sums.to_dict()
                for hour, by_key in sorted(self._hours.items())
                for key, sums in sorted(by_key.items())
                if shown(key)
            ]

    def totals(self, shown: Callable[[str], bool] = lambda key: True) -> dict[str, Any]:
        with self._lock:
            total = Sums()
            for by_key in self._hours.values():
                for key, sums in by_key.items():
                    if shown(key):
                        total.add(sums)
        return total.to_dict()

    def _add(self, key: str, sums: Sums) -> str:
        hour = int(self._clock() // HOUR)
        with self._lock:
            label = key if key in self._keys or len(self._keys) < MAX_KEYS else OTHERS
            self._keys.add(label)
            self._hours.setdefault(hour, {}).setdefault(label, Sums()).add(sums)
            while len(self._hours) > MAX_HOURS:
                del self._hours[min(self._hours)]
                self._keys = {name for by_key in self._hours.values() for name in by_key}
        return label

    def _count(self, label: str, sums: Sums) -> None:
        counted: Mapping[str, float] = {
            "in": sums.tokens_in,
            "saved": sums.tokens_saved,
            "would_save": sums.tokens_would_save,
            "prefix": sums.prefix_tokens,
            "output": sums.output_tokens,
        }
        for kind, amount in counted.items():
            if amount > 0:
                self._tokens.labels(label, kind).inc(amount)
        money: Mapping[str, float] = {
            "saved": sums.money_saved,
            "would_save": sums.money_would_save,
            "spent": sums.money_spent,
            "output": sums.output_money,
        }
        for kind, dollars in money.items():
            if dollars > 0:
                self._money.labels(label, kind).inc(dollars)


class Counts:
    """Numbers of tokens; a text is counted once, since a conversation comes again at every turn.

    limit: bytes of what is remembered, about; 0 counts anew each time.
    """

    def __init__(self, limit: int) -> None:
        self._counted: BoundedCache[bytes, int] = BoundedCache(limit, weigh=lambda _: ENTRY_BYTES)

    def count(self, texts: Sequence[str], counter: TokenCounter | None) -> list[int]:
        """counter: None estimates, as long as there is none."""
        if counter is None:
            return [estimated_tokens(text) for text in texts]
        keys = [key_of(text) for text in texts]
        known = [self._counted.get(key) for key in keys]
        unknown = [place for place, number in enumerate(known) if number is None]
        for place, number in zip(unknown, counter.count([texts[place] for place in unknown]), strict=True):
            self._counted.put(keys[place], number)
            known[place] = number
        return [number or 0 for number in known]
