"""The sentences, or whole passages, of a question's documents as an extractive compressor is to choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctxprune.compressors.sentence_vectors import titled
from ctxprune.embedders import Embedder
from ctxprune.qa import LabelledDocument, Offsets, Question
from ctxprune.text import split_sentences
from ctxprune.text.lexical import bm25_scores

Unit = Literal["sentence", "passage"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` is the slice start:end of the text of the question's document number `document`.

    gold: whether it is known to answer or support; None when the document has no sentence labels.
    """

    document: int
    document_id: str
    title: str
    start: int
    end: int
    text: str
    gold: bool | None

    @property
    def titled(self) -> str:
        """As the encoder and the generator read it."""
        return titled(self.title, self.text)


def candidates(question: Question, unit: Unit = "sentence") -> list[Candidate]:
    """Every sentence, or passage, of the question's documents, in order."""
    return [
        candidate
        for place, labelled in enumerate(question.documents)
        for candidate in (_sentences(place, labelled) if unit == "sentence" else _passage(place, labelled))
    ]


def _sentences(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document, relevant = labelled.document, labelled.relevant
    found = []
    for span in split_sentences(document.text):
        gold = None if relevant is None else is_relevant((span.start, span.end), relevant)
        text = document.text[span.start : span.end]
        found.append(Candidate(place, document.id, document.title, span.start, span.end, text, gold))
    return found


def _passage(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document = labelled.document
    if not document.text.strip():
        return []
    whole = Candidate(place, document.id, document.title, 0, len(document.text), document.text, labelled.is_gold)
    return [whole]


def is_relevant(unit: tuple[int, int], relevant: Offsets) -> bool:
    """Whether `unit` shares with a relevant span more than half of the shorter of the two: splitters differ."""
    for start, end in relevant:
        shared = min(unit[1], end) - max(unit[0], start)
        if 2 * shared > min(unit[1] - unit[0], end - start):
            return True
    return False


def most_similar(question: str, pool: Sequence[Candidate], embedder: Embedder | None) -> list[int]:
    """Places in `pool`, the most similar to the question first: by BM25 and by the embedder in turn, or BM25 alone."""
    if not pool:
        return []
    texts = [each.titled for each in pool]
    orders = [np.argsort(-bm25_scores(question, texts), kind="stable")]
    if embedder is not None:
        vectors = embedder.embed([question, *texts])
        orders.append(np.argsort(-(vectors[1:] @ vectors[0]), kind="stable"))
    in_turn = np.stack(orders, axis=1).ravel()
    return list(dict.fromkeys(in_turn.tolist()))


def shortlist(question: Question, *, size: int, unit: Unit, embedder: Embedder | None) -> list[Candidate]:
    """At most `size` candidates of distinct texts: the gold ones, then the most similar to the question."""
    distinct: dict[str, Candidate] = {}
    for each in candidates(question, unit):
        known = distinct.get(each.titled)
        if known is None or (each.gold and not known.gold):
            distinct[each.titled] = each
    pool = list(distinct.values())
    order = most_similar(question.text, pool, embedder)
    ranked = [pool[place] for place in order]
    gold_first = sorted(ranked, key=lambda candidate: not candidate.gold)
    return gold_first[:size]
