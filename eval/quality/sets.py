"""The sets of questions of a run: files, a file by its languages, passages hidden in a pool, the ladder, manuals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.eval.datasets import evenly_spaced
from ctxprune.eval.pool import Pool
from ctxprune.eval.quality.ladder import Ladder
from ctxprune.qa import Question, read_jsonl, read_rows
from ctxprune.qa_corpus import read_corpus

Sets = Iterator[tuple[str, list[Question]]]


def set_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def question_sets(
    paths: Sequence[Path], corpus: Path | None, *, limit: int | None, seed: int, by: str | None = None
) -> Sets:
    """(name, questions) of each file; with a corpus also "<name>+pool" for files of one passage a question.

    by: a field of the rows; a file that has it makes one set a value, "<name>: <value>", of `limit` questions each.
    """
    extra = list(read_corpus(corpus)) if corpus else []
    for path in paths:
        questions = list(read_jsonl(path))
        groups = _grouped(path, questions, by) if by else {}
        for value, group in groups.items():
            yield f"{set_name(path)}: {value}", evenly_spaced(group, limit)
        if not groups:
            yield set_name(path), evenly_spaced(questions, limit)
        if corpus and all(len(question.documents) == 1 for question in questions):
            passages = [labelled.document for question in questions for labelled in question.documents]
            if hidden := list(Pool([*passages, *extra]).hide(evenly_spaced(questions, limit), seed=seed)):
                yield f"{set_name(path)}+pool", hidden


def _grouped(path: Path, questions: Sequence[Question], by: str) -> dict[str, list[Question]]:
    """Questions by a field of their rows, in order of its values; {} for a file in which no row has it."""
    values = [row.get(by) for _, row in read_rows(path)]
    if all(value is None for value in values):
        return {}
    groups: dict[str, list[Question]] = {}
    for value, question in zip(values, questions, strict=True):
        groups.setdefault("none" if value is None else str(value), []).append(question)
    return dict(sorted(groups.items()))


def ladder_sets(path: Path, *, limit: int | None, long_limit: int, seed: int) -> Sets:
    """(name, questions) of each rung, see `ladder.Ladder`. Raises InputError for a file without a suited question."""
    try:
        ladder = Ladder(list(read_jsonl(path)), limit=limit, long_limit=long_limit, seed=seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for number, (name, questions) in enumerate(ladder.rungs(), 1):
        yield f"{set_name(path)} rung {number}: {name}", questions
