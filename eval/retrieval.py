"""Which documents a question gets: its own, or what a retriever finds in the passages of the set and in corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, Protocol, get_args

from ctxprune.answers import label_by_answers, locatable
from ctxprune.batches import batched
from ctxprune.embedders import BundledEncoder
from ctxprune.errors import InputError
from ctxprune.eval.datasets import Questions
from ctxprune.eval.pool import cut
from ctxprune.eval.store import key
from ctxprune.qa import LabelledDocument, Question
from ctxprune.qa_corpus import read_corpus
from ctxprune.retrievers import BM25Retriever, DenseRetriever, HybridRetriever, Retriever
from ctxprune.types import Document

Name = Literal["given", "bm25", "dense", "hybrid"]

#: Questions retrieved for, and remembered, together.
BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """How questions come to their documents.

    retriever: "given" leaves a question its own; "bm25", "dense" (the bundled encoder, exact) and "hybrid" (both, by
    reciprocal rank) search. k: documents a question; None, for "given" only, all of them. What is searched: with `pool`
    the passages of all questions of the source, and the `corpora` (files or folders, see `read_corpus`), equal texts
    once. chunk_words: cut all that into runs of so many words first.
    """

    retriever: Name = "given"
    k: int | None = None
    corpora: tuple[str, ...] = ()
    pool: bool = True
    chunk_words: int | None = None

    def __post_init__(self) -> None:
        if self.retriever not in get_args(Name):
            raise InputError(f"retriever must be one of {', '.join(get_args(Name))}, got {self.retriever!r}")
        for name, value in (("k", self.k), ("chunk_words", self.chunk_words)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.retriever == "given":
            if self.corpora or self.chunk_words:
                raise InputError("corpora and chunk_words need a retriever; pass retriever='bm25', 'dense' or 'hybrid'")
        elif self.k is None:
            raise InputError(f"retriever {self.retriever!r} needs k, the number of documents a question; pass e.g. k=5")
        elif not (self.pool or self.corpora):
            raise InputError("there is nothing to search: pass pool=True, or name corpora")


class Cache(Protocol):
    """What `retrieve` asks of a `ctxprune.eval.store.Store`."""

    def get_many(self, keys: list[str], /) -> Mapping[str, Any]: ...

    def put_many(self, values: dict[str, Any], /) -> None: ...


def retrieve(questions: Questions, retrieval: Retrieval, cache: Cache) -> Questions:
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

    content_hash: covers that of the set, the settings and what was searched. total, unscorable, without_documents,
    passages: as the set has them.
    """

    def __init__(
        self, questions: Questions, identity: str, replaced: Callable[[Sequence[Question]], Iterable[Question]]
    ) -> None:
        self.name = questions.name
        self.total = questions.total
        self.unscorable = questions.unscorable
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

    def __init__(self, questions: Questions, retrieval: Retrieval, cache: Cache) -> None:
        assert retrieval.k is not None  # `Retrieval` sees to it
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


def _searched(questions: Questions, retrieval: Retrieval) -> Iterator[Document]:
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
