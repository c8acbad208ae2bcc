"""Choose the questions to show, largest loss first, and time the arms: one pass over samples.jsonl, bounded memory.

And write the samples as RAGAS reads them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from ctxprune.errors import InputError
from ctxprune.eval.config import FULL, NONE
from ctxprune.eval.report.folder import (
    Row,
    Run,
    Sample,
    by_dataset,
    is_tested,
    label,
    number,
    open_run,
    rerank_of,
    score_name,
    show,
)
from ctxprune.files import write_rows
from ctxprune.text import model_text

#: (cost, seconds) of one sample
Pair: TypeAlias = tuple[float, float]

MOST_CASES = 50
MOST_CHARACTERS = 4_000_000  # of the documents of one dataset's cases, so that a browser can open the page
MOST_PAIRS = 5000


@dataclass(frozen=True, slots=True)
class Case:
    """A question and the tested arm that lost most on it.

    loss: score of the full context, or of the reranker at equal tokens, whichever is more, less the arm's; NaN when
    neither was measured. against: the arm that it was lost to. also: the other tested arms that lost on the question.
    offsets: where each arm's line starts in samples.jsonl: the arm's, and those of full, none and rerank that exist.
    size: characters of the documents.
    """

    loss: float
    against: str
    arm: str
    also: tuple[str, ...]
    offsets: Mapping[str, int]
    size: int


@dataclass(slots=True)
class Pairs:
    """At most `MOST_PAIRS` pairs, spread evenly over a stream of unknown length."""

    kept: list[Pair] = field(default_factory=list)
    step: int = 1
    seen: int = 0

    def add(self, pair: Pair) -> None:
        if self.seen % self.step == 0:
            self.kept.append(pair)
            if len(self.kept) > MOST_PAIRS:
                self.kept = self.kept[::2]
                self.step *= 2
        self.seen += 1


@dataclass(frozen=True, slots=True)
class Digest:
    """What one pass found of a dataset.

    cases: the questions to show, largest loss first. questions, lost: how many there are, and on how many a tested
    arm lost. read: (tokens_after, generate_seconds) of all arms. compressed: by arm (tokens_before, compress_seconds).
    """

    cases: tuple[Case, ...]
    questions: int
    lost: int
    read: tuple[Pair, ...]
    compressed: Mapping[str, tuple[Pair, ...]]


def digest(run: Run, *, most: int = MOST_CASES) -> dict[str, Digest]:
    """The digest of every dataset, after one pass over samples.jsonl.

    Holds one question's samples, `most` cases and MOST_PAIRS timings an arm at a time. most: cases a dataset.
    Raises InputError for a broken line, naming it.
    """
    watches = {dataset: _Watch(rows, most) for dataset, rows in by_dataset(run.results).items()}
    for (dataset, *_), group in groupby(run.samples(), key=_question):
        if dataset in watches:
            watches[dataset].question(list(group))
    return {dataset: watch.digest() for dataset, watch in watches.items()}


def _question(line: tuple[int, Sample]) -> tuple[str, object, str]:
    _, sample = line
    return sample["dataset"], sample.get("id"), sample["query"]


class _Watch:
    """Gathers the digest of one dataset, question by question."""

    def __init__(self, rows: Sequence[Row], most: int) -> None:
        self._tested = [row["arm"] for row in rows if is_tested(row)]
        self._score = score_name(rows)
        self._most = most
        self._heap: list[tuple[tuple[float, ...], Case]] = []  # the mildest case on top
        self._questions = self._lost = 0
        self._read = Pairs()
        self._compressed: dict[str, Pairs] = {}

    def question(self, lines: Sequence[tuple[int, Sample]]) -> None:
        """Take in the samples of one question, all arms."""
        self._questions += 1
        samples = {sample["arm"]: sample for _, sample in lines}
        for arm, sample in samples.items():
            self._time(arm, sample)
        case = self._case(samples, {sample["arm"]: offset for offset, sample in lines})
        if case is None:
            return
        self._lost += case.loss > 0
        # of equal losses the one that more arms share is worse, then the one that comes first
        rank = (-math.inf if math.isnan(case.loss) else case.loss, len(case.also), -self._questions)
        (heapq.heappush if len(self._heap) < self._most else heapq.heappushpop)(self._heap, (rank, case))

    def digest(self) -> Digest:
        cases = [case for _, case in sorted(self._heap, reverse=True, key=lambda each: each[0])]
        compressed = {arm: tuple(pairs.kept) for arm, pairs in self._compressed.items()}
        return Digest(tuple(_small(cases)), self._questions, self._lost, tuple(self._read.kept), compressed)

    def _case(self, samples: Mapping[str, Sample], offsets: Mapping[str, int]) -> Case | None:
        found = [(arm, *self._loss(arm, samples)) for arm in self._tested if arm in samples]
        if not found:
            return None
        # max keeps the first of equals; a loss that was not measured is the mildest
        arm, loss, against = max(found, key=lambda each: -math.inf if math.isnan(each[1]) else each[1])
        also = tuple(name for name, lost, _ in found if lost > 0 and name != arm)
        needed = [name for name in dict.fromkeys((arm, "full", "none", rerank_of(arm))) if name in offsets]
        whole = samples.get("full", samples[arm])
        size = sum(len(document.get("text", "")) for document in whole.get("documents", ()))
        return Case(loss, against, arm, also, {name: offsets[name] for name in needed}, size)

    def _loss(self, arm: str, samples: Mapping[str, Sample]) -> tuple[float, str]:
        ours = number(samples[arm]["metrics"].get(self._score))
        losses = [
            (number(samples[other]["metrics"].get(self._score)) - ours, other)
            for other in ("full", rerank_of(arm))
            if other in samples
        ]
        known = [each for each in losses if not math.isnan(each[0])]
        return max(known, key=lambda each: each[0]) if known else (math.nan, "")

    def _time(self, arm: str, sample: Sample) -> None:
        metrics = sample["metrics"]
        for pairs, tokens, seconds in (
            (self._read, "tokens_after", "generate_seconds"),
            (self._compressed.setdefault(arm, Pairs()), "tokens_before", "compress_seconds"),
        ):
            pair = (number(metrics.get(tokens, sample.get(tokens))), number(metrics.get(seconds)))
            if not any(map(math.isnan, pair)):
                pairs.add(pair)


def _small(cases: Iterable[Case]) -> Iterator[Case]:
    """The first cases that fit into MOST_CHARACTERS, the first always."""
    total = 0
    for case in cases:
        total += case.size
        if total > MOST_CHARACTERS and total > case.size:
            return
        yield case


LONG = 3000  # characters: a longer document starts folded, so that the page can be skimmed


def safe(text: object) -> str:
    """Text for HTML: escaped, and without lone surrogates, which no UTF-8 file can hold."""
    return escape(model_text(str(text)))


def question(case: Case, samples: Mapping[str, Sample], *, score: str) -> str:
    """A folded view of one question. samples: of the case's arm and of the arms it is compared with, by arm."""
    sample = samples[case.arm]
    body = [_answers(sample), _compared(case, samples), _also(case), *_documents(sample, samples.get(FULL))]
    return (
        f'<details class="case"><summary>{_badge(case, score)} <b dir="auto">{safe(sample["query"])}</b> '
        f"<small>{safe(case.arm)} · {_sizes(sample)}</small></summary>{''.join(body)}</details>\n"
    )


