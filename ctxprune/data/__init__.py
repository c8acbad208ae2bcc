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
from ctxprune.data.questions import (
    LabelledDocument,
    Question,
    answer_sentences,
    answers_from,
    label_by_answers,
    label_by_mark,
    locatable,
    locate_answers,
    read_jsonl,
)
from ctxprune.documents import text_of
from ctxprune.errors import InputError, check_choice
from ctxprune.files import batched, is_json_lines, open_text, read_rows
from ctxprune.plain import finite
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
    `ctxprune.data.read_dataset`. split: of a BEIR folder or data set.
    Raises InputError naming file, line and field; before the first question when the format cannot be told.
    """
    check_choice("format", format, get_args(Format))
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
    lined = is_json_lines(path.name)
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


FIELDS = ("question", "documents", "answers", "titles", "gold", "id")
_BUILDERS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}


def is_saved_dataset(path: Path) -> bool:
    """Whether the folder was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def read_dataset(source: str | Path, *, columns: Mapping[str, str], split: str = "train") -> Iterator[Question]:
    """Questions of a hub id ("owner/name", "owner/name:config"), a saved folder, or a .json(l), .csv or .parquet file.

    columns: our field -> their column, a dot going into a nested one, e.g. {"question": "query",
    "documents": "passages.passage_text", "gold": "passages.is_selected"}. Fields:
      question   required; a string
      documents  a string, a list of strings, or a list of lists of sentences
      answers    a string, a list of strings, or {"text": [...], ...} as SQuAD has it; empty: unanswerable
      titles     a string, or one a document
      gold       one flag or number (above 0: gold) a document; without it a document is gold if an answer stands in it
      id         default: the row number from 0
    Sentence labels come from the answers' places (`ctxprune.data.questions`). Raises InputError for an unknown field, a
    column that is not there (naming those that are), a value of the wrong type, or a set that cannot be loaded.
    """
    unknown = [field for field in columns if field not in FIELDS]
    if unknown or "question" not in columns:
        problem = f"unknown {', '.join(unknown)}" if unknown else "missing question"
        raise InputError(f"columns: {problem}; map question and, where there, {', '.join(FIELDS[1:])}")
    return _questions_of(_loaded_rows(str(source), split), columns, f"{source}[{split}]")


def _loaded_rows(source: str, split: str) -> Iterable[dict[str, Any]]:
    import datasets

    path = Path(source)
    try:
        if is_saved_dataset(path):
            loaded = datasets.load_from_disk(source)
            if isinstance(loaded, datasets.DatasetDict) and split not in loaded:
                raise InputError(f"{source} has no split {split!r}; its splits: {', '.join(loaded)}")
            rows = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        elif path.is_file():
            rows = datasets.load_dataset(_builder(path), data_files=source, split="train")
        else:
            name, _, config = source.partition(":")
            rows = datasets.load_dataset(name, config or None, split=split)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"cannot load the data set {source} (split {split!r}): {error}") from error
    iterable: Iterable[dict[str, Any]] = rows
    return iterable


def _builder(path: Path) -> str:
    suffix = next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "")
    if suffix not in _BUILDERS:
        raise InputError(f"cannot read {path} as a data set; known file types: {', '.join(_BUILDERS)}")
    return _BUILDERS[suffix]


def _questions_of(rows: Iterable[dict[str, Any]], columns: Mapping[str, str], place: str) -> Iterator[Question]:
    for number, row in enumerate(rows):
        try:
            yield _question_of({field: _pick(row, column) for field, column in columns.items()}, str(number))
        except InputError as error:
            raise InputError(f"{place} row {number}: {error}") from None


def _pick(row: Any, column: str) -> Any:
    value = row
    for name in [column] if column in row else column.split("."):
        if not isinstance(value, dict) or name not in value:
            raise InputError(f"no column {column!r}; the columns are {', '.join(row)}")
        value = value[name]
    return value


def _question_of(values: Mapping[str, Any], default_id: str) -> Question:
    text = values["question"]
    if not isinstance(text, str):
        raise InputError(f"the question must be a string, got {type(text).__name__}")
    given = values.get("answers")
    found = answers_from(given.get("text") if isinstance(given, dict) else given, "answers")
    answers = found if "answers" in values else None
    texts = _texts(values.get("documents", []))
    titles = _aligned(values.get("titles"), len(texts), "titles", default="")
    gold = _aligned(values.get("gold"), len(texts), "gold", default=None)
    documents = tuple(
        label_by_mark(Document(body, title=text_of(title)), _flag(flag), answers)
        for body, title, flag in zip(texts, titles, gold, strict=True)
    )
    if len(documents) == 1 and found and isinstance(given, dict) and "answer_start" in given:
        documents = (_with_offsets(documents[0].document, found=given["text"], starts=given["answer_start"]),)
    answerable = bool(found) if answers is not None else any(document.is_gold for document in documents)
    return Question(text_of(values.get("id")) or default_id, text, found, answerable, documents)


def _flag(flag: object) -> bool | None:
    """None where the set does not say. A text is refused, for "0" and "false" would be as true as any."""
    if not text_of(flag):
        return None
    if finite(flag) is None and not isinstance(flag, bool):
        raise InputError(f"gold must hold true or false, or numbers, got {flag!r:.80}")
    return bool(flag)


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise InputError(f"documents must be a string or a list, got {type(value).__name__}")
    return [_joined(part, place) for place, part in enumerate(values)]


def _joined(part: Any, place: int) -> str:
    sentences = part if isinstance(part, list) else [part]
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise InputError(f"document {place} must be a string or a list of sentences, got {part!r:.80}")
    spaced = any(sentence[:1].isspace() for sentence in sentences[1:])  # some sets keep the space between sentences
    return ("" if spaced else " ").join(sentences)


def _aligned(value: Any, count: int, field: str, *, default: Any) -> list[Any]:
    if value is None:
        return [default] * count
    values = value if isinstance(value, list) else [value]
    if len(values) != count:
        raise InputError(f"{field} must hold one value a document, got {len(values)} for {count} documents")
    return values


def _with_offsets(document: Document, *, found: list[str], starts: Any) -> LabelledDocument:
    """The answers where the set says they stand, as SQuAD and its kin do."""
    if not isinstance(starts, list) or len(starts) != len(found):
        raise InputError("answers: 'answer_start' must hold one offset an answer")
    if any(type(start) is not int or start < 0 for start in starts):
        raise InputError(f"answers: 'answer_start' must hold offsets of at least 0, got {starts!r:.80}")
    spans = {(start, start + len(answer)) for answer, start in zip(found, starts, strict=True)}
    for start, end in spans:
        if (stands := document.text[start:end]) not in found:
            raise InputError(f"answers: answer_start {start} is at {stands!r:.80}, which is no answer")
    ordered = tuple(sorted(spans))
    return LabelledDocument(document, True, ordered, answer_sentences(document.text, ordered))
