"""The options of a compression, each once: what every door offers, with its name, type and default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.calibration import check_point
from ctxprune.compressors import load
from ctxprune.errors import BudgetError
from ctxprune.pipeline import Pipeline
from ctxprune.select import OnEmpty, Order, Policy
from ctxprune.text import UnitKind
from ctxprune.tokens import load_counter
from ctxprune.types import About, Compressor, TokenCounter, about_of

#: Options that `load` passes on where they are given, as not every compressor takes them.
_OWN = ("model", "rate", "operating_point", "calibration", "language", "units")
#: Those of `Policy`.
_RULES = ("keep_title", "min_keep", "floor", "top_p", "gap", "companions", "on_empty", "order", "protect", "elision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to compress; with none of threshold, operating_point, rate, budget, top_p and gap the compressor's own
    default holds.

    compressor, model: as `ctxprune.load` takes them. threshold: keep what scores at least this, 0 to 1.
    operating_point: "safe", "balanced" or "aggressive", in its place. budget: tokens of the whole context. rate: share
    of the tokens to keep, 0 to 1. calibration: a file that gives the threshold or the budget. tokenizer: what counts
    tokens, see `ctxprune.load_counter`. language: of the documents; None: guessed. units: what to choose among; None:
    by the shape of the text. The others are the fields of `ctxprune.Policy`.
    """

    compressor: str = "provence"
    model: str | None = None
    threshold: float | None = None
    operating_point: str | None = None
    budget: int | None = None
    rate: float | None = None
    calibration: str | Path | None = None
    tokenizer: str = "default"
    protect: tuple[str, ...] = ()
    keep_title: bool = True
    min_keep: int = 0
    floor: float | None = None
    top_p: float | None = None
    gap: tuple[int, int] | None = None
    companions: bool | None = None
    on_empty: OnEmpty = "drop"
    order: Order = "document"
    language: str | None = None
    units: UnitKind | None = None
    elision: str = ""

    def policy(self) -> Policy:
        return Policy(**{name: getattr(self, name) for name in _RULES})

    def pipeline(self) -> Pipeline:
        """Raises what `ctxprune.load` raises, and BudgetError where the compressor needs a budget and has none."""
        check_point(self.operating_point, self.threshold)
        counter = load_counter(self.tokenizer)
        compressor = self.loaded(counter)
        self.check(about_of(compressor))
        return Pipeline([compressor], counter=counter)

    def loaded(self, counter: TokenCounter) -> Compressor:
        own: dict[str, Any] = {name: value for name in _OWN if (value := getattr(self, name)) is not None}
        return load(
            self.compressor, threshold=self.threshold, budget=self.budget, counter=counter, policy=self.policy(), **own
        )

    def check(self, about: About) -> None:
        """Raise BudgetError where scores only rank and nothing says how much to keep.

        Said before anything is read, in the words of the command line.
        """
        if about.ranks_only and about.budget is None and self.budget is None and self.rate is None:
            raise BudgetError(f"{self.compressor} only ranks text and needs a budget; add --budget TOKENS")
