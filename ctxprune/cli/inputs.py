"""Read what `ctxprune compress` is given: files, folders, standard input, or a batch of contexts."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctxprune.cli.output import plural, printable
from ctxprune.errors import InputError
from ctxprune.pipeline import require_query
from ctxprune.qa import json_object, question_from_row, read_rows, split_lines
from ctxprune.qa_corpus import corpus_document, is_page, read_corpus
from ctxprune.types import Context, Document

STANDARD_INPUT = Path("-")

#: Names of skipped files that one line holds.
_SHOWN = 5


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """The documents of all paths, in order; "-" is standard input.

    A .jsonl[.gz] file gives one document a line, `{"text" | "contents", "id"?, "title"?}`; any other file is one
    document, a web page the text that it shows. What a folder holds of other kinds is named on stderr.
    Raises InputError for a path that is not there and for what is no UTF-8 text.
    """
    return [document for path in paths for document in _documents(path)]


def read_contexts(path: Path, *, needs_query: bool) -> Iterator[Context]:
    """The contexts of a batch file; one without an id is named by its line.

    Raises InputError, with file and line, for the first line that cannot be used.
    """
    for number, row in read_rows(path):
        try:
            question = question_from_row(row, default_id=str(number))
            documents = [labelled.document for labelled in question.documents]
            context = Context.of(question.text, documents, id=question.id)
            if needs_query:
                require_query(context)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        yield context


def tell_skipped(names: Sequence[str]) -> None:
    """One line on stderr for the files of a folder that are not read."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    sys.stderr.write(f"skipped {plural(len(names), 'file')} of other kinds: {printable(shown)}\n")


def _documents(path: Path) -> Iterator[Document]:
    if path == STANDARD_INPUT:
        yield from _standard_input()
    elif path.is_dir():
        yield from read_corpus(path, skipped=tell_skipped)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        for number, row in read_rows(path):
            yield _document(row, path.name, number, place=f"{path}:{number}")
    elif not path.exists():
        raise InputError(f"no file or folder {path}; check the path")
    elif path.suffix in (".txt", ".md") or is_page(path):
        yield from read_corpus(path)
    else:
        yield Document(_decoded(path.read_bytes(), str(path)), id=path.name, title=path.stem)


def _standard_input() -> Iterator[Document]:
    """One document a line when the first line is a JSON object with a text, else one document."""
    content = _gunzipped(sys.stdin.buffer.read())
    _, first = next(split_lines(io.BytesIO(content), "stdin"), (0, ""))
    if not first:
        raise InputError("standard input is empty; pipe a text into the command, or name files")
    if not _begins_with_document(first):
        yield Document(_decoded(content, "standard input"), id="stdin")
        return
    for number, line in split_lines(io.BytesIO(content), "stdin"):
        place = f"stdin:{number}"
        yield _document(json_object(line, place), "stdin", number, place=place)


def _gunzipped(content: bytes) -> bytes:
    """`ctxprune compress QUESTION < passages.jsonl.gz` reads what the file as an argument gives."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read standard input as gzip: {error}") from None


def _begins_with_document(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and ("text" in row or "contents" in row)


def _document(row: dict[str, Any], name: str, number: int, *, place: str) -> Document:
    named = row if row.get("id") is not None or row.get("_id") is not None else {**row, "id": f"{name}:{number}"}
    return corpus_document(named, place)


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text ({error.reason} at byte {error.start})") from None
