"""Which documents a question gets: its own, or what a retriever finds in the passages of the set and in corpora."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ctxprune.data.corpus import read_corpus
from ctxprune.data.questions import LabelledDocument, Question, label_by_answers, locatable
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.eval.metrics import Offsets, answer_needle, covered, token_string
from ctxprune.eval.run.datasets import Questions
from ctxprune.eval.run.folder import Store, key
from ctxprune.files import batched
from ctxprune.models.sentence_encoders import BundledEncoder
from ctxprune.retrievers import BM25Retriever, DenseRetriever, HybridRetriever, Retriever
from ctxprune.types import Document

_WORD = re.compile(r"\S+")
#: Words of a pool's chunk where passages are not to be cut.
UNCUT = 1_000_000


def chunk_spans(text: str, size: int = 100) -> list[Offsets]:
    """Offsets of consecutive runs of `size` words; the last run may be shorter. Sentences are cut where they fall."""
    places = [match.span() for match in _WORD.finditer(text)]
    return [(run[0][0], run[-1][1]) for run in (places[first : first + size] for first in range(0, len(places), size))]


def cut(labelled: LabelledDocument, *, size: int = 100) -> list[LabelledDocument]:
    """The passage in chunks of `size` words, its labels moved to chunk offsets.

    An answer span goes with the chunk that holds it whole. A relevant sentence cut by an edge stays relevant in the
    chunk with the greater part of it, and wherever its part holds an answer. A chunk is gold when it carries either.
    """
    return [chunk_of(labelled, place, span) for place, span in enumerate(chunk_spans(labelled.document.text, size))]


def chunk_of(labelled: LabelledDocument, place: int, chunk: Offsets) -> LabelledDocument:
    """The part of the passage at the offsets `chunk`, its labels moved as `cut` says; "#place" goes to its id."""
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


#: Questions retrieved for, and remembered, together.
BATCH = 256


def retrieve(questions: Questions, retrieval: DataConfig, cache: Store) -> Questions:
    """The same questions, in order, with their documents as `retrieval` has it; they are searched for as one iterates.

    What was found (places in the corpus and scores) is remembered in the cache, under a key of the question's text, the
    settings and the corpus's content: a further pass, or a resumed run, neither searches nor builds an index again.
    The corpus is read now and stays in memory. A search may find fewer than k documents, or none.
    Raises InputError when there is nothing to search, and for "given" when no question has a document.
    """
    if retrieval.retriever != "given":
        search = _Search(questions, retrieval, cache)
        return Retrieved(questions, search.identity, search)
    if questions.without_documents == len(questions):
        raise InputError(f"no question of {questions.name} comes with documents; name a retriever and what it searches")
    if retrieval.k is None:
        return questions
    return Retrieved(questions, key("given", retrieval.k), partial(_first, retrieval.k))


class Retrieved:
    """A set whose questions get other documents, all else its own; made by `retrieve`.

    content_hash: covers that of the set, the settings and what was searched.
    """

    def __init__(
        self, questions: Questions, identity: str, replaced: Callable[[Sequence[Question]], Iterable[Question]]
    ) -> None:
        self.name = questions.name
        self.without_documents = questions.without_documents
        self.content_hash = f"sha256:{key(questions.content_hash, identity)}"
        self._questions = questions
        self._replaced = replaced

    def __len__(self) -> int:
        return len(self._questions)

    def __iter__(self) -> Iterator[Question]:
        for batch in self._questions.batches(BATCH):
            yield from self._replaced(batch)

    def batches(self, size: int) -> Iterator[list[Question]]:
        return batched(self, size)

    def passages(self) -> Iterator[Document]:
        return self._questions.passages()


def _first(k: int, batch: Sequence[Question]) -> Iterator[Question]:
    return (replace(question, documents=question.documents[:k]) for question in batch)


class _Search:
    """identity: of the settings and of everything searched; with a question's text, what it finds."""

    def __init__(self, questions: Questions, retrieval: DataConfig, cache: Store) -> None:
        assert retrieval.k is not None  # the settings see to it
        self._k = retrieval.k
        self._retriever = retrieval.retriever
        self._chunk_words = retrieval.chunk_words
        self._cache = cache
        self._documents = _distinct(_searched(questions, retrieval), retrieval.chunk_words)
        if not self._documents:
            raise InputError(f"{questions.name} comes without documents to search; name corpora for the retrieval")
        embedder = None if retrieval.retriever == "bm25" else BundledEncoder.name
        contents = hashlib.sha256()
        for document in self._documents:
            contents.update(bytes.fromhex(key(document.id, document.title, document.text)))
        self.identity = key(retrieval.retriever, retrieval.k, embedder, contents.hexdigest())

    def __call__(self, batch: Sequence[Question]) -> Iterator[Question]:
        keys = [key("retrieval", self.identity, question.text) for question in batch]
        known = dict(self._cache.get_many(keys))
        if missing := {name: question.text for name, question in zip(keys, batch, strict=True) if name not in known}:
            fresh = dict(zip(missing, self._found(list(missing.values())), strict=True))
            self._cache.put_many(fresh)
            known |= fresh
        for name, question in zip(keys, batch, strict=True):
            found = zip(known[name]["places"], known[name]["scores"], strict=True)
            documents = [replace(self._documents[place], score=score) for place, score in found]
            yield replace(question, documents=labelled_for(question, documents, chunk_words=self._chunk_words))

    def _found(self, queries: list[str]) -> Iterator[dict[str, list[Any]]]:
        for documents in self._index.retrieve(queries, self._k):
            yield {
                "places": [self._place[document.text] for document in documents],
                "scores": [document.score for document in documents],
            }

    @cached_property
    def _place(self) -> dict[str, int]:
        return {document.text: place for place, document in enumerate(self._documents)}

    @cached_property
    def _index(self) -> Retriever:
        if self._retriever == "bm25":
            return BM25Retriever(self._documents)
        dense = DenseRetriever(self._documents)
        return dense if self._retriever == "dense" else HybridRetriever([BM25Retriever(self._documents), dense])


def _searched(questions: Questions, retrieval: DataConfig) -> Iterator[Document]:
    if retrieval.pool:
        yield from questions.passages()
    for corpus in retrieval.corpora:
        yield from read_corpus(corpus)


def _distinct(documents: Iterable[Document], chunk_words: int | None) -> list[Document]:
    """The first document of every text, in order."""
    distinct: dict[str, Document] = {}
    for document in documents:
        for part in _parts(LabelledDocument(document), chunk_words):
            distinct.setdefault(part.document.text, part.document)
    return list(distinct.values())


def _parts(labelled: LabelledDocument, chunk_words: int | None) -> list[LabelledDocument]:
    return [labelled] if chunk_words is None else cut(labelled, size=chunk_words)


def labelled_for(
    question: Question, found: Iterable[Document], *, chunk_words: int | None = None
) -> tuple[LabelledDocument, ...]:
    """What is known of each found document for the question, whose own documents (cut likewise) tell.

    - Its own document, told by its text: the labels it has there.
    - Any other, when the question is unanswerable: nothing relevant. That holds of the set's own passages; nobody has
      looked whether a further corpus answers.
    - Any other in which an answer stands: gold, as in open-domain retrieval, with the answers' places. Which of its
      sentences matter nobody has marked, so `relevant` is None where the question has a gold document of its own; else
      the answers' sentences are all the labels there are.
    - Any other in which none stands: not gold, nothing relevant. Without an answer to look for (none, yes or no) that
      is assumed where the question has a gold document of its own, and not known elsewhere.
    """
    own = [part for labelled in question.documents for part in _parts(labelled, chunk_words)]
    known = {part.document.text: part for part in sorted(own, key=lambda part: part.is_gold)}  # of equal texts the gold
    has_gold = any(labelled.is_gold for labelled in question.documents)
    return tuple(
        replace(known[document.text], document=document)
        if document.text in known
        else _foreign(question, document, has_gold=has_gold)
        for document in found
    )


def _foreign(question: Question, document: Document, *, has_gold: bool) -> LabelledDocument:
    answers = locatable(question.answers)
    if not question.answerable:
        return LabelledDocument(document, relevant=())
    if not answers:
        return LabelledDocument(document, relevant=() if has_gold else None)
    labelled = label_by_answers(document, answers)
    return replace(labelled, relevant=None) if labelled.is_gold and has_gold else labelled
