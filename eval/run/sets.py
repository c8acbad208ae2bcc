"""The question sets of a run, from its settings: read, given documents, and varied for sweeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.eval.interchange import match, read_compressed
from ctxprune.eval.run.compress import Compressed
from ctxprune.eval.run.datasets import Questions, open_questions
from ctxprune.eval.run.folder import Store, key
from ctxprune.eval.run.retrieval import retrieve
from ctxprune.files import batched
from ctxprune.types import Document

#: A pure change of one question; None where the question does not allow it.
Transform: TypeAlias = Callable[[Question], Question | None]


def needle_at(question: Question, position: float) -> Question | None:
    """The question with its gold documents moved to `position` among its documents: 0 first, 1 last.

    Several gold documents stand together in their order, the others keep theirs; a position between two places goes to
    the nearer one, halfway to the later. None when there is no gold document or no other.
    Raises InputError for a position outside [0, 1].
    """
    if not 0.0 <= position <= 1.0:
        raise InputError(f"a needle position must be in [0, 1] (0 first, 1 last), got {position}")
    gold = [document for document in question.documents if document.is_gold]
    others = [document for document in question.documents if not document.is_gold]
    if not gold or not others:
        return None
    place = int(position * len(others) + 0.5)
    return replace(question, documents=(*others[:place], *gold, *others[place:]))


def with_documents(question: Question, count: int) -> Question | None:
    """The question with `count` documents: its gold ones, and its first others, all in their order.

    So the documents of a smaller count are among those of a greater one. None when there are fewer than `count`, or
    more gold documents than that. Raises InputError for a count below 1.
    """
    if count < 1:
        raise InputError(f"the number of documents must be at least 1, got {count}")
    spare = count - sum(document.is_gold for document in question.documents)
    documents: list[LabelledDocument] = []
    for document in question.documents:
        if document.is_gold or spare > 0:
            documents.append(document)
            spare -= not document.is_gold
    return replace(question, documents=tuple(documents)) if len(documents) == count else None


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a sweep: `name` such as "needle=0.5" or "documents=5", and what it does to a question."""

    name: str
    transform: Transform

    def of(self, questions: Iterable[Question]) -> Iterator[Question]:
        """The changed questions, one at a time, without those that the variant does not suit."""
        return (changed for question in questions if (changed := self.transform(question)) is not None)


def variants(*, positions: Sequence[float] = (), counts: Sequence[int] = ()) -> list[Variant]:
    """A variant for every needle position and every number of documents, in the order given.

    All variants of one kind skip the same questions, so the points of a sweep can be compared: a question that has too
    few documents for the greatest count, or too many gold ones for the smallest, is in none of the counts.
    Raises InputError for a value out of range or given twice.
    """
    found = [Variant(f"needle={position:g}", _moving(position)) for position in positions]
    found += [Variant(f"documents={count}", _counting(count, counts)) for count in counts]
    names = [variant.name for variant in found]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"a sweep needs distinct values, got {twice[0]} more than once")
    return found


def _moving(position: float) -> Transform:
    needle_at(Question("", ""), position)  # a bad value fails now, not at the first question
    return lambda question: needle_at(question, position)


def _counting(count: int, counts: Sequence[int]) -> Transform:
    with_documents(Question("", ""), count)  # as above

    def transform(question: Question) -> Question | None:
        suited = all(with_documents(question, limit) for limit in (min(counts), max(counts)))
        return with_documents(question, count) if suited else None

    return transform


@dataclass(frozen=True, slots=True, eq=False)
class Varied:
    """A set in one variant of a sweep, e.g. with the gold document last; questions that do not suit it are left out."""

    base: Questions
    variant: Variant
    size: int

    @classmethod
    def of(cls, base: Questions, variant: Variant) -> Varied:
        """Counts the questions that suit. Raises InputError when none does."""
        size = sum(1 for _ in variant.of(base))
        if not size:
            raise InputError(f"no question of {base.name} suits the variant {variant.name}; leave it out of the sweep")
        return cls(base, variant, size)

    @property
    def name(self) -> str:
        return f"{self.base.name} {self.variant.name}"

    @property
    def content_hash(self) -> str:
        return "sha256:" + key(self.base.content_hash, self.variant.name)

    @property
    def without_documents(self) -> int:
        return 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Question]:
        return self.variant.of(self.base)

    def batches(self, size: int) -> Iterator[list[Question]]:
        return batched(self, size)

    def passages(self) -> Iterator[Document]:
        return self.base.passages()


def open_sets(data: Sequence[DataConfig], store: Store) -> list[Questions]:
    """Every set of the run, each followed by its variants. Raises InputError for what cannot be read, and for two
    sets of one name, by which results are told apart.
    """
    sets: list[Questions] = []
    for config in data:
        base = retrieve(open_questions(config), config, store)
        sets.append(base)
        sets += [Varied.of(base, each) for each in variants(positions=config.needles, counts=config.documents)]
    names = [each.name for each in sets]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"two sets are named {twice[0]!r}; give one of them another name:")
    return sets


def outside_contexts(files: Sequence[str], questions: Questions) -> Mapping[str, Mapping[str, Compressed]]:
    """What other tools made of these questions' contexts, by file name and question id; says what did not match."""
    outside = {}
    for file in files:
        matched = match(read_compressed(file), questions)
        if not matched.contexts:
            raise InputError(f"{file}: no row matches a question of {questions.name} by id or text; {matched.report()}")
        if report := matched.report():
            sys.stderr.write(f"{questions.name}, {Path(file).name}: {report}\n")
        outside[Path(file).name] = {
            name: Compressed(context, float("nan") if (seconds := matched.rows[name].seconds) is None else seconds)
            for name, context in matched.contexts.items()
        }
    return outside
