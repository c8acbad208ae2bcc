"""A framework that is not installed is named with its extra, and the LangChain adapter needs langchain-core alone."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ctxprune.errors import MissingExtraError


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [
        ("ctxprune.integrations.langchain.agents", "langchain.agents.middleware", "langchain"),
        ("ctxprune.integrations.llamaindex", "llama_index.core.postprocessor.types", "llamaindex"),
        ("ctxprune.integrations.llamaindex_agents", "llama_index.core.memory", "llamaindex"),
        ("ctxprune.integrations.haystack", "haystack", "haystack"),
        ("ctxprune.integrations.haystack_agents", "haystack.hooks.compaction.types", "haystack"),
        ("ctxprune.integrations.openai_agents", "agents.run_config", "openai-agents"),
    ],
)
def test_a_missing_framework_names_the_extra(
    module: str, framework: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(MissingExtraError, match=rf"ctxprune-rag\[{extra}\]"):
        importlib.import_module(module)


def test_the_langchain_adapter_loads_langchain_core_alone() -> None:
    code = (
        "import sys, ctxprune.integrations.langchain\n"
        "heavy = ('langchain', 'langchain_classic', 'langgraph', 'torch', 'transformers', 'onnxruntime', 'faiss')\n"
        "assert not [name for name in heavy if name in sys.modules]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
