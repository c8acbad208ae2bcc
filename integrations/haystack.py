"""Any text compressor of ctxprune as a Haystack component."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctxprune.documents import text_of
from ctxprune.errors import InputError, MissingExtraError
from ctxprune.integrations.adapter import Adapter, Compressed, all_of, own_metadata
from ctxprune.pipeline import OnError
from ctxprune.plain import finite, plain_budget, plain_threshold
from ctxprune.text import UnitKind
from ctxprune.types import Compressor, Document, TokenCounter

try:
    from haystack import Document as HaystackDocument
    from haystack import component, default_from_dict, default_to_dict
except ImportError as error:
    raise MissingExtraError("the Haystack component", "haystack") from error

_log = logging.getLogger(__name__)


@component
class CtxPruneCompressor:
    """Prunes the documents that a retriever found; documents without text go through as they are, after the others.

    The options are those of `ctxprune.integrations.langchain.CtxPruneCompressor`, whose `top_n` is `top_k` here, as in
    Haystack's rankers. Documents come out fresh under their ids (Haystack's ids are of the text that came in), with the
    relevance as their score where the compressor judges documents, and `meta["ctxprune"]` (kept_spans into the text
    that came in, tokens before and after, status). The embedding, which was of the whole text, stays. The model is
    loaded by `warm_up`, or by the first run; that is where the options are checked. Saving with `to_dict` works for
    compressors and tokenizers given by name; Haystack loads a saved pipeline with
    `allowed_modules=["ctxprune.integrations.haystack"]`.
    """

    def __init__(
        self,
        compressor: str | Compressor = "provence",
        *,
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        top_k: int | None = None,
        tokenizer: str | TokenCounter | None = None,
        calibration: str | None = None,
        language: str | None = None,
        units: UnitKind | None = None,
        drop_empty: bool = False,
        title_key: str | None = "title",
        on_error: OnError = "raise",
    ) -> None:
        self._options: dict[str, Any] = {
            "threshold": threshold,
            "operating_point": operating_point,
            "budget": budget,
            "top_k": top_k,
            "tokenizer": tokenizer,
            "calibration": calibration,
            "language": language,
            "units": units,
            "drop_empty": drop_empty,
            "on_error": on_error,
        }
        if title_key is not None and not isinstance(title_key, str):
            raise InputError(f"title_key must be the name of a metadata field or None, got {title_key!r:.80}")
        self._compressor = compressor
        self._title_key = title_key
        self._adapter: Adapter | None = None

    def warm_up(self) -> None:
        """Load the compressor. Raises what `Adapter` raises for an option that cannot be."""
        self._loaded()

    @component.output_types(documents=list[HaystackDocument])
    def run(self, query: str, documents: list[HaystackDocument], top_k: int | None = None) -> dict[str, Any]:
        """{"documents": the documents pruned for `query`}. top_k: for this run (None: as the component was built).

        Raises InputError for an empty query where the compressor needs one.
        """
        documents = all_of(HaystackDocument, documents, name="documents")
        texts = [document for document in documents if document.content is not None]
        ours = [_document(document, self._title_key) for document in texts]
        compressed = self._loaded().compress(query, ours, top_n=top_k)
        pruned = [_pruned(each, [texts[index] for index in each.indices]) for each in compressed]
        others = [document for document in documents if document.content is None]
        if others:
            _log.info("passed on as they came, for they have no text: %d of %d documents", len(others), len(documents))
        return {"documents": pruned + others}

    @component.output_types(documents=list[HaystackDocument])
    async def run_async(
        self, query: str, documents: list[HaystackDocument], top_k: int | None = None
    ) -> dict[str, Any]:
        """`run` in a worker thread; the event loop stays free."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def to_dict(self) -> dict[str, Any]:
        """Raises InputError for a compressor or tokenizer that was not given by name."""
        for value in (self._compressor, self._options["tokenizer"]):
            if value is not None and not isinstance(value, str):
                raise InputError(
                    f"{type(value).__name__} cannot be saved; give the compressor and the tokenizer by name"
                )
        options = {"compressor": self._compressor, "title_key": self._title_key, **self._options}
        options |= {"threshold": plain_threshold(options["threshold"]), "budget": plain_budget(options["budget"])}
        if isinstance(options["calibration"], Path):
            options["calibration"] = str(options["calibration"])
        saved: dict[str, Any] = default_to_dict(self, **options)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CtxPruneCompressor:
        loaded: CtxPruneCompressor = default_from_dict(cls, data)
        return loaded

    def _loaded(self) -> Adapter:
        if self._adapter is None:
            options = {name: value for name, value in self._options.items() if name != "top_k"}
            self._adapter = Adapter(self._compressor, top_n=self._options["top_k"], **options)
        return self._adapter


def _document(document: HaystackDocument, title_key: str | None) -> Document:
    return Document(
        document.content or "",
        id=document.id,
        title="" if title_key is None else text_of(document.meta.get(title_key)),
        score=finite(document.score),
    )


def _pruned(compressed: Compressed, sources: Sequence[HaystackDocument]) -> HaystackDocument:
    if len(sources) != 1:
        return HaystackDocument(content=compressed.text, meta={"ctxprune": compressed.report}, score=compressed.score)
    [source] = sources
    score = source.score if compressed.score is None else compressed.score
    meta = {**own_metadata(source.meta), "ctxprune": compressed.report}
    return replace(source, content=compressed.text, meta=meta, score=score)
