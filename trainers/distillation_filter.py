"""Leave out the texts on which the teacher did not keep to the rules, or which could not be aligned with certainty.

The two measures, and which share to drop by them, are those of Pan et al., "LLMLingua-2" (ACL 2024), section 3.3: the
worst 5% by variation rate, then the worst 10% by alignment gap. Thresholds are quantiles of the data at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctxprune.errors import InputError
from ctxprune.trainers.word_alignment import Alignment


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterReport:
    """What became of the texts: `texts` is `kept` + the three drops. Rates are means over the texts that were kept.

    variation_threshold, alignment_threshold: the highest rate and gap that stayed.
    """

    texts: int
    kept: int
    dropped_empty: int
    dropped_variation: int
    dropped_alignment: int
    variation_threshold: float
    alignment_threshold: float
    variation_rate: float
    alignment_gap: float
    kept_share: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def filter_alignments(
    alignments: Sequence[Alignment], *, drop_variation: float = 0.05, drop_alignment: float = 0.10
) -> tuple[list[int], FilterReport]:
    """The places of the alignments worth training on, ascending, and a report.

    drop_variation, drop_alignment: shares in [0, 1) to drop; texts that tie with the last one kept stay. Empty answers
    and empty texts are dropped first. Raises InputError for a share outside the range.
    """
    for name, share in (("drop_variation", drop_variation), ("drop_alignment", drop_alignment)):
        if not 0 <= share < 1:
            raise InputError(f"{name} must lie in [0, 1), got {share}; 0 keeps everything")
    answered = [place for place, alignment in enumerate(alignments) if alignment.matched and alignment.kept]
    rates = {place: alignments[place].variation_rate for place in answered}
    faithful, by_rate = _lowest(answered, rates, drop_variation)
    gaps = {place: alignments[place].alignment_gap for place in faithful}
    certain, by_gap = _lowest(faithful, gaps, drop_alignment)
    return certain, FilterReport(
        texts=len(alignments),
        kept=len(certain),
        dropped_empty=len(alignments) - len(answered),
        dropped_variation=len(answered) - len(faithful),
        dropped_alignment=len(faithful) - len(certain),
        variation_threshold=by_rate,
        alignment_threshold=by_gap,
        variation_rate=_mean([rates[place] for place in certain]),
        alignment_gap=_mean([gaps[place] for place in certain]),
        kept_share=_mean([alignments[place].kept_share for place in certain]),
    )


def _lowest(places: Sequence[int], values: dict[int, float], drop: float) -> tuple[list[int], float]:
    """The places without the share `drop` of highest values, rounded down, and the highest value that stays."""
    if not places:
        return [], 0.0
    dropped = int(len(places) * drop + 1e-9)  # 0.07 * 100 is a little more than 7, 0.29 * 100 a little less than 29
    limit = sorted(values[place] for place in places)[len(places) - 1 - dropped]
    return [place for place in places if values[place] <= limit], limit


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
