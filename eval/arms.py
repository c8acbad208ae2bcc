"""The arms of a run: each one way to make the context of a question, tested or to compare with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ctxprune.eval.config import CompressorConfig

FULL: Final = "full"
NONE: Final = "none"
GOLD: Final = "gold"
REFERENCES: Final = (FULL, NONE, GOLD)
MATCHED: Final = ("lead", "random", "bm25-sentences", "rerank-truncate")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make a context.

    compressor: a reference ("full", "none", "gold"), the label of a tested compressor, or a baseline. settings: what
    it was asked for: {"threshold"}, {"operating_point"}, {"budget"}, {"rate"} or nothing; of a baseline
    {"tokens_of": id of the tested arm}.
    matched_to: that id; a baseline gets, question by question, as many tokens as that arm used.
    """

    compressor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    matched_to: str | None = None

    @property
    def id(self) -> str:
        """The compressor and its settings in words, e.g. "provence threshold=0.1"; unique in a run."""
        return " ".join([self.compressor, *(f"{name}={value}" for name, value in self.settings.items())])

    @property
    def scorer(self) -> tuple[str, bool]:
        """What makes its contexts: a compressor of the run by label, or (True) a baseline of that name as it comes."""
        return self.compressor, self.matched_to is not None

    @property
    def reference(self) -> bool:
        return self.compressor in REFERENCES and not self.settings

    def budget(self, tokens_before: int) -> int | None:
        """The tokens that a context of `tokens_before` may keep; None when none were asked for."""
        rate = self.settings.get("rate")
        return self.settings.get("budget") if rate is None else budget_at(rate, tokens_before)

    @property
    def threshold(self) -> float | None:
        return self.settings.get("threshold")

    @property
    def operating_point(self) -> str | None:
        return self.settings.get("operating_point")


def budget_at(rate: float, tokens_before: int) -> int:
    """The budget that a rate means: that share of the tokens, rounded down, at least one."""
    return max(1, math.floor(rate * tokens_before + 1e-9))


def arms_of(
    compressors: Sequence[CompressorConfig],
    compressed: Sequence[str],
    baselines: Sequence[str],
    *,
    full_context: bool = True,
) -> Iterator[Arm]:
    """All arms of a run, each after those it is compared with or matched to.

    The full context comes first, since every other arm is compared with it. compressed: labels of contexts that
    another tool has compressed.
    """
    if full_context:
        yield Arm(FULL)
    yield from (Arm(name) for name in (NONE, GOLD) if name in baselines)
    tested = [(arm, config.baselines) for config in compressors for arm in _tested(config)]
    tested += [(Arm(label), None) for label in compressed]
    for arm, own in tested:
        yield arm
        for name in MATCHED:
            if name in (baselines if own is None else own):
                yield Arm(name, {"tokens_of": arm.id}, matched_to=arm.id)


def _tested(config: CompressorConfig) -> Iterator[Arm]:
    yield from (Arm(config.label, {"threshold": threshold}) for threshold in config.thresholds)
    yield from (Arm(config.label, {"operating_point": name}) for name in config.operating_points)
    yield from (Arm(config.label, {"budget": budget}) for budget in config.budgets)
    yield from (Arm(config.label, {"rate": rate}) for rate in config.rates)
    if not any((config.thresholds, config.operating_points, config.budgets, config.rates)):
        yield Arm(config.label)
