"""LangChain documents to ours and back; nothing that comes in is changed."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document as LangChainDocument

from ctxprune.documents import text_of
from ctxprune.errors import InputError
from ctxprune.integrations.adapter import Compressed, own_metadata
from ctxprune.plain import finite
from ctxprune.types import Document as OwnDocument

SCORE_KEYS = ("score", "relevance_score")


def from_langchain(documents: Sequence[LangChainDocument], *, title_key: str | None) -> list[OwnDocument]:
    """title_key: the metadata field with the title (None: no titles). Metadata stays where it is.

    Raises InputError for anything but a sequence of LangChain documents.
    """
    given: object = documents
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"documents must be a sequence of LangChain documents, got {type(documents).__name__}")
    for place, document in enumerate(documents):
        if not isinstance(document, LangChainDocument):
            raise InputError(
                f"documents[{place}] must be a langchain_core.documents.Document, got {type(document).__name__}"
            )
    return [_document(document, title_key) for document in documents]


def to_langchain(compressed: Sequence[Compressed], documents: Sequence[LangChainDocument]) -> list[LangChainDocument]:
    """Fresh documents with the id and metadata of those they came from, plus `relevance_score` and `ctxprune`.

    A summary of several documents has neither id nor metadata of theirs; its report names them.
    """
    return [_compressed(each, [documents[index] for index in each.indices]) for each in compressed]


def _document(document: LangChainDocument, title_key: str | None) -> OwnDocument:
    metadata = document.metadata
    scores = (finite(metadata.get(key)) for key in SCORE_KEYS)
    return OwnDocument(
        document.page_content,
        id=document.id or "",
        title="" if title_key is None else text_of(metadata.get(title_key)),
        score=next((score for score in scores if score is not None), None),
    )


def _compressed(compressed: Compressed, sources: list[LangChainDocument]) -> LangChainDocument:
    added = {} if compressed.score is None else {"relevance_score": compressed.score}
    if len(sources) != 1:
        return LangChainDocument(page_content=compressed.text, metadata={**added, "ctxprune": compressed.report})
    [source] = sources
    metadata = {**own_metadata(source.metadata), **added, "ctxprune": compressed.report}
    return source.model_copy(update={"page_content": compressed.text, "metadata": metadata})
