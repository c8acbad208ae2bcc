"""Every block of docs/langchain.md runs, each after the first, where the framework that it imports is installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "langchain.md").read_text(encoding="utf-8")
SETUP, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
OPTIONAL = ("langchain_classic", "langchain", "llama_index", "haystack")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(block: str) -> None:
    for package in OPTIONAL:
        if re.search(rf"^from {package}\b", block, flags=re.MULTILINE) and not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    exec(compile(SETUP + block, "docs/langchain.md", "exec"), {"__name__": "page"})  # our own text
