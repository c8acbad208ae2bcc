"""The questions of one benchmark set: counted, hashed and frozen once, then streamed from their file each time."""

from __future__ import annotations

import hashlib
import heapq
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from ctxprune.data import Format, detect_format, read_questions
from ctxprune.data.questions import Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.eval.run.folder import key
from ctxprune.files import batched
from ctxprune.types import Document


class Questions(Protocol):
    """What the stages of a run need of a set, whether its documents were given or retrieved; see `QuestionSet`."""

    @property
    def name(self) -> str: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def without_documents(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Question]: ...

    def batches(self, size: int) -> Iterator[list[Question]]: ...

    def passages(self) -> Iterator[Document]: ...


class _Row(NamedTuple):
    """What is remembered of a question, instead of its text."""

    place: int
    digest: bytes
    no_documents: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionSet:
    """A frozen set; made by `open_questions`. Iterating reads the source again and holds one question at a time.

    content_hash: "sha256:..." of the questions in the set, in order, by what they say (so not of the file's bytes).
    total: questions in the source. without_documents: those of the set that come without any.
    places, prints: where each question of the set stands in the source, and 8 bytes of its digest.
    Iterating raises InputError as soon as the source no longer gives the questions that were counted.
    """

    source: DataConfig
    format: Format
    name: str
    content_hash: str
    total: int
    without_documents: int
    places: array[int] = field(repr=False)
    prints: array[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Question]:
        wanted = zip(self.places, self.prints, strict=True)
        place, expected = next(wanted, (-1, 0))
        for number, question in enumerate(self._read()):
            if number == place:
                if _fingerprint(_digest(question)) != expected:
                    raise self._changed(f"question {number + 1} (now id {question.id!r}) is another")
                yield question
                place, expected = next(wanted, (-1, 0))

    def batches(self, size: int) -> Iterator[list[Question]]:
        """Consecutive questions, `size` at a time; the last list may be shorter."""
        return batched(self, size)

    def passages(self) -> Iterator[Document]:
        """The documents of every question of the source, in or out of the set, so that a limit changes no pool."""
        return (labelled.document for question in self._read() for labelled in question.documents)

    def _read(self) -> Iterator[Question]:
        count = 0
        for question in _questions(self.source, self.format):
            count += 1
            yield question
        if count != self.total:
            raise self._changed(f"it has {count} questions, not {self.total}")

    def _changed(self, what: str) -> InputError:
        return InputError(f"{self.source.path} has changed since it was opened: {what}; start again with the new file")


def open_questions(source: DataConfig) -> QuestionSet:
    """Read the source once to check, count, hash and draw; the set then streams from it.

    With a limit, every question gets a random number from `seed` and its place, and those with the smallest stay, in
    the source's order: the same ones every time, and a smaller limit gives a part of a larger one. A limit beyond the
    questions there are takes all. In that pass the ids are held, for they name samples and must be unlike: a repeated
    id is an InputError even outside the subset, else a larger limit would break what a smaller one allows. So are
    malformed rows (file, line and field), an empty question text, and a source without a fitting question. A question
    without documents, or without anything to score it by, is allowed and counted.
    """
    format = detect_format(source.path, columns=source.columns) if source.format == "auto" else source.format
    if source.corpus is not None and format != "beir":
        raise InputError(f"corpus is for a BEIR folder, and {source.path} is {format}; give the retrieval its corpora")
    ids: set[str] = set()
    places, prints, sha = array("Q"), array("Q"), hashlib.sha256()
    without_documents = 0
    for row in _drawn(_checked(source, format, ids), source.limit, source.seed):
        places.append(row.place)
        prints.append(_fingerprint(row.digest))
        sha.update(row.digest)
        without_documents += row.no_documents
    if not places:
        kind = "" if source.answerable is None else "answerable " if source.answerable else "unanswerable "
        raise InputError(f"{source.path} holds no {kind}question, of {len(ids)} in all")
    return QuestionSet(
        source=source,
        format=format,
        name=_name(source),
        content_hash=f"sha256:{sha.hexdigest()}",
        total=len(ids),
        without_documents=without_documents,
        places=places,
        prints=prints,
    )


def _digest(question: Question) -> bytes:
    return bytes.fromhex(key(row_from_question(question)))


def _fingerprint(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _questions(source: DataConfig, format: Format) -> Iterator[Question]:
    return read_questions(source.path, format=format, corpus=source.corpus, columns=source.columns, split=source.split)


def _checked(source: DataConfig, format: Format, ids: set[str]) -> Iterator[_Row]:
    """Rows of the questions that fit `source.answerable`; every question's id goes into `ids`."""
    for place, question in enumerate(_questions(source, format)):
        where = f"{source.path}: question {place + 1} (id {question.id!r})"
        if not question.text.strip():
            raise InputError(f"{where} has an empty text; give it one or leave the row out")
        if question.id in ids:
            raise InputError(f"{where} has the id of an earlier one; ids name samples, so make them unlike")
        ids.add(question.id)
        if source.answerable in (None, question.answerable):
            yield _Row(place, _digest(question), not question.documents)


def _drawn(rows: Iterable[_Row], limit: int | None, seed: int) -> Iterable[_Row]:
    if limit is None:
        return rows
    numbers = random.Random(seed)  # its random() is the same in every Python version, as numpy's streams need not be
    drawn = heapq.nsmallest(limit, ((numbers.random(), row.place, row) for row in rows))
    return sorted((row for _, _, row in drawn), key=lambda row: row.place)


def _name(source: DataConfig) -> str:
    """As it is called, else the file's own name, and how documents were found where they were not given."""
    if source.name is not None:
        return source.name
    path, name = Path(source.path), source.path  # of a hub id its owner is a part
    if path.exists():
        name = path.resolve().name.removesuffix(".gz") if path.is_file() else path.resolve().name
        name = name.removesuffix(".jsonl").removesuffix(".json")
    found = "" if source.retriever == "given" and source.k is None else f" {source.retriever}"
    return name + found + ("" if source.k is None else f" k={source.k}")


def evenly_spaced(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` questions from all over the file (which may be in order of topic), the same ones every time."""
    if limit is None or limit >= len(questions):
        return list(questions)
    return [questions[place * len(questions) // limit] for place in range(limit)]
