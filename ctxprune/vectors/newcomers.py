"""Which documents of those given a vector store lacks, and which it must refuse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxprune.errors import InputError
from ctxprune.types import Document
from ctxprune.vectors.digests import digest, digests
from ctxprune.vectors.documents import indexed_text
from ctxprune.vectors.snapshot import Snapshot


class Newcomers:
    """Called with one batch after another; remembers, 16 bytes each, what came before.

    A document is known by its id or, without one, by its text. Raises InputError for a document without text, an id
    that comes twice, and an id that the store holds with another text.
    """

    def __init__(self, store: Snapshot) -> None:
        self._store = store
        self._seen: set[bytes] = set()
        self._count = 0

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Those that are new, in order."""
        for document in documents:
            self._check(document)
        texts = [indexed_text(document, titles=self._store.manifest.titles) for document in documents]
        by_id = self._store.find_ids([document.id for document in documents])
        self._refuse_changed(documents, texts, by_id)
        known = np.where([bool(document.id) for document in documents], by_id, self._store.find_texts(texts)) >= 0
        pairs = zip(documents, texts, known, strict=True)
        return [document for document, text, there in pairs if not there and self._first(document, text)]

    def _check(self, document: Document) -> None:
        if not isinstance(document, Document):
            raise InputError(f"documents[{self._count}] must be a Document, got {type(document).__name__}")
        if not document.text.strip():
            raise InputError(f"documents[{self._count}] with id {document.id!r} has no text to embed; leave it out")
        self._count += 1

    def _refuse_changed(self, documents: Sequence[Document], texts: Sequence[str], by_id: np.ndarray) -> None:
        places = np.flatnonzero(by_id >= 0).tolist()
        stored = self._store.text_digests(by_id[places])
        given = digests([texts[place] for place in places])
        changed = (stored != given).any(axis=1)
        if changed.any():
            name = documents[places[int(np.argmax(changed))]].id
            raise InputError(
                f"the id {name!r} is in {self._store.folder} with another text; give the new text "
                "an id of its own, or build the store again"
            )

    def _first(self, document: Document, text: str) -> bool:
        """False for the repeated text of a document without id."""
        key = digest(f"id\0{document.id}" if document.id else f"text\0{text}")
        if key in self._seen and document.id:
            raise InputError(f"the id {document.id!r} comes twice; give each document an id of its own, or none")
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh
