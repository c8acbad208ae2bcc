"""Means, paired differences and their bootstrap intervals from the rows of a measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from ctxprune.eval.bootstrap import Interval, difference_interval, mean_interval
from ctxprune.eval.soft.answers import CLOSED, SHUFFLED, TEXT, XRAG
from ctxprune.eval.soft.rows import Row

#: Figures as JSON has them; intervals as `Interval` spells its fields.
Figures: TypeAlias = dict[str, Any]
Values: TypeAlias = Sequence[float]


class Bootstrap:
    """seed: every interval is drawn from the same stream, so a figure does not depend on those before it."""

    def __init__(self, *, seed: int = 0, resamples: int = 2000) -> None:
        self._seed, self._resamples = seed, resamples

    def mean(self, values: Values) -> Figures:
        return asdict(mean_interval(values, rng=self._rng(), resamples=self._resamples))

    def difference(self, ours: Values, theirs: Values) -> Figures:
        """Of `ours - theirs`, paired."""
        found: Interval = difference_interval(ours, theirs, rng=self._rng(), resamples=self._resamples)
        return asdict(found)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)


def passage_figures(rows: Sequence[Row], draw: Bootstrap) -> Figures:
    """Nats per token of a passage by what stands for it, and how much more the controls take than the true token."""
    nats = {name: [row["nats"][name] / row["tokens"] for row in rows] for name in rows[0]["nats"]}
    controls = [name for name in nats if name != "true"]
    return {
        "passages": len(rows),
        "tokens": sum(row["tokens"] for row in rows),
        "nats": {name: draw.mean(values) for name, values in nats.items()},
        "minus_true": {name: draw.difference(nats[name], nats["true"]) for name in controls},
        "true_better": {
            name: draw.mean([float(own < other) for own, other in zip(nats["true"], nats[name], strict=True)])
            for name in controls
        },
    }


def identification_figures(rows: Sequence[Row], draw: Bootstrap) -> Figures:
    """The share of passages that their own token makes likelier than any other token of the group does."""
    right = [float(row["nats"][row["own"]] < min(_others(row))) for row in rows]
    return {"passages": len(rows), "candidates": len(rows[0]["nats"]) if rows else 0, "right": draw.mean(right)}


def _others(row: Row) -> list[float]:
    return [nats for place, nats in enumerate(row["nats"]) if place != row["own"]]


def answer_figures(likelihoods: Sequence[Row], predictions: Sequence[Row], draw: Bootstrap) -> Figures:
    """By arm: nats per token of the accepted answer, match, prompt tokens; xRAG's paired differences; resilience and
    boost of xRAG and text."""
    names = list(likelihoods[0]["nats"])
    nats = {arm: [row["nats"][arm] / row["tokens"] for row in likelihoods] for arm in names}
    match = {arm: [row["match"][arm] for row in predictions] for arm in names}
    lengths = {arm: [row["prompt_tokens"][arm] for row in likelihoods] for arm in names}
    return {
        "questions": len(likelihoods),
        "arms": {
            arm: {
                "nats": draw.mean(nats[arm]),
                "match": draw.mean(match[arm]),
                "prompt_tokens": float(np.mean(lengths[arm])),
            }
            for arm in names
        },
        "xrag_minus": {
            arm: {"nats": draw.difference(nats[XRAG], nats[arm]), "match": draw.difference(match[XRAG], match[arm])}
            for arm in names
            if arm != XRAG
        },
        "kept": {arm: _kept(match[CLOSED], match[arm], draw) for arm in (SHUFFLED, XRAG, TEXT)},
    }


def _kept(without: Values, with_context: Values, draw: Bootstrap) -> Figures:
    """resilience: the share right with a context of those right without; boost: of those wrong without."""
    paired = list(zip(without, with_context, strict=True))
    return {
        "resilience": draw.mean([after if before else math.nan for before, after in paired]),
        "boost": draw.mean([math.nan if before else after for before, after in paired]),
    }
