"""What the agents of several frameworks read in tests: shipments as JSON, and a compressor that keeps what is late."""

import json
import re
from collections.abc import Sequence
from typing import Any

from fixtures_scoring import LetterCompressor

from ctxprune.integrations.tool_results import ToolResults
from ctxprune.types import Context, Span

ASKED = "Which shipment is late?"
#: One of the thirty has a "z" in it, by which the compressor below knows it.
SHIPMENTS = json.dumps(
    {
        "page": 1,
        "shipments": [{"id": 510 + at, "port": "Bremen", "state": "arrived in time"} for at in range(30)],
    }
).replace('"id": 521, "port": "Bremen", "state": "arrived in time"', '"id": 521, "port": "Zadar", "state": "frozen"')


def by_line(text: str) -> list[Span]:
    return [Span(match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]


class Counted(LetterCompressor):
    """Keeps lines with a "z", counts its readings, and fails on the word "boom"."""

    def __init__(self) -> None:
        super().__init__("z", split=by_line, threshold=0.1)
        self.asked: list[str] = []

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        self.asked += [context.query for context in contexts]
        if any("boom" in extract.source.text for context in contexts for extract in context.extracts):
            raise RuntimeError("boom")
        return super().score(contexts)


def counted_results(**options: Any) -> tuple[ToolResults, list[str]]:
    """Results that prune everything, and the questions for which a text was read."""
    compressor = Counted()
    results = ToolResults(compressor, **({"min_tokens": 0} | options))
    compressor.asked.clear()
    return results, compressor.asked


def late(text: str) -> list[int]:
    """The ids of the shipments that are left; the text must be JSON."""
    return [each["id"] for each in json.loads(text)["shipments"]]
