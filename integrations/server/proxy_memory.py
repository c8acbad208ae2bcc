"""What each turn of a conversation was sent upstream as, so that later requests of it repeat the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctxprune.integrations.server.cache import BoundedCache
from ctxprune.integrations.server.proxy_context import Segment, Turn

#: Bytes of an entry besides its texts, about.
_OVERHEAD = 300

#: The text of each segment; None for one that went as it came.
Sent = tuple[str | None, ...]


class TurnMemory:
    """The turns of the last conversations. limit: bytes, about; 0 remembers nothing.

    A turn that could not be compressed is remembered too: were it compressed at the next request, the upstream's
    prompt cache would miss everything after it.
    """

    def __init__(self, limit: int) -> None:
        self._sent: BoundedCache[bytes, Sent] = BoundedCache(limit, weigh=_weigh)

    def get(self, key: bytes, segments: Sequence[Segment]) -> dict[Segment, str] | None:
        """The texts of the segments that were changed; None for an unknown turn."""
        sent = self._sent.get(key)
        if sent is None or len(sent) != len(segments):
            return None
        return {segment: text for segment, text in zip(segments, sent, strict=True) if text is not None}

    def put(self, key: bytes, segments: Sequence[Segment], texts: Mapping[Segment, str]) -> None:
        """texts: those that were changed, of these segments and maybe others."""
        found = ((segment, texts.get(segment)) for segment in segments)
        self._sent.put(key, tuple(None if text == segment.text else text for segment, text in found))


def conversation_keys(messages: Sequence[Any], turns: Sequence[Turn], *, scope: bytes = b"") -> list[bytes]:
    """A key for the messages up to the end of each turn, and for what is context in it; each message is read once.

    scope: what else must be the same: the caller, and the options that say how to compress. What one caller asked must
    never be what another one sends.
    """
    digest, keys, start = hashlib.blake2b(scope, digest_size=16), [], 0
    for turn in turns:
        for message in messages[start : turn.end]:
            digest.update(json.dumps(message, sort_keys=True).encode() + b"\n")
        marked = digest.copy()
        for segment in turn.segments:
            marked.update(f"{segment.message},{segment.part},{segment.start},{segment.end}\n".encode())
        keys.append(marked.digest())
        start = turn.end
    return keys


def _weigh(sent: Sent) -> int:
    # up to four bytes a character, as Python keeps them
    return _OVERHEAD + sum(4 * len(text) for text in sent if text is not None)
