"""Read a corpus to retrieve from: JSONL, plain text, Markdown, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.qa import read_rows
from ctxprune.types import Document

_JSONL = (".jsonl", ".jsonl.gz")
_PLAIN = (".txt", ".md")
_HEADING = re.compile(r"#{1,6}[ \t]+(.+?)[ \t#]*(?:\r?\n|$)")


def read_corpus(path: str | Path) -> Iterator[Document]:
    """The documents of a file or, in the order of their names, of every readable file below a folder.

    JSONL (.gz too): `{"id" | "_id", "text", "title"?}`, the form of BEIR, or `{"id", "contents": "title\\ntext"}`, the
    form of FlashRAG; further fields go to the metadata. A .txt or .md file is one document: its id is its path (below
    the folder), its title the Markdown heading it begins with, else its name. Streams: one document in memory.
    Raises InputError for a missing or unreadable file and for a bad line or field, which it names.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(_JSONL + _PLAIN))
        if not files:
            raise InputError(f"{path} holds no {', '.join(_JSONL + _PLAIN)} file")
        for file in files:
            yield from _read_file(file, file.relative_to(path).as_posix())
    elif path.name.endswith(_JSONL + _PLAIN):
        yield from _read_file(path, path.name)
    elif not path.exists():
        raise InputError(f"there is no file or folder {path}; check the path")
    else:
        raise InputError(f"cannot tell the form of corpus {path}; name a folder or a {', '.join(_JSONL + _PLAIN)} file")


def _read_file(path: Path, name: str) -> Iterator[Document]:
    if not path.name.endswith(_JSONL):
        yield _plain(path, name)
        return
    for number, row in read_rows(path):
        yield corpus_document(row, f"{path}:{number}")


def _plain(path: Path, name: str) -> Document:
    try:
        # bytes, so that line ends stay as they are and offsets fit the file
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    heading = _HEADING.match(text) if path.suffix == ".md" else None
    return Document(text, id=name, title=heading.group(1) if heading else path.stem)


def corpus_document(row: dict[str, Any], place: str) -> Document:
    """The document of one corpus row; `place` (file and line) begins the InputError for a bad field."""
    name = row.get("_id") if row.get("id") is None else row["id"]
    if name is None:
        raise InputError(f"{place}: field 'id' (or '_id') is missing")
    if isinstance(row.get("text"), str):
        title, text = "" if row.get("title") is None else row["title"], row["text"]
    elif isinstance(row.get("contents"), str):
        title, text = _title_and_text(row["contents"])
    else:
        raise InputError(f"{place}: needs a string field 'text', or 'contents' with the title on its first line")
    if not isinstance(title, str):
        raise InputError(f"{place}: field 'title' must be a string, got {type(title).__name__}")
    return Document(text, id=str(name), title=title, metadata=_metadata(row))


def _title_and_text(contents: str) -> tuple[str, str]:
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.strip()
    quoted = len(title) > 1 and title[0] == title[-1] == '"'  # as the published Wikipedia dumps write titles
    return (title[1:-1] if quoted else title), text


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    further = {key: value for key, value in row.items() if key not in {"id", "_id", "title", "text", "contents"}}
    nested = further.pop("metadata") or {} if isinstance(further.get("metadata", 0), dict | None) else {}
    return dict(nested | further)
