"""The public names, and that imports go one way through the layers of the package."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxprune

#: Lowest first; a module imports from its own layer and those below. Packages are named by their first part.
LAYERS = (
    {"errors"},
    {"cache", "documents", "plain", "types", "timing", "bundled", "files"},
    {"text", "runtime"},
    {"calibration", "prompt", "select", "tokens", "models"},
    {"data", "vectors", "retrievers"},
    {"compressors", "generators"},
    {"html", "outcome", "result", "pipeline", "one_call", "options", "tools"},
    {""},  # ctxprune/__init__.py
    {"cli", "eval", "integrations", "trainers"},
    {"compat"},  # a short name for the class in integrations/llmlingua
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
#: The members of this layer never import each other.
APART = LAYERS[-2]

PUBLIC = [
    "CompressionResult",
    "Compressor",
    "Context",
    "CtxpruneError",
    "Document",
    "Extract",
    "Pipeline",
    "Policy",
    "SoftTokens",
    "Span",
    "Summary",
    "TokenCounter",
    "available",
    "load",
    "load_counter",
    "prune",
    "render_prompt",
]


def roots() -> Iterator[tuple[str, Path]]:
    for package in ("ctxprune", "ctxprune.eval", "ctxprune.integrations", "ctxprune.trainers"):
        (folder,) = importlib.util.find_spec(package).submodule_search_locations
        yield package, Path(folder)


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in roots():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return found


def imported(source: str) -> set[str]:
    """Every ctxprune module that is named in an import, also one inside a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "ctxprune" else node.module for alias in node.names
            }
    return {name for name in names if name.split(".")[0] == "ctxprune"}


def files_imported(module: str, files: dict[str, Path]) -> set[str]:
    """Our modules whose code runs when this one's does: the file behind each imported name, however deep it stands."""
    names = set()
    for node in ast.walk(ast.parse(files[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parents = {name: next((at for at in _upwards(name) if at in files), None) for name in names}
    return {parent for parent in parents.values() if parent and parent != module}


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def part(module: str) -> str:
    """What stands in LAYERS for a module; names of ctxprune/__init__.py itself belong to it."""
    first = module.split(".")[1] if "." in module else ""
    return "" if first in ctxprune.__all__ or first == "__version__" else first


def test_public_names():
    assert ctxprune.__all__ == PUBLIC
    assert all(hasattr(ctxprune, name) for name in PUBLIC)


def test_the_walk_sees_hidden_imports():
    source = "import os\ndef f():\n    from ctxprune.pipeline import Pipeline\n    import ctxprune.text as t\n"
    assert imported(source + "from ctxprune import load\n") == {"ctxprune.pipeline", "ctxprune.text", "ctxprune.load"}
    assert [part(name) for name in ("ctxprune", "ctxprune.load", "ctxprune.models.hub")] == ["", "", "models"]


def test_every_module_has_a_layer():
    assert {part(module) for module in modules()} <= LEVEL.keys()
    assert len(modules()) > 60


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down(module):
    mine = part(module)
    for name in sorted(imported(modules()[module].read_text(encoding="utf-8"))):
        other = part(name)
        assert LEVEL[other] <= LEVEL[mine], f"{module} imports {name}, which stands above it"
        assert other == mine or not {mine, other} <= APART, f"{module} imports {name}, its neighbour"


def test_no_file_imports_itself_by_a_detour():
    """Imports inside functions and for type checking count, so that any file can be read with what it stands on."""
    files = modules()
    waiting = {module: files_imported(module, files) for module in files}
    while free := {module for module, needs in waiting.items() if not needs & waiting.keys()}:
        for module in free:
            del waiting[module]
    assert not waiting, f"these files import each other in a circle, or stand on one: {sorted(waiting)}"
