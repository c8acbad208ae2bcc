"""Importing ctxprune and running its light commands loads none of the heavy libraries."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "bm25s",
    "datasets",
    "faiss",
    "fastapi",
    "langchain_core",
    "sentence_transformers",
    "torch",
    "transformers",
}
TEXT = "Bread is baked every morning. The lighthouse was built in 1887."
COMPRESS = ["compress", "-q", "When was the lighthouse built?", "--budget", "20", "--json"]


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted(name for name in sys.modules if '.' not in name)))"
    ran = subprocess.run([sys.executable, "-c", code], input=TEXT, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def command(*arguments: str) -> str:
    return f"from ctxprune.cli import main\nassert main({list(arguments)!r}) == 0"


def test_import():
    names = loaded("import ctxprune")
    assert "ctxprune" in names
    assert not names & (HEAVY | {"asyncio", "html", "onnxruntime", "rich", "sqlite3", "typer"})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compress", "--help"], ["train", "--help"], [*COMPRESS, "-c", "bm25-sentences"]]
)
def test_commands_without_a_model(arguments):
    assert not loaded(command(*arguments)) & (HEAVY | {"asyncio", "onnxruntime", "rich"})


def test_the_bundled_model():
    names = loaded(command(*COMPRESS, "-c", "provence"))
    assert "onnxruntime" in names
    assert not names & (HEAVY | {"asyncio", "rich"})


def test_pruning_a_tools_output():
    code = "from ctxprune.tools import prune_tool_output\n"
    code += "assert prune_tool_output('{\"a\": [{\"b\": 1}, {\"b\": 2}]}', 'b?', compressor='provence').kind == 'json'"
    assert not loaded(code) & (HEAVY - {"bm25s"} | {"asyncio"})
