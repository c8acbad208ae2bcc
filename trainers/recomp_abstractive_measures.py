"""Set a compressor's summaries against other contexts for the same questions, by what a generator makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

from ctxprune.answers import locate_answers
from ctxprune.prompt import readable_text
from ctxprune.qa import Question
from ctxprune.trainers.recomp_abstractive_contexts import shown_documents
from ctxprune.trainers.recomp_gold import gold_sentences
from ctxprune.trainers.recomp_judges import Judge, summary_prompt
from ctxprune.types import Compressor, Context, Faithfulness, Summary, TokenCounter

#: What a generator may read: nothing, what the summariser read, its summary, the best sentence, as many tokens of best
#: sentences as the summary took, and the marked sentences.
CONTEXTS: Final = ("closed", "documents", "summary", "sentence", "extractive", "gold")
CLOSED, DOCUMENTS, SUMMARY, SENTENCE, EXTRACTIVE, GOLD = CONTEXTS
#: The contexts that the summary is compared with, question by question.
RIVALS: Final = (CLOSED, DOCUMENTS, SENTENCE, EXTRACTIVE)


@dataclass(frozen=True, slots=True)
class Case:
    """A question, what each context of `CONTEXTS` holds for it, and how faithful each of its summaries is."""

    question: Question
    texts: Mapping[str, str]
    faithfulness: tuple[Faithfulness, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressors:
    """summary: the one that is measured; it reads what `before` leaves (None: all). sentence: keeps the best sentence.
    extractive: keeps what a budget allows."""

    summary: Compressor
    before: Compressor | None = None
    sentence: Compressor
    extractive: Compressor


def cases(questions: Sequence[Question], compressors: Compressors, *, counter: TokenCounter) -> list[Case]:
    """Every context of every question; one without marked sentences gets none of them."""
    contexts = [Context.of(question.text, shown_documents(question), id=question.id) for question in questions]
    read = compressors.before.compress(contexts) if compressors.before else contexts
    written = compressors.summary.compress(read)
    summaries = [readable_text(context).strip() for context in written]
    sentences = compressors.sentence.compress(contexts)
    made = []
    for place, budget in enumerate(counter.count(summaries)):
        kept = compressors.extractive.compress([contexts[place]], budget=budget) if budget else []
        texts = {
            CLOSED: "",
            DOCUMENTS: readable_text(read[place]),
            SUMMARY: summaries[place],
            SENTENCE: readable_text(sentences[place]),
            EXTRACTIVE: "".join(map(readable_text, kept)),
            GOLD: gold_sentences(questions[place]),
        }
        made.append(Case(questions[place], texts, _faithfulness(written[place])))
    return made


def _faithfulness(context: Context) -> tuple[Faithfulness, ...]:
    summaries = (piece for piece in context.pieces if isinstance(piece, Summary) and piece.text)
    return tuple(summary.faithfulness for summary in summaries if summary.faithfulness)


def figures(group: Sequence[Case], judges: Mapping[str, Judge], *, counter: TokenCounter) -> dict[str, Any]:
    """All figures as {"mean", "half_width" of its 95 % interval, "count"}.

    "contexts": by context, its tokens, whether an answer stands in it ("kept"), and each judge's scores. "differences":
    of the summary's scores and each rival's, paired by question. Both over the questions with a known answer.
    """
    faithful = [report for case in group for report in case.faithfulness]
    found = {
        "empty": interval([float(not case.texts[SUMMARY]) for case in group]),
        "faithful_numbers": interval([report.numbers for report in faithful]),
        "faithful_names": interval([report.names for report in faithful]),
    }
    asked = [case for case in group if _answers(case)]
    scores = {name: _scores(asked, name, judges, counter) for name in CONTEXTS}
    return found | {
        "contexts": {name: {unit: interval(values) for unit, values in of.items()} for name, of in scores.items()},
        "differences": {
            rival: {unit: paired(values, scores[rival][unit]) for unit, values in scores[SUMMARY].items()}
            for rival in RIVALS
        },
    }


def _answers(case: Case) -> list[str]:
    return [answer for answer in case.question.answers if answer.strip()]


def _scores(
    asked: Sequence[Case], context: str, judges: Mapping[str, Judge], counter: TokenCounter
) -> dict[str, list[float]]:
    texts = [case.texts[context] for case in asked]
    answers = [_answers(case) for case in asked]
    prompts = [summary_prompt(case.question.text, text) for case, text in zip(asked, texts, strict=True)]
    return {
        "tokens": [float(tokens) for tokens in counter.count(texts)],
        "kept": [float(bool(locate_answers(text, known))) for text, known in zip(texts, answers, strict=True)],
    } | {unit: judge.scores(prompts, answers) for unit, judge in judges.items()}


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and half the width of its normal 95 % interval, 1.96 s / sqrt(n); None where too few values are known."""
    return {
        "mean": fmean(values) if values else None,
        "half_width": 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "count": len(values),
    }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | int | None]:
    """The `interval` of ours - theirs, question by question."""
    return interval([mine - other for mine, other in zip(ours, theirs, strict=True)])


def table(name: str, found: Mapping[str, Any]) -> str:
    """A group's `figures` as Markdown: a context a row, and what the summary has more than that."""
    empty = found["empty"]
    lines = [f"**{name}**, {empty['count']} questions, {_shown(empty)} of the summaries empty", ""]
    units = list(found["contexts"][CLOSED])
    lines += ["| context | " + " | ".join(units) + " | summary's " + ", ".join(units[1:]) + " less its |"]
    lines += ["| --- | " + "---: | " * len(units) + "--- |"]
    for context, of in found["contexts"].items():
        more = found["differences"].get(context, {})
        compared = ", ".join(_shown(more[unit]) for unit in units[1:]) if more else ""
        lines.append(f"| {context} | " + " | ".join(_shown(of[unit]) for unit in units) + f" | {compared} |")
    return "\n".join(lines)


def _shown(found: Mapping[str, float | int | None]) -> str:
    if found["mean"] is None:
        return "–"
    digits = 1 if abs(found["mean"]) >= 10 else 2
    width = "" if found["half_width"] is None else f" ± {found['half_width']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{width}"
