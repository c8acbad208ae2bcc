"""The rows of the comparison: seconds, memory, words kept and answers kept at equal words, losing rows too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Timing, machine
from benchmarks.peers.runner import Outcome, Plan
from benchmarks.report import table
from ctxprune.eval.metrics import answer_in_context


def figures(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """What one peer did, as plain values; the seconds of a question are the mean of its budgets."""
    row: dict[str, Any] = {
        "peer": outcome.peer.name, "status": outcome.status, "reason": outcome.reason, "note": outcome.peer.note,
        "versions": outcome.versions, "load_seconds": outcome.loaded_seconds, "peak_mb": outcome.peak_mb,
        "calls": len(outcome.calls), "of_calls": len(plan.questions) * len(plan.budgets),
    }  # fmt: skip
    if outcome.calls:
        timing = Timing(tuple(call.seconds for call in outcome.calls))
        row |= {"median_seconds": timing.median, "p95_seconds": timing.p95}
    return row | {"budgets": {budget: _at(outcome, plan, budget) for budget in plan.budgets}}


def _at(outcome: Outcome, plan: Plan, budget: int) -> dict[str, float | None]:
    """At one budget: words before, words that the peer gave, and the share of answers in the first `budget` of them."""
    calls = [call for call in outcome.calls if call.budget == budget]
    before = [sum(len(text.split()) for text in plan.questions[call.question].texts) for call in calls]
    answered = [
        answer_in_context(" ".join(call.kept.split()[:budget]), plan.questions[call.question].answers)
        for call in calls
        if plan.questions[call.question].answers
    ]
    # a share over some of the questions is no comparison
    whole = outcome.status == "ran" and outcome.peer.real and bool(answered)
    return {
        "words_before": sum(before) / len(before) if before else None,
        "words_given": sum(len(call.kept.split()) for call in calls) / len(calls) if calls else None,
        "answer_kept": sum(answered) / len(answered) if whole else None,
    }


def render(command: str, rows: Sequence[dict[str, Any]], plan: Plan) -> str:
    """The whole report in Markdown."""
    told = machine()
    load = "unknown" if told["load"] is None else f"{told['load']:.1f}"
    head = ["peer", "s a question", "p95", "peak MB"]
    for budget in plan.budgets:
        head += [f"words given at {budget}", f"answer kept at {budget}"]
    answerable = sum(bool(each.answers) for each in plan.questions)
    parts = [
        f"Made by:\n\n    {command}",
        f"{len(plan.questions)} questions, {answerable} with answers; {told['processor']}, {told['cpus']} cores, load "
        f"average {load} at the end. A peer is a process in an environment of its own; loading and a first call are in "
        "its memory and not in its seconds. Words given: before what it kept is cut at the budget; the answer is "
        "looked for in that many words of it, wherever it stands in them. No share where random weights chose.",
        table(head, [_cells(row, plan) for row in rows]),
        "\n".join(_remark(row) for row in rows),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(row: dict[str, Any], plan: Plan) -> list[str]:
    name = row["peer"] if row["status"] == "ran" else f"{row['peer']} ({row['status']})"
    cells = [name, _number(row.get("median_seconds"), "{:.3f}"), _number(row.get("p95_seconds"), "{:.3f}")]
    cells.append(_number(row["peak_mb"], "{:,.0f}"))
    for budget in plan.budgets:
        at = row["budgets"][budget]
        cells += [_number(at["words_given"], "{:.0f}"), _number(at["answer_kept"], "{:.2f}")]
    return cells


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _remark(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    end = f"{row['status']}, {row['calls']} of {row['of_calls']} calls done: {row['reason']}"
    told = [row["note"], versions, "" if row["status"] == "ran" else end]
    return f"- {row['peer']}: {'; '.join(part for part in told if part)}"
