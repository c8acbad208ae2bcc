"""Read questions from the files the field uses: our JSONL, FlashRAG, SQuAD, DPR, BEIR, any Hugging Face data set."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ctxprune.data.corpus import read_beir, read_corpus
from ctxprune.data.formats import read_dpr, read_flashrag, read_squad
from ctxprune.data.questions import Question, label_by_answers, locatable, locate_answers, read_jsonl
from ctxprune.data.tables import is_saved_dataset, read_dataset
from ctxprune.errors import InputError
from ctxprune.files import batched, open_text, read_rows
from ctxprune.types import Document

if TYPE_CHECKING:
    from ctxprune.retrievers import Retriever

__all__ = ["Format", "detect_format", "locate_answers", "read_corpus", "read_questions", "with_retrieved"]

Format = Literal["auto", "jsonl", "flashrag", "squad", "dpr", "beir", "datasets"]
_KNOWN = """known forms are
  jsonl     {"question", "documents": [...], "answers"?} a line
  flashrag  {"question", "golden_answers"} a line
  squad     a JSON file with data[].paragraphs[].qas[]
  dpr       {"question", "answers", "ctxs": [...]} a line, or a JSON array of them
  beir      a folder with corpus.jsonl, queries.jsonl and qrels/
  datasets  a Hugging Face data set (an id, a saved folder, or a file) with a column mapping
name one with format=, and for datasets also columns="""
_READERS: dict[str, Callable[[Path], Iterator[Question]]] = {
    "jsonl": read_jsonl,
    "flashrag": read_flashrag,
    "squad": read_squad,
    "dpr": read_dpr,
}


def read_questions(
    source: str | Path,
    *,
    format: Format = "auto",
    corpus: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    depth: int = 10,
) -> Iterator[Question]:
    """The questions of a file, folder or data set, in order, one at a time.

    format: "auto" tells by the shape of the file, or by `columns` being given. corpus: a BEIR folder's corpus when it
    is not inside; in the other forms, where a question without documents gets its `depth` BM25-nearest ones from,
    labelled by whether an answer stands in them (`with_retrieved`); it is then held in memory. columns: see
    `ctxprune.data.tables.read_dataset`. split: of a BEIR folder or data set.
    Raises InputError naming file, line and field; before the first question when the format cannot be told.
    """
    if format not in get_args(Format):
        raise InputError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    chosen = detect_format(source, columns=columns) if format == "auto" else format
    if columns is not None and chosen != "datasets":
        raise InputError(f"columns are for format='datasets', got format={chosen!r}; leave them out")
    if chosen == "datasets":
        questions = read_dataset(source, columns=columns or {}, split=split)
    elif chosen == "beir":
        return read_beir(Path(source), split=split, corpus=None if corpus is None else Path(corpus))
    else:
        questions = _READERS[chosen](Path(source))
    return questions if corpus is None else with_retrieved(questions, _bm25(corpus), k=depth)


def detect_format(source: str | Path, *, columns: Mapping[str, str] | None = None) -> Format:
    """The format of `source`, told by its name and first line; InputError lists the formats when it fits none."""
    path = Path(source)
    if columns is not None or is_saved_dataset(path):
        return "datasets"
    if path.is_dir() and any((path / "qrels").glob("*.tsv")):
        return "beir"
    if path.is_file():
        return _detect_file(path)
    missing = "is a folder of no known form" if path.is_dir() else "is no file or folder"
    raise InputError(f"{source} {missing}; {_KNOWN}")


def _detect_file(path: Path) -> Format:
    try:
        with open_text(path) as lines:
            start = lines.read(1 << 16)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if re.match(r"\s*\[", start) and '"ctxs"' in start:
        return "dpr"
    lined = path.name.endswith((".jsonl", ".jsonl.gz"))
    if not lined and re.match(r"\s*\{", start) and re.search(r'"(paragraphs|qas)"\s*:\s*\[', start):
        return "squad"
    try:
        _, row = next(read_rows(path), (0, {}))
    except InputError as error:
        raise InputError(f"cannot tell the form of {path} ({error}); {_KNOWN}") from None
    if "golden_answers" in row:
        return "flashrag"
    if "documents" in row:
        return "jsonl"
    if "ctxs" in row:
        return "dpr"
    raise InputError(f"cannot tell the form of {path} (its first line has {', '.join(row) or 'no field'}); {_KNOWN}")


def with_retrieved(questions: Iterable[Question], retriever: Retriever, *, k: int = 10) -> Iterator[Question]:
    """Questions without documents get the `k` that the retriever finds, labelled by `label_by_answers`.

    Questions with documents pass as they are. So do those with no answer to look for, or only yes or no, since labels
    made from these would be wrong.
    """
    for batch in batched(questions, 256):
        found = retriever.retrieve([question.text for question in batch], k)
        for question, documents in zip(batch, found, strict=True):
            if question.documents or not (answers := locatable(question.answers)):
                yield question
            else:
                labelled = tuple(label_by_answers(document, answers) for document in documents)
                yield replace(question, documents=labelled)


def _bm25(corpus: str | Path) -> Retriever:
    from ctxprune.retrievers import BM25Retriever

    passages = list(read_corpus(corpus))
    if not passages:
        raise InputError(f"the corpus {corpus} is empty")
    return BM25Retriever(passages)


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question on the sample corpus.

    answers: accepted answers. evidence: the sentences, table rows or code lines that answer. Both stand word for word
    in the text of the document `document_id`; when no document answers they are empty and `document_id` is None.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    answerable: bool
    document_id: str | None
    evidence: tuple[str, ...]


def sample_corpus() -> list[Document]:
    """The documents, in the order of the file; the part of an id before the first "-" is the topic."""
    return [Document(row["text"], id=row["id"], title=row["title"]) for row in _rows("corpus.jsonl")]


def sample_questions() -> list[SampleQuestion]:
    """The questions, in the order of the file: those that a document answers first, then the unanswerable ones."""
    return [_question(row) for row in _rows("questions.jsonl")]


def _question(row: dict[str, Any]) -> SampleQuestion:
    return SampleQuestion(
        id=row["id"],
        question=row["question"],
        answers=tuple(row["answers"]),
        answerable=row["answerable"],
        document_id=row["document_id"],
        evidence=tuple(row["evidence"]),
    )


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with files("ctxprune.bundled").joinpath("sample", name).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
