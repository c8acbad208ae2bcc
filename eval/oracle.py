"""The "gold" arm: what a compressor would keep that knew the labels, as extracts of the original documents."""

from __future__ import annotations

from ctxprune.answers import answer_sentences
from ctxprune.qa import LabelledDocument, Offsets, Question
from ctxprune.text import split_sentences
from ctxprune.text.atoms import merge
from ctxprune.types import Context, Document, Extract, Span


def oracle(question: Question) -> Context | None:
    """The question with only the text that its labels call relevant; None when it has no labels at all.

    Of each document the relevant sentences are kept; of a gold document without any, the sentences that its answer
    spans touch; of a gold document without either, everything. Nothing is kept for an unanswerable question.
    """
    if question.answerable and not any(_labelled(document) for document in question.documents):
        return None
    pieces = [
        keeping(labelled.document, relevant_spans(labelled) if question.answerable else (), index=index)
        for index, labelled in enumerate(question.documents)
    ]
    return Context(question.text, tuple(pieces), id=question.id)


def relevant_spans(labelled: LabelledDocument) -> Offsets:
    """Character offsets of what is relevant in one document by the best label that it has; () for a distractor."""
    if labelled.relevant:
        return labelled.relevant
    text = labelled.document.text
    if not labelled.is_gold or not text:
        return ()
    return answer_sentences(text, labelled.answer_spans) or ((0, len(text)),)


def keeping(document: Document, spans: Offsets, *, index: int, titled: bool = True) -> Extract:
    """An extract that keeps exactly `spans` of the document, with the sentences between them as removed units.

    spans: half-open character offsets in any order; those that overlap become one.
    """
    units: list[Span] = []
    kept: list[bool] = []
    last = 0
    for start, end in [*merge(list(spans)), (len(document.text), len(document.text))]:
        gap = split_sentences(document.text[last:start])
        units += [Span(last + unit.start, last + unit.end) for unit in gap]
        kept += [False] * len(gap)
        if start < end:
            units.append(Span(start, end))
            kept.append(True)
        last = end
    return Extract(document, tuple(units), tuple(kept), score=document.score, index=index, titled=titled)


def _labelled(document: LabelledDocument) -> bool:
    return document.is_gold or document.relevant is not None
