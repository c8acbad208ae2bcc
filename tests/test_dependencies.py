"""Packages that the code imports are declared in pyproject.toml, and what they bring is pinned in constraints.txt."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_imports import modules

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Where a package is not named as the distribution that brings it.
DISTRIBUTIONS = {
    "agents": "openai-agents",
    "faiss": "faiss-cpu",
    "haystack": "haystack-ai",
    "helm_python": "helm-python-sdk",
    "llama_index": "llama-index-core",
    "re2": "google-re2",
    "yaml": "pyyaml",
}
#: What the benchmark compares with; it runs in an environment of its own, where the user has installed it.
RIVALS = {"llmlingua"}


def third_party(source: str) -> set[str]:
    """The dotted names of the modules outside of the standard library that are imported, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # "from opentelemetry import trace" and "from opentelemetry.sdk import ..." are of two distributions
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name
        for name in names
        if name.split(".")[0] not in {*sys.stdlib_module_names, "ctxprune", "benchmarks"} | RIVALS
    }


def distribution(module: str) -> str:
    first, *rest = module.split(".")
    if first == "opentelemetry":  # a namespace that distributions share
        return f"opentelemetry-{'sdk' if rest[:1] == ['sdk'] else 'api'}"
    return canonicalize_name(DISTRIBUTIONS.get(first, first))


def declared(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


CORE = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def test_the_walk_sees_hidden_imports_and_no_standard_library() -> None:
    source = "import os.path, yaml\ndef f():\n    from ray.data import Dataset\n    from ctxprune import load\n"
    assert third_party(source) == {"yaml", "ray.data.Dataset"}
    assert [distribution(name) for name in ("yaml", "ray.data.Dataset", "prometheus_client")] == [
        "pyyaml",
        "ray",
        "prometheus-client",
    ]
    assert distribution("opentelemetry.sdk.trace") == "opentelemetry-sdk"


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_of_the_package_are_declared(module: str) -> None:
    of_users = set().union(*(EXTRAS[name] for name in EXTRAS.keys() - {"dev", "all-tests"}))
    imported = {distribution(name) for name in third_party(modules()[module].read_text(encoding="utf-8"))}
    assert imported <= CORE | of_users, "add it to the dependencies or to an extra in pyproject.toml"


@pytest.mark.parametrize("folder", ["tests", "examples"])
def test_imports_of_tests_and_examples_are_declared(folder: str) -> None:
    own = {folder, *(path.stem for path in (ROOT / folder).glob("*.py"))}
    for path in sorted((ROOT / folder).glob("*.py")):
        names = {name for name in third_party(path.read_text(encoding="utf-8")) if name.split(".")[0] not in own}
        assert {distribution(name) for name in names} <= CORE.union(*EXTRAS.values()), path


def test_every_dependency_of_the_core_is_imported() -> None:
    sources = (path.read_text(encoding="utf-8") for path in modules().values())
    assert CORE - {distribution(name) for source in sources for name in third_party(source)} == set()


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The names of the installed distributions that one needs, itself included."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of an extra that is not installed here
        return
    yield name
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield from needed(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_whatever_they_bring_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==[\w.]+", line) for line in lines if not line.startswith("#")]
    assert all(pins), "one line a package: name==version"
    pinned = {canonicalize_name(pin[1]) for pin in pins if pin}
    assert len(pinned) == len(pins), "a package is pinned twice"
    assert CORE.union(*EXTRAS.values()) - pinned == {"ctxprune-rag"}
    assert set(needed("ctxprune-rag", frozenset(EXTRAS), set())) - pinned == {"ctxprune-rag"}
