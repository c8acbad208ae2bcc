"""One question of a run as HTML: kept and removed text, predictions, accepted answers and metrics of its arms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ctxprune.eval.arms import FULL, NONE
from ctxprune.eval.report.cases import Case
from ctxprune.eval.report.folder import Sample
from ctxprune.eval.report.rows import label, number, rerank_of, show
from ctxprune.text import model_text

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
