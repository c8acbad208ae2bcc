"""The light distribution: what it declares, what runs with nothing else, and the wheel in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "light" / "build.py"
TEXT = (
    "The mill stands on the Orle. It was built by Anna Pohl in 1802. Ducks swim below the wheel. "
    "Flour is sold on Saturdays from a cart by the road."
)
ANSWER = "It was built by Anna Pohl in 1802."
QUESTION = "Who built the mill?"
#: Lets nothing be imported that a light installation has not got.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
HEAVY = {
    *("torch", "transformers", "sentence_transformers", "faiss", "datasets", "pyarrow", "fastapi", "starlette"),
    *(
        "uvicorn",
        "langchain_core",
        "pydantic_settings",
        "structlog",
        "prometheus_client",
        "re2",
        "safetensors",
        "scipy",
    ),
}


def script(path: Path = SCRIPT) -> object:
    spec = importlib.util.spec_from_file_location(f"light_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_declares_few_packages_in_the_versions_of_the_full_distribution() -> None:
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    full, light = tomllib.loads(source), tomllib.loads(script().light_pyproject(source))  # type: ignore[attr-defined]
    assert light["project"]["name"] == "ctxprune-rag-light"
    assert set(light["project"]["dependencies"]) < set(full["project"]["dependencies"])
    names = {re.match(r"[\w-]+", line)[0] for line in light["project"]["dependencies"]}  # type: ignore[index]
    assert names == {"bm25s", "numpy", "onnxruntime", "rich", "sentencex", "tokenizers", "typer"}
    assert set(light["project"]["optional-dependencies"]) == {"langchain", "tokens"}
    for name in ("version", "requires-python", "scripts", "license"):
        assert light["project"][name] == full["project"][name]
    assert light["tool"]["setuptools"] == full["tool"]["setuptools"]


def run(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter that lacks the heavy packages."""
    blocker = BLOCKER.replace("BLOCKED", repr(HEAVY))
    return subprocess.run(
        [sys.executable, "-c", blocker + code], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )


def command(*arguments: str) -> str:
    return f"from ctxprune.cli import main\nsys.exit(main({list(arguments)!r}))"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compress", "-q", QUESTION, "--budget", "14", "--no-title", "--text", "mill.txt"], ANSWER),
        (["compress", "-q", QUESTION, "-c", "recomp-extractive", "--budget", "14", "--text", "mill.txt"], "Anna Pohl"),
        (["compress", "-q", QUESTION, "-c", "llmlingua2", "--rate", "0.5", "--text", "mill.txt"], "1802"),
        (["run", "-q", "When is a Flex ticket refunded?", "-k", "2", "--text"], "Flex"),
        (["models"], "provence-mini"),
    ],
)
def test_commands_need_nothing_else(arguments: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "mill.txt").write_text(TEXT, encoding="utf-8")
    ran = run(command(*arguments), tmp_path)
    assert ran.returncode == 0 and expected in ran.stdout, ran.stderr


def test_python_needs_nothing_else(tmp_path: Path) -> None:
    ran = run(f"import ctxprune\nprint(ctxprune.prune({QUESTION!r}, {TEXT!r}, budget=14))", tmp_path)
    assert ANSWER in ran.stdout and "Ducks" not in ran.stdout, ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["compress", "-q", "x", "-c", "org/name", "mill.txt"],
        ["run", "-q", "x", "--retriever", "dense"],
        ["train", "provence", "--help"],
    ],
)
def test_what_needs_more_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "mill.txt").write_text(TEXT, encoding="utf-8")
    ran = run(command(*arguments), tmp_path)
    assert ran.returncode == 1 and "pip install ctxprune-rag" in ran.stderr, ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """Needs the package index that the environments are built from."""
    built = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    wheel = Path(built.stdout.strip())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, cwd=tmp_path)
    (tmp_path / "mill.txt").write_text(TEXT, encoding="utf-8")
    arguments = ["compress", "-q", QUESTION, "--budget", "14", "--json", "mill.txt"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [tmp_path / "env" / "bin" / "ctxprune", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert ANSWER in json.loads(ran.stdout)["text"], ran.stderr
    code = f"import ctxprune; print(ctxprune.prune({QUESTION!r}, {TEXT!r}, budget=14))"
    pruned = subprocess.run([python, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert ANSWER in pruned.stdout and "Ducks" not in pruned.stdout, pruned.stderr
    files = (file for file in (tmp_path / "env" / "lib").rglob("*") if file.is_file() and "/pip/" not in str(file))
    assert sum(file.stat().st_size for file in files) < 350_000_000


def test_building_needs_no_setuptools_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh environment has none from Python 3.12 on, and an old one before; pip gets the right one where need be."""
    build = script()
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for found, enough in {"84.2.1": True, "80": True, "65.5.0": False, None: False}.items():

        def version(name: str, found: str | None = found) -> str:
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(build, "version", version)
        assert build.has_setuptools(source) is enough, found  # type: ignore[attr-defined]


def test_the_models_that_only_torch_runs_stay_behind() -> None:
    left_out = script().LEFT_OUT  # type: ignore[attr-defined]
    bundled = [path.name for path in (ROOT / "ctxprune" / "bundled").iterdir()]
    without = set(bundled) - left_out("bundled", bundled)
    only_torch = {"xrag-smollm2-mini", "xrag-smollm2-pieces"}
    assert only_torch <= set(bundled) and not only_torch & without
    assert {"provence-mini", "llmlingua2-mini", "recomp-mini", "minilm-encoder", "shared", "sample"} <= without


def installed(folder: Path, name: str, needs: list[str], files: dict[str, int]) -> None:
    """What pip leaves of a package: its files, and a record of them."""
    about = folder / f"{name.replace('-', '_')}-1.dist-info"
    about.mkdir(parents=True)
    requirements = "".join(f"Requires-Dist: {each}\n" for each in needs)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
    (about / "METADATA").write_text(head + requirements, encoding="utf-8")
    for file, size in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(bytes(size))
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in files), encoding="utf-8")


def test_sizes_are_those_of_each_package_with_what_it_brings(tmp_path: Path) -> None:
    million = 1_000_000
    files = {"ctxprune/bundled/mini/model.onnx": 3 * million, "ctxprune/types.py": million}
    installed(tmp_path, "ctxprune-rag-light", ["reader>=1", "Shell_Words", "torch; extra == 'x'"], files)
    installed(tmp_path, "reader", ["shared"], {"reader.py": 2 * million})
    installed(tmp_path, "shell-words", ["shared", "elsewhere; platform_system == 'Windows'"], {"shell.py": million})
    installed(tmp_path, "shared", ["reader"], {"shared.py": 500_000})
    installed(tmp_path, "torch", [], {"torch.so": 9 * million})
    ran = subprocess.run(
        [sys.executable, ROOT / "light" / "sizes.py", tmp_path], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[2:] == [
        "| ctxprune-rag-light, its models | 3.0 | |",
        "| reader | 2.5 | shared |",
        "| ctxprune-rag-light, its code | 1.0 | |",
        "| shell-words | 1.0 | |",
        "| together | 7.5 | |",
    ]


def test_sizes_of_an_environment_without_it_says_so(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, ROOT / "light" / "sizes.py", tmp_path], capture_output=True, text=True)
    assert ran.returncode == 1 and f"ctxprune-rag-light is not installed in {tmp_path}" in ran.stderr
