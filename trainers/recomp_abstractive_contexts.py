"""Choose and shorten the documents that a summariser is trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ctxprune.qa import LabelledDocument, Offsets, Question
from ctxprune.text import split_sentences
from ctxprune.types import Compressor, Context, Document, Extract, Span, TokenCounter, indentation, joiner


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How much of a question's documents to show.

    documents: how many (None: all); all gold ones stay, even if they are more. passage_tokens: of each document, cut to
    whole sentences around what is relevant (None: whole); relevant sentences stay, even if they are longer. gold: False
    leaves the gold documents out, as a retriever does that misses them.
    """

    documents: int | None = None
    passage_tokens: int | None = None
    gold: bool = True


def shown_question(question: Question, shown: Shown, *, counter: TokenCounter, seed: int) -> Question:
    """The question with the documents that training shows, shuffled: the same at every call with the same seed.

    Shuffled, so that a gold document's place says nothing; cut at random around the relevant sentences likewise.
    """
    rng = random.Random(f"{seed} {question.id} {question.text}")
    gold = [document for document in question.documents if document.is_gold and shown.gold]
    others = [document for document in question.documents if not document.is_gold]
    if shown.documents is not None:
        others = rng.sample(others, min(len(others), max(shown.documents - len(gold), 0)))
    chosen = [*gold, *others]
    rng.shuffle(chosen)
    limit = shown.passage_tokens
    if limit is not None:
        chosen = [shortened(document, limit, counter=counter, rng=rng) for document in chosen]
    return replace(question, documents=tuple(chosen))


def shortened(
    labelled: LabelledDocument, max_tokens: int, *, counter: TokenCounter, rng: random.Random
) -> LabelledDocument:
    """The document cut to neighbouring sentences of at most `max_tokens` tokens that hold all that is relevant.

    Where nothing is marked, they lie anywhere. Labels move with the text.
    """
    text = labelled.document.text
    sentences = split_sentences(text)
    costs = counter.count([text[sentence.start : sentence.end] for sentence in sentences])
    if sum(costs) <= max_tokens:
        return labelled
    first, last = _core(sentences, labelled.relevant or labelled.answer_spans, rng)
    spent = sum(costs[first : last + 1])
    while True:
        before = [first - 1] if first and spent + costs[first - 1] <= max_tokens else []
        after = [last + 1] if last + 1 < len(costs) and spent + costs[last + 1] <= max_tokens else []
        if not before + after:
            return _cut(labelled, sentences[first].start, sentences[last].end)
        added = rng.choice(before + after)
        spent += costs[added]
        first, last = min(first, added), max(last, added)


def _core(sentences: Sequence[Span], marked: Offsets, rng: random.Random) -> tuple[int, int]:
    """(first, last) place of the sentences that overlap anything marked; of one drawn at random where nothing is."""
    places = [
        place
        for place, sentence in enumerate(sentences)
        if any(start < sentence.end and sentence.start < end for start, end in marked)
    ] or [rng.randrange(len(sentences))]
    return places[0], places[-1]


def _cut(labelled: LabelledDocument, start: int, end: int) -> LabelledDocument:
    def moved(spans: Offsets) -> Offsets:
        return tuple((left - start, right - start) for left, right in spans if start <= left and right <= end)

    return replace(
        labelled,
        document=replace(labelled.document, text=labelled.document.text[start:end]),
        answer_spans=moved(labelled.answer_spans),
        relevant=None if labelled.relevant is None else moved(labelled.relevant),
    )


def extracted(questions: Sequence[Question], compressor: Compressor) -> list[Question]:
    """The questions with what an extractive compressor keeps of their documents; labels move with the text.

    Documents of which nothing is kept go. A question that loses all its relevant sentences is answerable no more.
    """
    contexts = [Context.of(question.text, shown_documents(question)) for question in questions]
    return [
        _extracted(question, context.extracts)
        for question, context in zip(questions, compressor.compress(contexts), strict=True)
    ]


def _extracted(question: Question, extracts: Sequence[Extract]) -> Question:
    documents = [_kept(question.documents[extract.index], extract) for extract in extracts if not extract.dropped]
    lost = any(each.relevant for each in question.documents) and not any(each.relevant for each in documents)
    return replace(question, documents=tuple(documents), answerable=question.answerable and not lost)


def _kept(labelled: LabelledDocument, extract: Extract) -> LabelledDocument:
    text, slices = labelled.document.text, extract.slices()
    shift = len(indentation(text, 0, slices[0][0])) - slices[0][0]
    stretches = [(*slices[0], shift)]
    for (_, last), (start, stop) in pairwise(slices):
        shift += len(joiner(text, last, start)) - (start - last)
        stretches.append((start, stop, shift))

    def moved(spans: Offsets) -> Offsets:
        return tuple(
            (left + shift, right + shift)
            for left, right in spans
            for start, stop, shift in stretches
            if start <= left and right <= stop
        )

    return replace(
        labelled,
        document=replace(labelled.document, text=extract.text),
        answer_spans=moved(labelled.answer_spans),
        relevant=None if labelled.relevant is None else moved(labelled.relevant),
    )


def shown_documents(question: Question) -> tuple[Document, ...]:
    return tuple(item.document for item in question.documents)
