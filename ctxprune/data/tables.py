"""Read any Hugging Face data set as questions, through a mapping from our fields to its columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ctxprune.data.questions import (
    LabelledDocument,
    Question,
    answer_sentences,
    answers_from,
    label_by_mark,
)
from ctxprune.errors import InputError
from ctxprune.types import Document

FIELDS = ("question", "documents", "answers", "titles", "gold", "id")
_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


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
      gold       one flag a document; without it a document is gold if an answer stands in it
      id         default: the row number from 0
    Sentence labels come from the answers' places (`ctxprune.data.questions`). Raises InputError for an unknown field, a
    column that is not there (naming those that are), a value of the wrong type, or a set that cannot be loaded.
    """
    unknown = [field for field in columns if field not in FIELDS]
    if unknown or "question" not in columns:
        problem = f"unknown {', '.join(unknown)}" if unknown else "missing question"
        raise InputError(f"columns: {problem}; map question and, where there, {', '.join(FIELDS[1:])}")
    return _questions(_load(str(source), split), columns, f"{source}[{split}]")


def _load(source: str, split: str) -> Iterable[dict[str, Any]]:
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


def _questions(rows: Iterable[dict[str, Any]], columns: Mapping[str, str], place: str) -> Iterator[Question]:
    for number, row in enumerate(rows):
        try:
            yield _question({field: _pick(row, column) for field, column in columns.items()}, str(number))
        except InputError as error:
            raise InputError(f"{place} row {number}: {error}") from None


def _pick(row: Any, column: str) -> Any:
    value = row
    for name in [column] if column in row else column.split("."):
        if not isinstance(value, dict) or name not in value:
            raise InputError(f"no column {column!r}; the columns are {', '.join(row)}")
        value = value[name]
    return value


def _question(values: Mapping[str, Any], default_id: str) -> Question:
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
        label_by_mark(Document(body, title=str(title or "")), None if flag is None else bool(flag), answers)
        for body, title, flag in zip(texts, titles, gold, strict=True)
    )
    if len(documents) == 1 and found and isinstance(given, dict) and "answer_start" in given:
        documents = (_with_offsets(documents[0].document, found=given["text"], starts=given["answer_start"]),)
    answerable = bool(found) if answers is not None else any(document.is_gold for document in documents)
    return Question(str(values.get("id", default_id)), text, found, answerable, documents)


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
