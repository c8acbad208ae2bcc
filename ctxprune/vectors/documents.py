"""A document as an embedder sees it, and as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import fields

from ctxprune.errors import InputError
from ctxprune.types import Document


def indexed_text(document: Document, *, titles: bool = True) -> str:
    """What an index sees of a document: with titles, the title on a line of its own, then the text."""
    return f"{document.title}\n{document.text}" if titles and document.title else document.text


def document_line(document: Document, place: str) -> bytes:
    """ASCII with a line feed; `place` begins the InputError for metadata that JSON cannot hold."""
    # not `asdict`, which copies deeply and takes longer than all the rest
    row = {field.name: getattr(document, field.name) for field in fields(document)}
    try:
        # ASCII only: a lone surrogate has no UTF-8
        return (json.dumps({**row, "metadata": dict(document.metadata)}) + "\n").encode("ascii")
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot save {place} with id {document.id!r}: {error}") from None


def document_from_line(line: bytes | str) -> Document:
    return Document(**json.loads(line))
