"""What a model makes of soft tokens, beside none, another document's and the text: from `python -m benchmarks.soft`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.soft.names import CLOSED, CONSTANT, LENT, MIXED, PRUNED, SENTENCE, SHUFFLED, TEXT, XRAG
from benchmarks.tables.cells import percent, signed
from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]

_NAMES = {
    CLOSED: "none",
    CONSTANT: "constant token",
    SHUFFLED: "another document's vectors",
    XRAG: "**its own vectors**",
    SENTENCE: "best sentence",
    LENT: "best sentence + another document's vectors",
    MIXED: "**best sentence + its own vectors**",
    PRUNED: "pruned text",
    TEXT: "text",
}
#: What is asked of the figures: an arm, what it is compared with, and where the report has the difference.
_COMPARED = (
    ("its own vectors − none", "xrag_minus", CLOSED),
    ("its own vectors − another document's", "xrag_minus", SHUFFLED),
    ("best sentence + vectors − best sentence", "mixed_minus", SENTENCE),
    ("best sentence + vectors − best sentence + another document's", "mixed_minus", LENT),
    ("best sentence + vectors − pruned text", "mixed_minus", PRUNED),
    ("best sentence + vectors − text", "mixed_minus", TEXT),
)


def answers(figures: Figures) -> str:
    """By what stands for the documents: tokens of the prompt, nats per token of the answer, match; set by set."""
    sets = figures["sets"]
    arms = [arm for arm in _NAMES if any(arm in each["arms"] for each in sets.values())]
    head = ["context", *(f"{_set_name(name)} {column}" for name in sets for column in ("tokens", "nats", "match"))]
    return compact(head, [[_NAMES[arm], *_cells(sets, arm)] for arm in arms])


def _cells(sets: Figures, arm: str) -> Iterator[str]:
    for each in sets.values():
        row = each["arms"].get(arm)
        yield from (
            ["", "", ""] if row is None else [f"{row['prompt_tokens']:.0f}", _nats(row["nats"]), percent(row["match"])]
        )


def differences(figures: Figures) -> str:
    """The paired differences of nats and match, in points, bold where the interval excludes 0; set by set."""
    sets = figures["sets"]
    head = ["", *(f"{_set_name(name)} {column}" for name in sets for column in ("nats", "match"))]
    lines = []
    for label, part, arm in _COMPARED:
        rows = [each[part].get(arm) for each in sets.values()]
        if any(rows):
            lines.append([label, *(cell for row in rows for cell in _pair(row))])
    return compact(head, lines)


def _pair(row: Figures | None) -> list[str]:
    return ["", ""] if row is None else [_signed(row["nats"], 1, 2), _signed(row["match"], 100, 0)]


def passages(figures: Figures) -> str:
    """How likely a passage is after its own soft token and after others, differences paired by passage."""
    found = figures["passages"]
    names = {"true": "its own", "shuffled": "another document's", "constant": "constant", "none": "none"}
    lines = []
    for name, shown in names.items():
        if name in found["nats"]:
            more, better = found["minus_true"].get(name), found["true_better"].get(name)
            share = "" if better is None else f"{percent(better)}%"
            lines.append([shown, _nats(found["nats"][name]), "" if more is None else _signed(more, 1, 3), share])
    return compact(["soft token", "nats per token", "this − its own", "its own is better"], lines)


def named(figures: Figures) -> str:
    """How often a passage's own token, of several, makes it likeliest: "70% [59, 81] of 64 passages"."""
    found = figures["identification"]
    return f"{percent(found['right'], sign='%')} of {found['passages']} passages"


def asked(figures: Figures) -> str:
    """How many questions each set has: "300 and 289"."""
    return " and ".join(f"{each['questions']:,}" for each in figures["sets"].values())


def _set_name(name: str) -> str:
    return name.split("_")[0].upper().replace("SQUAD11", "SQuAD")


def _nats(figure: Figures) -> str:
    return f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _signed(figure: Figures, scale: float, digits: int) -> str:
    return signed(figure["mean"], figure["low"], figure["high"], scale=scale, digits=digits)
