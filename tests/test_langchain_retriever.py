"""The LangChain retriever: k, callbacks, and the classic pipelines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fixtures_scoring import LetterCompressor
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ctxprune.errors import InputError
from ctxprune.integrations.langchain import CtxPruneCompressor, CtxPruneRetriever

TEXTS = ["b b.", "a b. b b.", "a a.", "b a b.", "a a a b."]


class Fixed(BaseRetriever):
    texts: list[str] = TEXTS

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(text, id=str(place), metadata={"place": place}) for place, text in enumerate(self.texts)]


def retriever(**options: Any) -> CtxPruneRetriever:
    return CtxPruneRetriever(retriever=Fixed(), compressor=LetterCompressor(), **options)


def test_all_documents_in_their_order_or_the_k_best() -> None:
    assert [each.id for each in retriever().invoke("q")] == ["0", "1", "2", "3", "4"]
    best = retriever(k=2).invoke("q")
    assert [(each.id, each.page_content) for each in best] == [("2", "a a."), ("4", "a a a b.")]
    assert best == asyncio.run(retriever(k=2).ainvoke("q")) == retriever().invoke("q", k=2)
    assert retriever(k=2).invoke("q", k=1) == best[:1]
    assert len(retriever(k=99).invoke("q")) == len(TEXTS)


def test_the_compressors_top_n_holds_without_k() -> None:
    compressor = CtxPruneCompressor(compressor=LetterCompressor(), top_n=1)
    assert len(CtxPruneRetriever(retriever=Fixed(), compressor=compressor).invoke("q")) == 1
    assert len(CtxPruneRetriever(retriever=Fixed(), compressor=compressor, k=3).invoke("q")) == 3


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        retriever(k=0)
    with pytest.raises(ValueError, match="must be a whole number, got True"):
        retriever(k=True)
    with pytest.raises(InputError, match="must be a whole number, got True"):
        retriever().invoke("q", k=True)
    with pytest.raises(InputError, match="at least 1, got 0"):
        retriever().invoke("q", k=0)
    with pytest.raises(InputError, match="query is empty"):
        retriever().invoke("")
    with pytest.raises(ValueError, match="soft tokens"):
        CtxPruneRetriever(retriever=Fixed(), compressor="xrag")


def test_both_runs_are_children_of_the_retrievers() -> None:
    class Runs(BaseCallbackHandler):
        parents: dict[str, Any]

        def on_retriever_start(self, serialized: Any, query: str, *, run_id: Any, name: str, **kwargs: Any) -> None:
            self.parents[name], self.parents[f"{name} id"] = kwargs.get("parent_run_id"), run_id

        def on_chain_start(self, serialized: Any, inputs: Any, *, name: str, **kwargs: Any) -> None:
            self.parents[name] = kwargs.get("parent_run_id")

    for call in (retriever().invoke, lambda *args: asyncio.run(retriever().ainvoke(*args))):
        runs = Runs()
        runs.parents = {}
        call("q", {"callbacks": [runs]})
        assert runs.parents["Fixed"] == runs.parents["CtxPruneCompressor"] == runs.parents["CtxPruneRetriever id"]


def test_langchains_own_wrappers() -> None:
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

    compressor = CtxPruneCompressor(compressor=LetterCompressor(), top_n=2)
    wrapped = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Fixed())
    assert wrapped.invoke("q") == asyncio.run(wrapped.ainvoke("q")) == retriever(k=2).invoke("q")
    narrower = CtxPruneCompressor(compressor="lead", budget=3, tokenizer="words")
    row = DocumentCompressorPipeline(transformers=[compressor, narrower])
    out = row.compress_documents(Fixed().invoke("q"), "q")
    assert [each.page_content for each in out] == ["a a.", "a"]
    assert out == list(asyncio.run(row.acompress_documents(Fixed().invoke("q"), "q")))
