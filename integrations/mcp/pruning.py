"""What both MCP servers do with a text: prune it in a thread, say what was left out, and keep the original for a while
under a name that cannot be guessed.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.integrations.originals import Originals
from ctxprune.tools import ToolOutput, ToolOutputs
from ctxprune.types import Context, Document

#: Bytes of all originals, and seconds that each is kept.
BYTES, SECONDS = 64_000_000, 3600.0
RETRIEVE = "retrieve_original"
#: Texts that are pruned at a time; the others wait.
AT_A_TIME = 2


@dataclass(slots=True)
class Pruning:
    """A loaded compressor and the originals of what it pruned."""

    outputs: ToolOutputs
    originals: Originals = field(default_factory=lambda: Originals(BYTES, max_age=SECONDS))
    # one caller, whom nobody else can name: whoever has a text of someone else's cannot learn that it was pruned here
    _caller: bytes = field(default_factory=lambda: secrets.token_bytes(16))
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

    def original(self, name: str) -> str | None:
        """The text behind a hash of `report`; None for one that is unknown or too old."""
        return self.originals.get(self._caller, name)

    def report(self, output: ToolOutput, original: str, *, retrieve: str = RETRIEVE) -> str:
        """One line beside the pruned text; "" when nothing was removed."""
        if output.status != "compressed":
            return ""
        told = f"ctxprune: {output.tokens_before} tokens cut to {output.tokens_after}; {output.left_out} of {output.of}"
        name = self.originals.put(self._caller, original)
        found = f"; the original: {retrieve} with hash={name}" if name else ""
        warned = "".join(f"; {warning}" for warning in output.warnings)
        return f"[{told} left out{warned}{found}]"
