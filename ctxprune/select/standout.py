"""Which lines of logs, settings, code and JSON stand out for a question, and what stands around a letter.

A pruner learned from prose; what it gives a line of settings that says nothing of the question is a tenth of what it
gives the one that answers, and above a threshold made for sentences. So there a line is measured by the others. What
stands around a letter (addresses, date, signature) is measured by the best sentence of the context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ctxprune.select.budget import Units
from ctxprune.text.letters import frames
from ctxprune.text.structure import structure
from ctxprune.types import Context, Span

#: What a line must score at each operating point, as a share of the best one.
STANDOUT: Final[Mapping[str, float]] = {"safe": 0.0, "balanced": 0.15, "aggressive": 0.2}
#: A line this much better than the one in the middle stands out, however far the best one is.
_ABOVE_MIDDLE = 1.5
_FEWEST = 4  # lines, of which a middle can be told
#: How a sentence ends.
_SENTENCE_END = re.compile(r"[.!?…。！？।؟][\s\"'”’»)\]*_]*\Z")
#: What machines write and people seldom do: assignments, brackets, paths, keys, levels of a log, signs of comments.
_MACHINE = re.compile(r"[={}<>\\@$;`_#/]|[\w\"'-]:(?:\s|\Z)|\b[A-Z]{4,}\b|\d:\d\d:\d\d|\w\(|\A[\s\[\]{}(),]+\Z")
#: Words in a row such as people write, be it without a full stop: an abstract below lines of keys, an item of a report.
_PROSE = re.compile(r"(?:[^\W\d_][\w'’-]*[ ,;]+){10}")
_KINDS = frozenset({"record", "code", "prose"})


def least_scores(context: Context, units: Units, threshold: float | None, share: float) -> npt.NDArray[np.float64]:
    """(n_units,): what each unit must score: the threshold, -inf for none, and so much that it stands out among lines.

    That is `share` of the best line, or half as much again as the middle one where that is less. Only documents that
    mostly hold lines have any: tables, lists, and sentences, also between the lines, are measured by thresholds alone.
    Around a letter it is `share` of the best unit of all.
    """
    least = np.full(len(units), -np.inf if threshold is None else threshold)
    if not share:
        return least
    lines, best = np.zeros(len(units), np.bool_), units.score.max(initial=-np.inf)
    for _, extract, mine in units.by_extract(context):
        if is_of_lines(extract.source.text, extract.units):
            own = (extract.units[at] for at in units.unit[mine].tolist())
            lines[mine] = [not _is_prose(extract.source.text[unit.start : unit.end]) for unit in own]
        else:
            around = np.array(frames(extract.source.text, extract.units), np.bool_)[units.unit[mine]]
            least[mine][around] = np.maximum(least[mine][around], share * best)
    if lines.sum() >= _FEWEST:
        scores = units.score[lines]
        standing_out = min(share * scores.max(), _ABOVE_MIDDLE * float(np.median(scores)))
        least[lines] = np.maximum(least[lines], standing_out)
    return least


def is_of_lines(text: str, units: Sequence[Span]) -> bool:
    """Whether a text is a log, settings, code or JSON: more than half of its units are lines as machines write them."""
    written = [_is_line(text[unit.start : unit.end]) for unit in units]
    if 2 * sum(written) <= len(units):
        return False
    kinds = [role.kind for role in structure(text, units)]
    return 2 * sum(line and kind in _KINDS for line, kind in zip(written, kinds, strict=True)) > len(units)


def _is_line(text: str) -> bool:
    return _MACHINE.search(text) is not None and not _is_prose(text)


def _is_prose(text: str) -> bool:
    return _SENTENCE_END.search(text) is not None or _PROSE.search(text) is not None
