"""What `ctxprune run` works with: questions, a retriever, a generator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.cli.inputs import skipped_files
from ctxprune.errors import InputError, UnknownNameError
from ctxprune.qa import answers_from, read_jsonl, read_lines, read_rows
from ctxprune.qa_corpus import read_corpus
from ctxprune.samples import SampleQuestion, sample_corpus, sample_questions
from ctxprune.types import Document

if TYPE_CHECKING:
    from ctxprune.generators import Generator
    from ctxprune.retrievers import Retriever

#: One of each kind: running text, a near twin that answers otherwise, a table row, keywords, French, no answer.
TELLING = (
    "astronomy-moons-jupiter-q3",
    "company-travel-2024-q1",
    "trains-coast-timetable-q1",
    "database-backup-q3",
    "french-refuge-q1",
    "unanswerable-10",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and, where they are known, its answers. answerable: None when that is not known."""

    text: str
    answers: tuple[str, ...] = ()
    answerable: bool | None = None


def load_questions(asked: Sequence[str], path: Path | None, *, retriever: str, sample: bool) -> list[Asked]:
    """Those given, then those of the file; with neither, those of a file of retrieved documents, else of the sample.

    sample: whether the sample corpus is searched: then its questions' answers are known. Raises InputError when there
    is nothing to ask.
    """
    known = {question.question: _of_sample(question) for question in sample_questions()} if sample else {}
    questions = [known.get(text, Asked(text)) for text in asked] + ([] if path is None else _read(path))
    if questions:
        return questions
    if is_file(retriever):
        return [Asked(question.text, question.answers, question.answerable) for question in read_jsonl(retriever)]
    if not sample:
        raise InputError("no question to ask of this corpus; give one with -q, or a file with --questions")
    by_id = {question.id: question for question in sample_questions()}
    return [_of_sample(by_id[name]) for name in TELLING]


def load_retriever(name: str, corpus: Path | None, *, tell: Callable[[str], None]) -> Retriever:
    """bm25, dense or hybrid over the corpus (None: the bundled sample), or a .jsonl file of retrieved documents.

    tell: takes a line that names the files of a folder that are not read.
    """
    from ctxprune.retrievers import BM25Retriever, DenseRetriever, HybridRetriever, PrecomputedRetriever, StoreRetriever

    if is_file(name):
        return PrecomputedRetriever.from_jsonl(name)
    if (Path(name) / "manifest.json").is_file():
        return StoreRetriever(name)
    if name not in ("bm25", "dense", "hybrid"):
        raise UnknownNameError(
            f"no retriever {name!r}; use bm25, dense, hybrid, a folder that `ctxprune index --vectors` wrote, or a "
            ".jsonl file of retrieved documents"
        )
    documents = sample_corpus() if corpus is None else list(_corpus(corpus, tell))
    if name == "bm25":
        return BM25Retriever(documents)
    dense = DenseRetriever(documents)
    return dense if name == "dense" else HybridRetriever([BM25Retriever(documents), dense])


def _corpus(path: Path, tell: Callable[[str], None]) -> Iterator[Document]:
    return read_corpus(path, skipped=lambda names: tell(skipped_files(names)))


def load_generator(spec: str, *, base_url: str | None, api_key_env: str | None) -> Generator:
    """spec: "local:PATH_OR_ID" or "openai:MODEL"; the key is read from the environment variable `api_key_env`."""
    from ctxprune.generators import LocalGenerator, OpenAIGenerator

    kind, _, name = spec.partition(":")
    if kind not in ("local", "openai") or not name:
        raise InputError(f"--generator must be local:PATH_OR_ID or openai:MODEL, got {spec!r}")
    if kind == "local":
        return LocalGenerator(name)
    if base_url is None:
        raise InputError(
            f"--generator {spec} needs the address of its endpoint; add --base-url http://localhost:8000/v1"
        )
    if api_key_env is not None and api_key_env not in os.environ:
        raise InputError(f"the environment variable {api_key_env} is not set; set it to the key, or drop --api-key-env")
    return OpenAIGenerator(name, base_url=base_url, api_key=os.environ[api_key_env] if api_key_env else None)


def is_file(retriever: str) -> bool:
    return retriever.endswith((".jsonl", ".jsonl.gz"))


def _of_sample(question: SampleQuestion) -> Asked:
    return Asked(question.question, question.answers, question.answerable)


def _read(path: Path) -> list[Asked]:
    if is_file(path.name):
        return [_asked(row, f"{path}:{number}") for number, row in read_rows(path)]
    return [Asked(line.strip()) for _, line in read_lines(path)]


def _asked(row: dict[str, Any], place: str) -> Asked:
    text = row.get("query") if row.get("question") is None else row["question"]
    if not isinstance(text, str):
        raise InputError(f"{place}: field 'question' (or 'query') must be a string, got {type(text).__name__}")
    answers: tuple[str, ...] = ()
    with suppress(InputError):  # answers of another form only mean that we cannot look for them
        answers = answers_from(row.get("answers", row.get("golden_answers")), "answers")
    answerable = row.get("answerable")
    return Asked(text, answers, answerable if isinstance(answerable, bool) else bool(answers) or None)
