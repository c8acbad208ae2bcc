"""A question's one passage hidden among the BM25-nearest chunks of a pool, as a retriever would hand it over."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ctxprune.errors import InputError
from ctxprune.eval.metrics import Offsets, answer_needle, covered, token_string
from ctxprune.qa import LabelledDocument, Question
from ctxprune.types import Document

_WORD = re.compile(r"\S+")


def chunk_spans(text: str, size: int = 100) -> list[Offsets]:
    """Offsets of consecutive runs of `size` words; the last run may be shorter. Sentences are cut where they fall."""
    places = [match.span() for match in _WORD.finditer(text)]
    return [(run[0][0], run[-1][1]) for run in (places[first : first + size] for first in range(0, len(places), size))]


def cut(labelled: LabelledDocument, *, size: int = 100) -> list[LabelledDocument]:
    """The passage in chunks of `size` words, its labels moved to chunk offsets.

    An answer span goes with the chunk that holds it whole. A relevant sentence cut by an edge stays relevant in the
    chunk with the greater part of it, and wherever its part holds an answer. A chunk is gold when it carries either.
    """
    return [_part(labelled, place, span) for place, span in enumerate(chunk_spans(labelled.document.text, size))]


def _part(labelled: LabelledDocument, place: int, chunk: Offsets) -> LabelledDocument:
    start, end = chunk
    answers = [(first, last) for first, last in labelled.answer_spans if start <= first and last <= end]
    relevant = []
    for first, last in labelled.relevant or ():
        clipped = (max(first, start), min(last, end))
        if covered((first, last), [chunk]) or any(clipped[0] <= a and b <= clipped[1] for a, b in answers):
            relevant.append((clipped[0] - start, clipped[1] - start))
    document = labelled.document
    return LabelledDocument(
        replace(document, id=f"{document.id}#{place}", text=document.text[start:end]),
        is_gold=labelled.is_gold and bool(answers or relevant),
        answer_spans=tuple((first - start, last - start) for first, last in answers),
        relevant=None if labelled.relevant is None else tuple(relevant),
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    document: Document
    passage: str  # the whole text it was cut from
    tokens: str  # see `token_string`


class Pool:
    """Distractors: passages in chunks of `size` words behind a BM25 index. Equal passages count once."""

    def __init__(self, documents: Iterable[Document], *, size: int = 100) -> None:
        self.size = size
        distinct = {document.text: document for document in documents}
        self._chunks = [
            _Chunk(part.document, document.text, token_string(part.document.text))
            for document in distinct.values()
            for part in cut(LabelledDocument(document), size=size)
        ]
        if not self._chunks:
            raise InputError("the pool has no text; give it at least one passage with a word in it")
        self._index = _bm25_index([f"{chunk.document.title} {chunk.document.text}" for chunk in self._chunks])

    def __len__(self) -> int:
        return len(self._chunks)

    def hide(self, questions: Sequence[Question], *, count: int = 10, seed: int = 0) -> Iterator[Question]:
        """Each question with the chunks of its passage among the nearest others, `count` in all, shuffled.

        A distractor comes from another passage and holds none of the accepted answers. Left out are questions that
        have no gold passage or several passages, whose answer is cut by every chunk edge, whose passage alone fills
        more than half of the `count` chunks, and for which the pool has too few distractors. The shuffle depends on
        `seed` and the question's id alone.
        """
        suited = [(question, parts) for question in questions if (parts := self._gold_parts(question, count))]
        for first in range(0, len(suited), 256):  # bounds the memory of one retrieval
            batch = suited[first : first + 256]
            for (question, parts), nearest in zip(batch, self._nearest([q for q, _ in batch], 8 * count), strict=True):
                others = self._distractors(question, nearest, count - len(parts))
                if len(others) < count - len(parts):
                    (everything,) = self._nearest([question], len(self))
                    others = self._distractors(question, everything, count - len(parts))
                if len(others) == count - len(parts):
                    yield replace(question, documents=shuffled([*parts, *others], question.id, seed))

    def nearest(self, questions: Sequence[Question], count: int) -> list[list[Document]]:
        """For each question its `count` nearest chunks, best first."""
        return [[self._chunks[place].document for place in places] for places in self._nearest(questions, count)]

    def _gold_parts(self, question: Question, count: int) -> list[LabelledDocument]:
        if not question.answerable or len(question.documents) != 1:
            return []
        (passage,) = question.documents
        parts = cut(passage, size=self.size)
        carried = any(part.answer_spans if passage.answer_spans else part.is_gold for part in parts)
        return parts if carried and 2 * len(parts) <= count else []

    def _nearest(self, questions: Sequence[Question], k: int) -> list[list[int]]:
        queries = _tokenised([question.text for question in questions])
        found = self._index.retrieve(queries, k=min(k, len(self)), show_progress=False)
        return [[int(place) for place in row] for row in found.documents]

    def _distractors(self, question: Question, places: Iterable[int], wanted: int) -> list[LabelledDocument]:
        needles = [needle for answer in question.answers if (needle := answer_needle(answer))]
        (passage,) = question.documents
        taken: list[LabelledDocument] = []
        for chunk in (self._chunks[place] for place in places):
            if len(taken) == wanted:
                break
            if chunk.passage != passage.document.text and not any(needle in chunk.tokens for needle in needles):
                taken.append(LabelledDocument(chunk.document, relevant=()))
        return taken


def shuffled(documents: list[LabelledDocument], question_id: str, seed: int) -> tuple[LabelledDocument, ...]:
    """In an order that depends on the seed and the question's id alone."""
    order = np.random.default_rng([seed, zlib.crc32(question_id.encode())]).permutation(len(documents))
    return tuple(documents[place] for place in order)


def _tokenised(texts: list[str]) -> Any:
    import bm25s

    return bm25s.tokenize(texts, stopwords="en", show_progress=False)


def _bm25_index(texts: list[str]) -> Any:
    import bm25s

    index = bm25s.BM25()
    index.index(_tokenised(texts), show_progress=False)
    return index
