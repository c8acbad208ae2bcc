"""Any LangChain retriever with pruning behind it."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, field_validator

from ctxprune.integrations.adapter import CopiesBuiltAnew, check_top_n
from ctxprune.integrations.langchain.compressor import CtxPruneCompressor


class CtxPruneRetriever(CopiesBuiltAnew, BaseRetriever):
    """Retrieves with `retriever`, then prunes what it found for the question.

    retriever: how many documents it finds is its own setting. compressor: a `CtxPruneCompressor`, or what its
    `compressor` takes. k: return the k most relevant documents, most relevant first (None: the compressor's `top_n`);
    `invoke(question, k=...)` sets it for one call. Raises InputError for a k below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    retriever: BaseRetriever
    compressor: CtxPruneCompressor = Field(default_factory=CtxPruneCompressor)
    k: int | None = None

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
