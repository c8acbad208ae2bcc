"""What both MCP servers do with a text: prune it in a thread, say what was left out, and keep the original for a while
under a name that cannot be guessed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.tools import ToolOutput, ToolOutputs
from ctxprune.types import Context, Document

#: Bytes of all originals, and seconds that each is kept.
BYTES, SECONDS = 64_000_000, 3600.0


class Originals:
    """The last texts up to `limit` bytes; the oldest go first. clock: seconds, never going back."""

    def __init__(
        self, limit: int = BYTES, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self.seconds, self.clock = limit, seconds, clock
        self._texts: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()
        # without it whoever has a text of someone else's could learn that it was pruned here
        self._secret = secrets.token_bytes(16)

    def put(self, text: str) -> str:
        """The name to ask for it by, 24 hexadecimal digits; "" for a text that is larger than the limit."""
        encoded = text.encode("utf-8", "surrogatepass")
        name = hashlib.blake2b(encoded, digest_size=12, key=self._secret).hexdigest()
        weight = 4 * len(text)
        if weight > self.limit:
            return ""
        with self._lock:
            self._drop(name)
            self._texts[name] = self.clock(), text
            self._weight += weight
            while self._weight > self.limit:
                self._drop(next(iter(self._texts)))
        return name

    def get(self, name: str) -> str | None:
        """The text; None for a name that is unknown or too old."""
        with self._lock:
            found = self._texts.get(name)
            if found is not None and self.clock() - found[0] > self.seconds:
                self._drop(name)
                found = None
        return None if found is None else found[1]

    def _drop(self, name: str) -> None:
        if name in self._texts:
            self._weight -= 4 * len(self._texts.pop(name)[1])


RETRIEVE = "retrieve_original"
#: Texts that are pruned at a time; the others wait.
AT_A_TIME = 2


@dataclass(slots=True)
class Pruning:
    """A loaded compressor and the originals of what it pruned."""

    outputs: ToolOutputs
    originals: Originals = field(default_factory=Originals)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_A_TIME))

    async def prune(
        self, text: str, question: str, *, budget: int | None = None, threshold: float | None = None
    ) -> ToolOutput:
        """See `ctxprune.tools.prune_tool_output`."""
        async with self._turns:
            return await asyncio.to_thread(self.outputs.prune, text, question, budget=budget, threshold=threshold)

    async def rank(self, question: str, documents: list[str]) -> list[float]:
        """Relevance of each document."""
        async with self._turns:
            return await asyncio.to_thread(self._ranks, question, documents)

    def _ranks(self, question: str, documents: list[str]) -> list[float]:
        compressor: ScoringCompressor = self.outputs.compressor
        (scored,) = compressor.score([Context.of(question, [Document(text) for text in documents])])
        return [extract.score or 0.0 for extract in scored.extracts]

    def report(self, output: ToolOutput, original: str, *, retrieve: str = RETRIEVE) -> str:
        """One line beside the pruned text; "" when nothing was removed."""
        if output.status != "compressed":
            return ""
        told = f"ctxprune: {output.tokens_before} tokens cut to {output.tokens_after}; {output.left_out} of {output.of}"
        name = self.originals.put(original)
        found = f"; the original: {retrieve} with hash={name}" if name else ""
        warned = "".join(f"; {warning}" for warning in output.warnings)
        return f"[{told} left out{warned}{found}]"
