"""The options by which `compress` and `run` build their pipeline, and those of what they print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctxprune.compressors import load
from ctxprune.errors import BudgetError, InputError
from ctxprune.pipeline import Pipeline
from ctxprune.select import OnEmpty, Order, Policy, gap_bounds
from ctxprune.text import UnitKind
from ctxprune.tokens import load_counter
from ctxprune.types import Compressor

#: "auto": everything, but on a terminal of a long text only what is kept, with a line that says so.
Detail = Literal["auto", "all", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is printed, and whether stderr stays empty but for errors."""

    as_json: bool = False
    text: bool = False
    detail: Detail = "auto"
    html: Path | None = None
    quiet: bool = False

    @classmethod
    def of(cls, *, as_json: bool, text: bool, kept: bool, everything: bool, html: Path | None, quiet: bool) -> View:
        """Raises InputError for two of the forms together."""
        forms = {"--json": as_json, "--text": text, "--kept": kept, "--all": everything}
        chosen = [name for name, on in forms.items() if on]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} print the result in different forms; give only one")
        detail: Detail = "kept" if kept else "all" if everything else "auto"
        return cls(as_json=as_json, text=text, detail=detail, html=html, quiet=quiet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """What the user asked for, as `ctxprune.load`, `Policy` and `load_counter` take it."""

    compressor: str
    model: str | None
    threshold: float | None
    budget: int | None
    tokenizer: str
    protect: tuple[str, ...]
    keep_title: bool
    min_keep: int
    on_empty: OnEmpty
    order: Order
    operating_point: str | None = None
    floor: float | None = None
    top_p: float | None = None
    gap: str | None = None
    companions: bool | None = None
    rate: float | None = None
    calibration: Path | None = None
    language: str | None = None
    units: UnitKind | None = None
    elision: str = ""

    def pipeline(self) -> Pipeline:
        """Raises what `ctxprune.load` raises, and BudgetError where the compressor needs a budget and has none."""
        policy = Policy(
            keep_title=self.keep_title,
            min_keep=self.min_keep,
            floor=self.floor,
            top_p=self.top_p,
            gap=gap_bounds(self.gap),
            companions=self.companions,
            on_empty=self.on_empty,
            order=self.order,
            protect=self.protect,
            elision=self.elision,
        )
        counter = load_counter(self.tokenizer)
        compressor = self._load(threshold=self.threshold, budget=self.budget, counter=counter, policy=policy)
        # said here, before anything is read or retrieved, and in the words of the command line
        budget = getattr(compressor, "budget", self.budget)
        if budget is None and self.rate is None and getattr(compressor, "default_threshold", 0.0) is None:
            raise BudgetError(f"{self.compressor} only ranks text and needs a budget; add --budget TOKENS")
        return Pipeline([compressor], counter=counter)

    def _load(self, **options: Any) -> Compressor:
        if self.calibration is not None:
            options["calibration"] = self.calibration
        own = {name: value for name in _OWN if (value := getattr(self, name)) is not None}
        try:
            return load(self.compressor, **own, **options)
        except TypeError as error:  # not an option of this compressor, or given already as its name
            if self.compressor.lower() == "xrag":
                raise InputError(
                    "the compressor 'xrag' gives soft tokens that only its own generator can read, and needs that "
                    "generator's bridge, so the command line cannot run it; name a compressor that gives text, or see "
                    "docs/xrag.md for its use in Python"
                ) from None
            refused = [name for name in own if f"'{name}'" in str(error)]
            if not refused:
                raise
            raise InputError(
                f"the compressor {self.compressor!r} takes no --{refused[0].replace('_', '-')} {own[refused[0]]}; "
                "leave it out"
            ) from None


#: Options that not every compressor takes.
_OWN = ("model", "rate", "operating_point", "language", "units")
