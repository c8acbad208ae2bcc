"""The figures of soft tokens as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.measure import Bootstrap
from benchmarks.soft.arms import CLOSED, LENT, MIXED, PRUNED, SENTENCE, SHUFFLED, TEXT, XRAG
from benchmarks.soft.measure import READ_TOKENS, Row
from ctxprune.eval.report.markdown import table

Figures = Mapping[str, Any]

_READING = """\
Brackets hold 95% percentile bootstrap intervals over passages or questions; differences are paired. **True**: the
document's own soft token. **Shuffled**: that of another document of the same file, which shows what any document's
token does. **Constant**: one token, trained beside the bridge, that is the same for all. Only what true does better
than shuffled was read from the document."""

_ANSWERS = """\
The document that holds the answer, or all that were retrieved; the same prompt in all arms, but for the closed book,
which is the question alone. **Best sentence**: of the policy, in whole pieces; with xRAG, all other pieces as soft
tokens, or (shuffled) those of another document. **Pruned text**: what the policy keeps by itself. **Nats**: of the
first accepted answer, per token, without the end of the turn; lower is better. **Match**: percent of questions where an
accepted answer occurs in the greedy answer. **Resilience**: match of those that are right in the closed book;
**boost**: of those that are wrong there."""

_COST = """\
Seconds a question, one after another, the arms in turn: median of {rounds} rounds and their extremes. Prefill: until
the first token. Whole: until the model ends its answer, so arms with longer answers take longer. "× text": seconds of
the text / seconds of this arm; 2.0 is twice as fast. Prefill operations of a prompt of T tokens:
2·P·T + 2·L·A·T·(T+1) + 2·d·V, with P = {parameters:,} parameters without embeddings and head, L = {layers} layers,
attention width A = {attention_width}, width d = {width}, vocabulary V = {vocabulary:,}; a multiply-add counts two."""


def render(report: Figures) -> str:
    """The whole report, with a section for each part that is there. report: see `benchmarks.soft.__main__`."""
    parts = ["# Soft tokens", f"Made by:\n\n    {report['command']}", _bridge(report["bridge"]), _READING]
    if "passages" in report:
        parts += _passages(report["passages"], report.get("identification"))
    if report.get("sets"):
        parts += ["## Answers", _ANSWERS]
        for name, figures in report["sets"].items():
            parts += _answers(name, figures)
    if "cost" in report:
        parts += _cost(report["cost"])
    return "\n\n".join(parts) + "\n"


def _bridge(bridge: Figures) -> str:
    return (
        f"Bridge from {bridge['encoder']} ({bridge['d_retriever']} dimensions) to {bridge['generator']} "
        f"({bridge['d_model']}), one token for at most {bridge['shard_tokens']} tokens of text "
        f"({bridge['pieces']})."
    )


def _passages(figures: Figures, identification: Figures | None) -> Iterator[str]:
    yield "## Passages"
    yield (
        f"{figures['passages']:,} passages, {figures['tokens']:,} tokens, each after a soft token in a paraphrase "
        "prompt: nats per token of the passage (mean over passages)."
    )
    rows = []
    for name, nats in figures["nats"].items():
        more, better = figures["minus_true"].get(name), figures["true_better"].get(name)
        rows.append(
            [name, _number(nats), _signed(more) if more else "", _number(better, scale=100, digits=0) if better else ""]
        )
    yield table(["soft token", "nats per token", "this − true", "true is better, % of passages"], rows)
    if identification:
        count, candidates = identification["passages"], identification["candidates"]
        yield (
            f"**Identification.** Of {candidates} passages' tokens, the passage's own makes its first {READ_TOKENS} "
            f"tokens likeliest for {_number(identification['right'], scale=100, digits=1)}% of {count:,} passages; "
            f"chance is {100 / candidates:.1f}%."
        )


def _answers(name: str, figures: Figures) -> Iterator[str]:
    yield f"### {name}"
    left_out = figures.get("left_out", 0)
    yield f"{figures['questions']:,} questions" + (f"; {left_out:,} of the file do not suit." if left_out else ".")
    rows = []
    for arm, row in figures["arms"].items():
        against = figures["xrag_minus"].get(arm)
        differences = (
            [_signed(against["nats"]), _signed(against["match"], scale=100, digits=1)] if against else ["", ""]
        )
        match = _number(row["match"], scale=100, digits=1)
        rows.append([arm, f"{row['prompt_tokens']:.0f}", _number(row["nats"]), match, *differences])
    yield table(["arm", "prompt tokens", "nats", "match", "nats: xRAG − this", "match: xRAG − this"], rows)
    if figures["mixed_minus"]:
        yield table(
            [f"{MIXED} − this", "nats", "match"],
            [
                [arm, _signed(row["nats"]), _signed(row["match"], scale=100, digits=1)]
                for arm, row in figures["mixed_minus"].items()
            ],
        )
    kept = [
        [arm, *(_number(row[metric], scale=100, digits=1) for metric in ("resilience", "boost"))]
        for arm, row in figures["kept"].items()
    ]
    yield table(["with", "resilience", "boost"], kept)


def _cost(figures: Figures) -> Iterator[str]:
    arms, count = figures["arms"], figures["questions"]
    rounds = len(arms[TEXT]["whole"]["runs"])
    yield "## Cost"
    yield _COST.format(rounds=rounds, **figures["size"])
    yield table(
        ["arm", "prompt tokens", "10^9 operations", "× text", "prefill, s", "× text", "whole, s", "× text"],
        [_cost_row(arm, row, arms[TEXT]["flops"], count) for arm, row in arms.items()],
    )
    embedding, machine = figures["embedding"], figures["machine"]
    yield (
        f"Not in the table, as it is done once, offline: a document's vectors by {embedding['encoder']} take "
        f"{_seconds(embedding, count)} s."
    )
    load = "" if machine["load"] is None else f"; load average before: {machine['load']:.1f}"
    yield f"{machine['processor']}, {machine['cpus']} cores; {count} questions{load}."


def _cost_row(arm: str, row: Figures, text_flops: float, count: int) -> list[str]:
    cells = [arm, f"{row['prompt_tokens']:.0f}", f"{row['flops'] / 1e9:.1f}", f"{text_flops / row['flops']:.2f}"]
    for part in ("prefill", "whole"):
        cells += [_seconds(row[part], count), f"{row[part]['faster']['median']:.2f}"]
    return cells


def _seconds(timing: Figures, count: int) -> str:
    """Of one question or document, where `count` were timed together."""
    median, low, high = (timing[name] / count for name in ("median", "low", "high"))
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def _number(figures: Figures, *, scale: float = 1.0, digits: int = 3) -> str:
    return _spelled(figures, f".{digits}f", scale)


def _signed(figures: Figures, *, scale: float = 1.0, digits: int = 3) -> str:
    return _spelled(figures, f"+.{digits}f", scale)


def _spelled(figures: Figures, form: str, scale: float) -> str:
    if not figures["n"]:
        return "–"
    mean, low, high = (format(scale * figures[name], form) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


#: Figures as JSON has them; intervals as `Interval` spells its fields.
FigureRow: TypeAlias = dict[str, Any]
Values: TypeAlias = Sequence[float]


def passage_figures(rows: Sequence[Row], draw: Bootstrap) -> FigureRow:
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


def identification_figures(rows: Sequence[Row], draw: Bootstrap) -> FigureRow:
    """The share of passages that their own token makes likelier than any other token of the group does."""
    right = [float(row["nats"][row["own"]] < min(_others(row))) for row in rows]
    return {"passages": len(rows), "candidates": len(rows[0]["nats"]) if rows else 0, "right": draw.mean(right)}


def _others(row: Row) -> list[float]:
    return [nats for place, nats in enumerate(row["nats"]) if place != row["own"]]


def answer_figures(likelihoods: Sequence[Row], predictions: Sequence[Row], draw: Bootstrap) -> FigureRow:
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
        "mixed_minus": {
            arm: {"nats": draw.difference(nats[MIXED], nats[arm]), "match": draw.difference(match[MIXED], match[arm])}
            for arm in (SENTENCE, LENT, PRUNED, TEXT)
            if MIXED in names
        },
        "kept": {arm: _kept(match[CLOSED], match[arm], draw) for arm in (SHUFFLED, XRAG, MIXED, TEXT) if arm in names},
    }


def _kept(without: Values, with_context: Values, draw: Bootstrap) -> FigureRow:
    """resilience: the share right with a context of those right without; boost: of those wrong without."""
    paired = list(zip(without, with_context, strict=True))
    return {
        "resilience": draw.mean([after if before else math.nan for before, after in paired]),
        "boost": draw.mean([math.nan if before else after for before, after in paired]),
    }
