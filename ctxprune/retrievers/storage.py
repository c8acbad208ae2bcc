"""Documents and settings of an index as files in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.errors import CheckpointError
from ctxprune.types import Document
from ctxprune.vectors.documents import document_from_line, document_line

DOCUMENTS = "documents.jsonl"
SETTINGS = "retriever.json"

Loaded = TypeVar("Loaded")


def write_index(folder: Path, documents: Sequence[Document], settings: dict[str, Any]) -> None:
    """Raises InputError for metadata that JSON cannot hold."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DOCUMENTS).open("wb") as lines:
        for place, document in enumerate(documents):
            lines.write(document_line(document, f"documents[{place}]"))
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_index(folder: Path, kind: str) -> tuple[tuple[Document, ...], dict[str, Any]]:
    """(documents, settings). Raises CheckpointError when the folder holds no index of this kind."""

    def load() -> tuple[tuple[Document, ...], dict[str, Any]]:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        with (folder / DOCUMENTS).open("rb") as lines:
            return tuple(map(document_from_line, lines)), settings

    documents, settings = reading(folder, load)
    if settings.get("kind") != kind:
        raise CheckpointError(f"{folder} holds a {settings.get('kind')!r} index, not a {kind!r} one")
    if settings.get("documents") != len(documents):
        raise CheckpointError(f"{folder} has {len(documents)} of {settings.get('documents')} documents; save it again")
    return documents, settings


def reading(folder: Path, load: Callable[[], Loaded]) -> Loaded:
    """The result of `load`, with any failure as a CheckpointError that names the folder."""
    try:
        return load()
    except CheckpointError:
        raise
    except Exception as error:  # damaged files fail in as many ways as the libraries that read them
        raise CheckpointError(f"cannot load a retriever from {folder}: {error}; build and save it again") from error
