"""Read what `ctxprune compress` is given: files, folders, standard input, or a batch of contexts."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ctxprune.cli.output import note, plural, printable
from ctxprune.errors import InputError
from ctxprune.pipeline import require_query
from ctxprune.qa import json_object, question_from_row, read_rows, split_lines
from ctxprune.qa_corpus import corpus_document, is_page, read_corpus
from ctxprune.types import Context, Document
from ctxprune.webpages import decode_page, read_page

STANDARD_INPUT = Path("-")

#: How web pages begin: comments and declarations may stand before <html>, and a byte-order mark before them.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
_PAGE_BEGINS = 4096
#: Names of skipped files that one line holds.
_SHOWN = 5


def read_documents(paths: Sequence[Path], *, tell: Callable[[str], None] = note) -> list[Document]:
    """The documents of all paths, in order; "-" is standard input.

    A .jsonl[.gz] file gives one document a line, `{"text" | "contents", "id"?, "title"?}`; any other file is one
    document, a web page the text that it shows, also one that comes from standard input or has another suffix. tell:
    takes a line that names what a folder holds of other kinds. Raises InputError for a path that is not there and for
    what is no UTF-8 text.
    """
    return [document for path in paths for document in _documents(path, tell)]


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


def skipped_files(names: Sequence[str]) -> str:
    """One line for the files of a folder that are not read."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"skipped {plural(len(names), 'file')} of other kinds: {printable(shown)}"


def _documents(path: Path, tell: Callable[[str], None]) -> Iterator[Document]:
    if path == STANDARD_INPUT:
        yield from _standard_input()
    elif path.is_dir():
        yield from read_corpus(path, skipped=lambda names: tell(skipped_files(names)))
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        for number, row in read_rows(path):
            yield _document(row, path.name, number, place=f"{path}:{number}")
    elif not path.exists():
        raise InputError(f"no file or folder {path}; check the path")
    elif path.suffix in (".txt", ".md") or is_page(path):
        yield from read_corpus(path)
    else:
        yield _whole(_gunzipped(path.read_bytes(), str(path)), str(path), id=path.name, title=path.stem)


def _standard_input() -> Iterator[Document]:
    """One document a line when the first line is a JSON object with a text, else one document."""
    content = _gunzipped(sys.stdin.buffer.read(), "standard input")
    _, first = next(split_lines(io.BytesIO(content), "stdin"), (0, ""))
    if not first:
        raise InputError("standard input is empty; pipe a text into the command, or name files")
    if not _begins_with_document(first):
        yield _whole(content, "standard input", id="stdin", title="")
        return
    for number, line in split_lines(io.BytesIO(content), "stdin"):
        place = f"stdin:{number}"
        yield _document(json_object(line, place), "stdin", number, place=place)


def _gunzipped(content: bytes, place: str) -> bytes:
    """What gzip packed, told by its first bytes; anything else as it is."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {place} as gzip: {error}") from None


def _begins_with_document(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and ("text" in row or "contents" in row)


def _document(row: dict[str, Any], name: str, number: int, *, place: str) -> Document:
    named = row if row.get("id") is not None or row.get("_id") is not None else {**row, "id": f"{name}:{number}"}
    return corpus_document(named, place)


def _whole(content: bytes, place: str, *, id: str, title: str) -> Document:
    """One document, the text of a web page where the content begins like one."""
    if not _PAGE.match(content[:_PAGE_BEGINS]):
        return Document(_decoded(content, place), id=id, title=title)
    try:
        page = read_page(decode_page(content))
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"cannot read {place} as a web page: {error}") from None
    return Document(page.text, id=id, title=page.title or title, metadata={"extracted_from": "text/html"})


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text ({error.reason} at byte {error.start})") from None
