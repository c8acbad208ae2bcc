"""What each row of a conversation was sent as, by a key of the row, so that later requests send the same bytes; and
numbers of tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctxprune.integrations.cache import BoundedCache
from ctxprune.integrations.server.engine.queue import estimated_tokens
from ctxprune.integrations.server.gateway.messages import Slot
from ctxprune.types import TokenCounter

#: The text of each slot; None for one that went as it came.
Sent = tuple[str | None, ...]
#: Bytes of an entry besides its texts, about: 282 were measured for one of the smallest.
_OVERHEAD = 300


class RowMemory:
    """limit: bytes of the texts, about, and again of the rows that are only known to have been sent; 0 keeps nothing.

    A row that could not be pruned is remembered too: were it pruned at the next request, the provider's prompt cache
    would miss everything after it.
    """

    def __init__(self, limit: int) -> None:
        self._sent: BoundedCache[bytes, Sent] = BoundedCache(limit, weigh=_weigh)
        self._seen: BoundedCache[bytes, bool] = BoundedCache(limit, weigh=lambda _: _OVERHEAD)

    def get(self, key: bytes, slots: Sequence[Slot]) -> dict[Slot, str] | None:
        """The texts of the slots that were changed; None for a row that was not decided on."""
        sent = self._sent.get(key)
        if sent is None or len(sent) != len(slots):
            return None
        return {slot: text for slot, text in zip(slots, sent, strict=True) if text is not None}

    def put(self, key: bytes, slots: Sequence[Slot], texts: Mapping[Slot, str]) -> None:
        """texts: of the slots that were changed, of these slots and maybe others."""
        self._sent.put(key, tuple(texts.get(slot) for slot in slots))

    def seen(self, keys: Sequence[bytes]) -> int:
        """How many of the first rows were sent before; all are then remembered as sent."""
        number = next((at for at, key in enumerate(keys) if self._seen.get(key) is None), len(keys))
        for key in keys[number:]:
            self._seen.put(key, True)
        return number


class Counts:
    """Numbers of tokens; a text is counted once, since a conversation comes again at every turn.

    limit: bytes of what is remembered, about; 0 counts anew each time.
    """

    def __init__(self, limit: int) -> None:
        self._counted: BoundedCache[bytes, int] = BoundedCache(limit, weigh=lambda _: _OVERHEAD)

    def count(self, texts: Sequence[str], counter: TokenCounter | None) -> list[int]:
        """counter: None estimates, as long as there is none."""
        if counter is None:
            return [estimated_tokens(text) for text in texts]
        keys = [_digest(text) for text in texts]
        known = [self._counted.get(key) for key in keys]
        unknown = [place for place, number in enumerate(known) if number is None]
        for place, number in zip(unknown, counter.count([texts[place] for place in unknown]), strict=True):
            self._counted.put(keys[place], number)
            known[place] = number
        return [number or 0 for number in known]


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


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _weigh(sent: Sent) -> int:
    # up to four bytes a character, as Python keeps them
    return _OVERHEAD + sum(4 * len(text) for text in sent if text is not None)
