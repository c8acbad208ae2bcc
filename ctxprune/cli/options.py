"""The options by which `compress` and `run` build their pipeline, and what they read."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.cli.output import note, plural, printable
from ctxprune.cli.stdin import STANDARD_INPUT, gunzipped, input_lines, input_rows, whole_input
from ctxprune.data import SampleQuestion, sample_corpus, sample_questions
from ctxprune.data.corpus import corpus_document, decode_page, is_page, read_corpus, read_page
from ctxprune.data.questions import answers_from, question_from_row, read_jsonl
from ctxprune.errors import InputError, UnknownNameError
from ctxprune.files import constant, decoded, is_json_lines, json_object, read_rows, split_lines
from ctxprune.options import OWN, Options
from ctxprune.pipeline import require_query
from ctxprune.types import Compressor, Context, Document, TokenCounter

if TYPE_CHECKING:
    from ctxprune.generators import Generator
    from ctxprune.retrievers import Retriever


class Compression(Options):
    """The same options, with refusals in the words of the command line."""

    __slots__ = ()

    def loaded(self, counter: TokenCounter) -> Compressor:
        try:
            return Options.loaded(self, counter)
        except TypeError as error:  # not an option of this compressor, or given already as its name
            if self.compressor.lower() == "xrag":
                raise InputError(
                    "the compressor 'xrag' gives soft tokens that only its own generator can read, and needs that "
                    "generator's bridge, so the command line cannot run it; name a compressor that gives text, or see "
                    "docs/xrag.md for its use in Python"
                ) from None
            given = {name: value for name in OWN if (value := getattr(self, name)) is not None}
            refused = [name for name in given if f"'{name}'" in str(error)]
            if not refused:
                raise
            raise InputError(
                f"the compressor {self.compressor!r} takes no --{refused[0].replace('_', '-')} {given[refused[0]]}; "
                "leave it out"
            ) from None


#: How web pages begin: comments and declarations may stand before <html>, and a byte-order mark before them.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
_PAGE_BEGINS = 4096
#: What tells a document from other JSON; messages and logs have a "content", too.
_TEXT_FIELDS = ("text", "page_content", "contents")
#: Names of skipped files that one line holds.
_SHOWN = 5


def read_documents(paths: Sequence[Path], *, tell: Callable[[str], None] = note) -> list[Document]:
    """The documents of all paths, in order; "-" is standard input.

    A .jsonl[.gz] file gives one document a line, `{"text" | "contents", "id"?, "title"?}`, and so does any other that
    begins like one, or holds a JSON list of such objects; else it is one document, a web page the text that it shows,
    also one that comes from standard input or has another suffix. tell:
    takes a line that names what a folder holds of other kinds. Raises InputError for a path that is not there, for
    what is no UTF-8 text, and for standard input named twice.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise InputError("standard input can be read once; name - only one time")
    return [document for path in paths for document in _documents(path, tell)]


def read_contexts(path: Path, *, needs_query: bool) -> Iterator[Context]:
    """The contexts of a batch file, "-" being standard input; one without an id is named by its line.

    Raises InputError, with file and line, for the first line that cannot be used.
    """
    for place, row in input_rows(path):
        try:
            question = question_from_row(row, default_id=place.rpartition(":")[2])
            documents = [labelled.document for labelled in question.documents]
            context = Context.of(question.text, documents, id=question.id)
            if needs_query:
                require_query(context)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        yield context


