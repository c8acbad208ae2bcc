"""What a LangChain document compressor owes its users, as a pytest class for anybody's compressor.

Subclass it, name the class `Test...`, and override `compressor`; the documents and the question may be overridden too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

from langchain_core.documents import BaseDocumentCompressor, Document

QUERY = "When was the Harrow Bridge opened?"


class CompressorConformance:
    """Every test runs on `documents`: two of the same id, one without an id, one empty, metadata of several types."""

    query: str = QUERY
    #: Set by those who may return other texts than slices of what came in, such as summaries.
    verbatim: bool = True

    def compressor(self) -> BaseDocumentCompressor:
        """A fresh compressor that drops no document unless all its text goes."""
        raise NotImplementedError("override compressor() and return the compressor to test")

    def documents(self) -> list[Document]:
        bridge = "The bridge is of granite. It was opened in 1911. Swallows nest under it."
        return [
            Document(bridge, id="same", metadata={"title": "Harrow Bridge", "tags": ["stone", {"year": 1911}]}),
            Document("The ferry runs every hour. Bicycles travel free.", id="same", metadata={"title": 7, "page": 3}),
            Document("", id="empty", metadata={"title": None}),
            Document("Le pont est en granit. Il a été ouvert en 1911.", metadata={"big": "x" * 100_000}),
        ]

    def test_the_input_stays_as_it_was(self) -> None:
        documents = self.documents()
        before = copy.deepcopy(documents)
        self.compressor().compress_documents(documents, self.query)
        assert documents == before

    def test_documents_come_out_fresh(self) -> None:
        documents = self.documents()
        for document in self.compressor().compress_documents(documents, self.query):
            assert all(document is not source for source in documents)
            assert all(document.metadata is not source.metadata for source in documents)

    def test_ids_and_metadata_survive(self) -> None:
        documents = self.documents()
        for document in self.compressor().compress_documents(documents, self.query):
            assert any(_carries(document, source) for source in documents)

    def test_text_is_taken_from_the_document(self) -> None:
        if not self.verbatim:
            return
        documents = self.documents()
        for document in self.compressor().compress_documents(documents, self.query):
            words = document.page_content.split()
            assert any(_carries(document, each) and _in_order(words, each.page_content) for each in documents)

    def test_no_documents_are_no_error(self) -> None:
        assert list(self.compressor().compress_documents([], self.query)) == []

    def test_documents_without_text_are_no_error(self) -> None:
        out = self.compressor().compress_documents([Document(""), Document(" \n ")], self.query)
        assert all(not document.page_content.strip() for document in out)

    def test_the_same_twice(self) -> None:
        compressor = self.compressor()
        first = compressor.compress_documents(self.documents(), self.query)
        assert _contents(compressor.compress_documents(self.documents(), self.query)) == _contents(first)

    def test_async_is_the_same(self) -> None:
        compressor = self.compressor()
        out = asyncio.run(_together(compressor, self.documents(), self.query, times=4))
        expected = _contents(compressor.compress_documents(self.documents(), self.query))
        assert [_contents(each) for each in out] == [expected] * 4


def _carries(document: Document, source: Document) -> bool:
    """Whether `document` has the id and all the metadata of `source`."""
    kept = {key: value for key, value in document.metadata.items() if key in source.metadata}
    return document.id == source.id and kept == source.metadata


def _in_order(words: Sequence[str], text: str) -> bool:
    place = 0
    for word in words:
        place = text.find(word, place)
        if place < 0:
            return False
        place += len(word)
    return True


def _contents(documents: Sequence[Document]) -> list[tuple[str | None, str]]:
    return [(document.id, document.page_content) for document in documents]


async def _together(
    compressor: BaseDocumentCompressor, documents: list[Document], query: str, *, times: int
) -> list[Sequence[Document]]:
    return await asyncio.gather(*(compressor.acompress_documents(documents, query) for _ in range(times)))