def _badge(case: Case, score: str) -> str:
    if math.isnan(case.loss):
        return '<span class="badge">not scored</span>'
    if case.loss <= 0:
        return '<span class="badge">no loss</span>'
    against = "full context" if case.against == FULL else "rerank"
    return f'<span class="badge loss">−{show(score, case.loss)} {safe(label(score))} against {against}</span>'


def _sizes(sample: Sample) -> str:
    before, after = (show("tokens_after", sample.get(name)) for name in ("tokens_before", "tokens_after"))
    return f"{before} → {after} tokens"


def _answers(sample: Sample) -> str:
    answers = [f"<q>{safe(answer)}</q>" for answer in sample.get("answers") or ()]
    if not sample.get("answerable", True):
        answers = ["none: the question has no answer in its documents"]
    return f'<p dir="auto"><b>Accepted answers:</b> {" · ".join(answers) or "not known"}</p>'


def _compared(case: Case, samples: Mapping[str, Sample]) -> str:
    """Prediction and metrics of the arm beside full, no context and rerank."""
    names = [name for name in dict.fromkeys((case.arm, FULL, rerank_of(case.arm), NONE)) if name in samples]
    metrics = [name for name in samples[case.arm]["metrics"] if _measured(name, [samples[arm] for arm in names])]
    head = "".join(f"<th>{safe(label(name))}</th>" for name in metrics)
    rows = "".join(_line(name, samples[name], metrics) for name in names)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Predictions and metrics of this question"><table>'
        f'<thead><tr><th>arm</th><th class="said">prediction</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _line(arm: str, sample: Sample, metrics: Sequence[str]) -> str:
    prediction = sample.get("prediction")
    said = "<i>no generator</i>" if prediction is None else safe(prediction) or "<i>empty</i>"
    cells = "".join(f"<td>{show(name, sample['metrics'].get(name))}</td>" for name in metrics)
    return f'<tr><th scope="row">{safe(arm)}</th><td class="said" dir="auto">{said}</td>{cells}</tr>'


def _measured(name: str, samples: Sequence[Sample]) -> bool:
    return any(not math.isnan(number(sample["metrics"].get(name))) for sample in samples)


def _also(case: Case) -> str:
    return f"<p>Also lost by {', '.join(f'<code>{safe(arm)}</code>' for arm in case.also)}.</p>" if case.also else ""


def _documents(sample: Sample, full: Sample | None) -> Iterator[str]:
    """Each document with what was removed, where the run has the whole text, else with what was kept."""
    whole = {
        document["index"]: document["text"] for document in (full or {}).get("documents", ()) if "text" in document
    }
    shown = set()
    for document in sample.get("documents", ()):
        index = document.get("index")
        shown.add(index)
        yield _document(document, whole.get(index))
    for index, text in whole.items():
        if index not in shown:
            yield _folded(f"[{index + 1}] Document", "not in this context", f"<del>{safe(text)}</del>", opened=False)


def _document(document: Mapping[str, Any], whole: str | None) -> str:
    head = f"[{document.get('index', 0) + 1}] {document.get('title') or document.get('id') or 'Document'}"
    if "kept_spans" not in document:
        return _rewritten(head, document, whole)
    if whole is None:
        note = "only the kept text is known: the run has no full context"
        body = f"<mark>{safe(document['text'])}</mark>" if document["text"] else "<i>nothing kept</i>"
        return _folded(head, note, body, opened=bool(document["text"]))
    spans = document["kept_spans"]
    kept = sum(span["end"] - span["start"] for span in spans)
    note = f"{kept:,} of {len(whole):,} characters kept" if kept else "dropped"
    return _folded(head, note, _marked(whole, spans), opened=kept > 0 and len(whole) <= LONG)


def _rewritten(head: str, document: Mapping[str, Any], whole: str | None) -> str:
    """A summary, or soft tokens, which have no text; what it was made from stands folded below."""
    shape = " × ".join(map(str, document.get("shape", ())))
    note = f"soft tokens {shape}" if shape else "written anew"
    body = _folded(head, note, safe(document.get("text", "")) or "<i>no text</i>", opened=True)
    return body + ("" if whole is None else _folded(head, "the source", safe(whole), opened=False))


def _marked(text: str, kept: Sequence[Mapping[str, int]]) -> str:
    """The whole text: kept stretches marked, all else struck through but for white space."""
    parts, last = [], 0
    for span in sorted(kept, key=lambda span: span["start"]):
        parts += [_struck(text[last : span["start"]]), f"<mark>{safe(text[span['start'] : span['end']])}</mark>"]
        last = span["end"]
    return "".join([*parts, _struck(text[last:])])


def _struck(text: str) -> str:
    return f"<del>{safe(text)}</del>" if text.strip() else safe(text)


def _folded(head: str, note: str, body: str, *, opened: bool) -> str:
    state = " open" if opened else ""
    return (
        f'<details class="document"{state}>'
        f'<summary><b dir="auto">{safe(head)}</b> <small>{safe(note)}</small></summary>'
        f'<div class="text" dir="auto">{body}</div></details>'
    )


def write_ragas(run_folder: Path | str, path: Path) -> int:
    """Write every sample of a finished run as a line that RAGAS reads, whole or not at all; returns how many.

    A line has user_input, retrieved_contexts (what is left of each document), response where the generator answered,
    reference (the first accepted answer) where there is one, and dataset, arm and id, which RAGAS ignores.
    Raises InputError for a folder that holds no finished run and a file that cannot be written.
    """
    run = open_run(run_folder)
    try:
        return write_rows(path, (_for_ragas(sample) for _, sample in run.samples()))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; name a file where one can be written") from None


def _for_ragas(sample: Mapping[str, Any]) -> dict[str, Any]:
    given = {"response": sample.get("prediction"), "reference": next(iter(sample["answers"]), None)}
    return {
        "user_input": sample["query"],
        "retrieved_contexts": [document["text"] for document in sample["documents"] if document.get("text")],
        **{name: text for name, text in given.items() if text is not None},
        **{name: sample.get(name) for name in ("dataset", "arm", "id")},
    }
