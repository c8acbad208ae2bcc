"""A text compressor of ctxprune as a LangChain compressor, transformer and runnable, and behind a retriever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field, PrivateAttr, field_validator

from ctxprune.errors import InputError
from ctxprune.integrations.adapter import Adapter, CopiesBuiltAnew, check_top_n
from ctxprune.integrations.langchain.convert import from_langchain, to_langchain
from ctxprune.integrations.numbers import Number, Whole
from ctxprune.pipeline import OnError
from ctxprune.prompt import DOCUMENT_SEPARATOR
from ctxprune.text import UnitKind

#: Where a mapping may hold the question and the documents; the first key that is there counts.
QUERY_KEYS = ("question", "query", "input")
DOCUMENT_KEYS = ("documents", "context")


class CtxPruneCompressor(
    CopiesBuiltAnew, BaseDocumentCompressor, BaseDocumentTransformer, RunnableSerializable[Any, Any]
):
    """Prunes documents for a question. Immutable, and safe to call from several threads and tasks.

    compressor: a name, checkpoint folder or hub id (see `ctxprune.load`), or a compressor. threshold: units scoring
    below are removed. operating_point: "safe", "balanced" or "aggressive", in place of a threshold. budget: tokens of
    all documents of a call together, titles and separators included. top_n: leave only the most relevant documents,
    most relevant first. query: for `transform_documents` and for lists of documents in a chain, which bring no
    question. tokenizer: a token counter or its name (see `ctxprune.load_counter`). calibration: a file of
    risk-controlled calibration. language: of the documents, e.g. "de" (None: each one's is guessed). units: what to
    choose among, "sentences", "lines", "records" or "paragraphs" (None: by the shape of the text). drop_empty: leave
    out documents of which nothing is kept; by default they come out empty, one document out for each that went in.
    title_key: the metadata field with the title, which the compressor reads and the budget counts (None: no titles).
    on_error: "passthrough" returns the documents as they came, with status "degraded", when a compressor fails.

    Documents come out fresh, with id and metadata as they were, and in the metadata `relevance_score` (of compressors
    that judge documents) and `ctxprune`: index, kept_spans (character offsets into the text that came in), status,
    tokens_before, tokens_after (of the text alone), tokenizer, exact.
    Bad options fail here and not at the first call: as pydantic's ValidationError, whose message names value and limit,
    or with what loading the compressor raises.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    compressor: Any = "provence"
    threshold: Number | None = None
    operating_point: str | None = None
    budget: Whole | None = None
    top_n: Whole | None = None
    query: str | None = None
    tokenizer: Any = None
    calibration: str | Path | Any = None
    language: str | None = None
    units: UnitKind | None = None
    drop_empty: bool = False
    title_key: str | None = "title"
    on_error: OnError = "raise"

    _adapter: Adapter = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._adapter = Adapter.of(self)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None, *, top_n: int | None = None
    ) -> list[Document]:
        """The documents pruned for `query`; the run shows in `callbacks` under this compressor's name.

        top_n: for this call (None: this compressor's own). Raises InputError for an empty query where the compressor
        needs one.
        """
        inputs = {"query": query, "documents": documents, "top_n": top_n}
        pruned: list[Document] = self._call_with_config(self._prune, inputs, {"callbacks": callbacks}, run_type="chain")
        return pruned

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None, *, top_n: int | None = None
    ) -> list[Document]:
        """`compress_documents` in a worker thread; the event loop stays free."""
        inputs = {"query": query, "documents": documents, "top_n": top_n}
        pruned: list[Document] = await self._acall_with_config(
            self._aprune, inputs, {"callbacks": callbacks}, run_type="chain"
        )
        return pruned

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """The documents pruned for `query=`, or for the query that this compressor was built with.

        Raises InputError when the compressor needs a query and has none, and for any other keyword.
        """
        return self.compress_documents(documents, self._query(**kwargs))

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """`transform_documents` in a worker thread; the event loop stays free."""
        return await self.acompress_documents(documents, self._query(**kwargs))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """A step of a chain.

        input: a list of documents (pruned for `query=` or this compressor's own query), which gives a list; or a
        mapping with the question under "question", "query" or "input" and the documents under "documents" or "context",
        which gives a copy of it with the documents pruned. Beside "documents" it also gets "context", the text for the
        prompt. Raises InputError where a question or documents are missing, and for keywords that nobody reads.
        """
        return self._call_with_config(self._step, input, config, run_type="chain", **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`invoke` in a worker thread; the event loop stays free."""
        return await self._acall_with_config(self._astep, input, config, run_type="chain", **kwargs)

    def _pruned(self, query: str, documents: Sequence[Document], top_n: int | None = None) -> list[Document]:
        came = tuple(documents) if isinstance(documents, list) else documents  # the caller's list may change meanwhile
        ours = from_langchain(came, title_key=self.title_key)
        return to_langchain(self._adapter.compress(query, ours, top_n=top_n), came)

    # what LangChain's frame calls may take only the input, callbacks and config by position

    def _prune(self, inputs: dict[str, Any]) -> list[Document]:
        return self._pruned(**inputs)

    async def _aprune(self, inputs: dict[str, Any]) -> list[Document]:
        return await asyncio.to_thread(self._pruned, **inputs)

    def _step(self, input: Any, **kwargs: Any) -> Any:
        if not isinstance(input, Mapping):
            return self._pruned(self._query(**kwargs), input)
        if kwargs:
            raise InputError(f"unknown keyword {', '.join(kwargs)}; a mapping brings its question and takes no keyword")
        query_key, documents_key = _keys(input)
        pruned = self._pruned(input[query_key], input[documents_key])
        return {**input, **({"context": joined(pruned)} if documents_key != "context" else {}), documents_key: pruned}

    async def _astep(self, input: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self._step, input, **kwargs)

    def _query(self, **kwargs: Any) -> str:
        query = kwargs.pop("query", None)
        query = self.query if query is None else query
        if kwargs:
            raise InputError(f"unknown keyword {', '.join(kwargs)}; the only one is query=")
        if query is None and self._adapter.needs_query:
            raise InputError(
                f"{self._adapter.compressor.name} prunes for a question, and a list of documents brings none: pass "
                'query= here or to CtxPruneCompressor(query=...), use CtxPruneRetriever, or give {"question": ..., '
                '"documents": ...}; or take a compressor that reads no question, such as "lead"'
            )
        return query or ""


def joined(documents: Sequence[Document]) -> str:
    """The texts for the prompt, joined by a blank line; empty ones are left out."""
    return DOCUMENT_SEPARATOR.join(each.page_content for each in documents if each.page_content.strip())


def _keys(input: Mapping[str, Any]) -> tuple[str, str]:
    """The keys of the question and of the documents."""
    query = next((key for key in QUERY_KEYS if isinstance(input.get(key), str)), None)
    documents = next((key for key in DOCUMENT_KEYS if isinstance(input.get(key), list | tuple)), None)
    if query is None or documents is None:
        keys = QUERY_KEYS if query is None else DOCUMENT_KEYS
        missing = "question, a string," if query is None else "list of documents"
        raise InputError(
            f"no {missing} under any of {', '.join(keys)}; "
            f"the input's keys are {', '.join(map(str, input)) or '(none)'}"
        )
    return query, documents


class CtxPruneRetriever(CopiesBuiltAnew, BaseRetriever):
    """Retrieves with `retriever`, then prunes what it found for the question.

    retriever: how many documents it finds is its own setting. compressor: a `CtxPruneCompressor`, or what its
    `compressor` takes. k: return the k most relevant documents, most relevant first (None: the compressor's `top_n`);
    `invoke(question, k=...)` sets it for one call. Raises InputError for a k below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    retriever: BaseRetriever
    compressor: CtxPruneCompressor = Field(default_factory=CtxPruneCompressor)
    k: Whole | None = None

    @field_validator("compressor", mode="before")
    @classmethod
    def _wrapped(cls, compressor: Any) -> Any:
        return compressor if isinstance(compressor, CtxPruneCompressor) else CtxPruneCompressor(compressor=compressor)

    def model_post_init(self, context: Any, /) -> None:
        check_top_n(self.k)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        found = self.retriever.invoke(query, {"callbacks": callbacks})
        return self.compressor.compress_documents(found, query, callbacks, top_n=self.k if k is None else k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        callbacks = run_manager.get_child()
        found = await self.retriever.ainvoke(query, {"callbacks": callbacks})
        return await self.compressor.acompress_documents(found, query, callbacks, top_n=self.k if k is None else k)