def skipped_files(names: Sequence[str]) -> str:
    """One line for the files of a folder that are not read."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"skipped {plural(len(names), 'file')} of other kinds: {printable(shown)}"


def _documents(path: Path, tell: Callable[[str], None]) -> Iterator[Document]:
    if path == STANDARD_INPUT:
        yield from _standard_input()
    elif path.is_dir():
        yield from read_corpus(path, skipped=lambda names: tell(skipped_files(names)))
    elif is_json_lines(path.name):
        for number, row in read_rows(path):
            yield _document(row, path.name, number, place=f"{path}:{number}")
    elif not path.exists():
        raise InputError(f"no file or folder {path}; check the path")
    elif path.suffix in (".txt", ".md") or is_page(path):
        yield from read_corpus(path)
    else:
        content = gunzipped(path.read_bytes(), str(path))
        yield from _read_content(content, str(path), str(path), id=path.name, title=path.stem)


def _standard_input() -> Iterator[Document]:
    yield from _read_content(whole_input(), "standard input", "stdin", id="stdin", title="")


def _read_content(content: bytes, place: str, named: str, *, id: str, title: str) -> Iterator[Document]:
    """One document for each of a JSON list of objects with a text, or a line where the first is such an object; else
    one document. named: how lines are told."""
    begins = content.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if begins == b"[" and (rows := _listed_documents(content)):
        for number, row in enumerate(rows, 1):
            yield _document(row, id, number, place=f"{named}[{number - 1}]")
        return
    _, first = next(split_lines(io.BytesIO(content), named), (0, "")) if begins == b"{" else (0, "")
    if not _begins_with_document(first):
        yield _whole(content, place, id=id, title=title)
        return
    for number, line in split_lines(io.BytesIO(content), named):
        at = f"{named}:{number}"
        yield _document(json_object(line, at), id, number, place=at)


def _listed_documents(content: bytes) -> list[dict[str, Any]]:
    """The objects of a JSON list, if each of them holds a text; else none."""
    try:
        rows = json.loads(content, parse_constant=constant)
    except (ValueError, RecursionError):
        return []
    return rows if isinstance(rows, list) and all(map(_holds_text, rows)) else []


def _begins_with_document(line: str) -> bool:
    try:
        return _holds_text(json.loads(line))
    except (ValueError, RecursionError):
        return False


def _holds_text(row: Any) -> bool:
    return isinstance(row, dict) and any(field in row for field in _TEXT_FIELDS)


def _document(row: dict[str, Any], name: str, number: int, *, place: str) -> Document:
    named = row if row.get("id") is not None or row.get("_id") is not None else {**row, "id": f"{name}:{number}"}
    return corpus_document(named, place)


def _whole(content: bytes, place: str, *, id: str, title: str) -> Document:
    """One document, the text of a web page where the content begins like one."""
    if not _PAGE.match(content[:_PAGE_BEGINS]):
        return Document(decoded(content, place), id=id, title=title)
    try:
        page = read_page(decode_page(content))
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"cannot read {place} as a web page: {error}") from None
    return Document(page.text, id=id, title=page.title or title, metadata={"extracted_from": "text/html"})


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
    if path == STANDARD_INPUT:
        return _standard_input()
    return read_corpus(path, skipped=lambda names: tell(skipped_files(names)))


def load_generator(spec: str, *, base_url: str | None, api_key_env: str | None) -> Generator:
    """spec: "local:PATH_OR_ID" or "openai:MODEL"; the key is read from the environment variable `api_key_env`."""
    from ctxprune import generators

    kind, _, name = spec.partition(":")
    if kind not in ("local", "openai") or not name:
        raise InputError(f"--generator must be local:PATH_OR_ID or openai:MODEL, got {spec!r}")
    if kind == "local":
        return generators.load_generator(name)
    if base_url is None:
        raise InputError(
            f"--generator {spec} needs the address of its endpoint; add --base-url http://localhost:8000/v1"
        )
    return generators.load_generator(name, base_url=base_url, api_key_env=api_key_env)


def is_file(retriever: str) -> bool:
    return is_json_lines(retriever)


def _of_sample(question: SampleQuestion) -> Asked:
    return Asked(question.question, question.answers, question.answerable)


def _read(path: Path) -> list[Asked]:
    lines = list(input_lines(path))
    rows = is_file(path.name) or (path == STANDARD_INPUT and lines[0][1].lstrip().startswith("{"))
    return [_asked(json_object(line, place), place) if rows else Asked(line.strip()) for place, line in lines]


def _asked(row: dict[str, Any], place: str) -> Asked:
    text = row.get("query") if row.get("question") is None else row["question"]
    if not isinstance(text, str):
        raise InputError(f"{place}: field 'question' (or 'query') must be a string, got {type(text).__name__}")
    answers: tuple[str, ...] = ()
    with suppress(InputError):  # answers of another form only mean that we cannot look for them
        answers = answers_from(row.get("answers", row.get("golden_answers")), "answers")
    answerable = row.get("answerable")
    return Asked(text, answers, answerable if isinstance(answerable, bool) else bool(answers) or None)
