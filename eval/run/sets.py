"""The question sets of a run, from its settings: read, given documents, and varied for sweeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.eval.interchange import match, read_compressed
from ctxprune.eval.run.compress import Compressed
from ctxprune.eval.run.contexts import Variant, variants
from ctxprune.eval.run.datasets import Questions, open_questions
from ctxprune.eval.run.folder import Store, key
from ctxprune.eval.run.retrieval import retrieve
from ctxprune.files import batched
from ctxprune.types import Document


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
