"""The built wheel holds every module, the bundled files, the type marker, the licence and the command."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "ctxprune": "ctxprune",
    "eval": "ctxprune/eval",
    "integrations": "ctxprune/integrations",
    "trainers": "ctxprune/trainers",
}
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no earlier build can lend it files and none stays behind."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(source / "out" / built.stdout.splitlines()[-1]) as archive:
        yield archive


def wanted(name: str) -> bool:
    static = ("ctxprune/bundled/", "ctxprune/integrations/server/playground/")
    return name.endswith((".py", "py.typed")) or name.startswith(static)


def in_source() -> set[str]:
    found = set()
    for folder, package in PACKAGES.items():
        files = (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        found |= {f"{package}/{file.relative_to(ROOT / folder).as_posix()}" for file in files}
    return set(filter(wanted, found))


def test_holds_the_source_tree_and_nothing_else(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert in_source() - packed == set(), "missing in the wheel: add the package to pyproject.toml"
    assert packed - in_source() == set()


def test_holds_what_users_need(wheel):
    needed = {
        "ctxprune/py.typed",
        "ctxprune/bundled/sample/corpus.jsonl",
        "ctxprune/bundled/sample/questions.jsonl",
        "ctxprune/bundled/provence-mini/model.onnx",
        "ctxprune/bundled/provence-mini/pruner.json",
        "ctxprune/bundled/provence-mini-multilingual/model.onnx",
        "ctxprune/bundled/provence-mini-multilingual/tokenizer.json",
        "ctxprune/bundled/shared/e5-small.safetensors",
        "ctxprune/bundled/shared/minilm-l6.safetensors",
        "ctxprune/bundled/shared/minilm-l6.tokenizer.json",
        "ctxprune/bundled/minilm-encoder/model.onnx",
        "ctxprune/bundled/llmlingua2-mini/model.onnx",
        "ctxprune/eval/__init__.py",
        "ctxprune/integrations/__init__.py",
        "ctxprune/integrations/server/playground/index.html",
        "ctxprune/trainers/provence/train.py",
    }
    assert needed - set(wheel.namelist()) == set()


def test_is_no_larger_than_it_says(wheel):
    """Compressed; and no file of it is too large for the usual hosts of repositories."""
    assert sum(entry.compress_size for entry in wheel.infolist()) < 90e6
    assert max(entry.file_size for entry in wheel.infolist()) < 25e6


def test_carries_licence_notice_and_command(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "ctxprune = ctxprune.cli:main" in wheel.read(entry_points).decode()
    licences = {Path(name).name for name in wheel.namelist() if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
