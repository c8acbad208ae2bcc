"""LangChain's own suite for retrievers, as it is; the plug-in of anyio, which starlette brings, runs its coroutine."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures_scoring import LetterCompressor
from langchain_core.retrievers import BaseRetriever
from test_langchain_retriever import Fixed

from ctxprune.integrations.langchain import CtxPruneRetriever

pytest.importorskip("langchain_tests", reason="needs langchain-tests")
from langchain_tests.integration_tests import RetrieversIntegrationTests


@pytest.mark.anyio
class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return CtxPruneRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": Fixed(), "compressor": LetterCompressor()}

    @property
    def retriever_query_example(self) -> str:
        return "which letter?"
