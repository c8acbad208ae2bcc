"""README and every page of docs: blocks run and print what stands below them, commands and links exist."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from docs_pages import ROOT, blocks, cells, commands, pages, plain, printed

import ctxprune
from ctxprune.cli import main
from ctxprune.compressors import BUILT_IN

PAGES = {page.name: page for page in pages()}
#: A score may differ by so much between processors, which round int8 products differently.
TOLERANCE = 0.06
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
#: A command at the margin, with an indented line below it.
_TORN = re.compile(r"^(pip install|ctxprune|python|make|docker|kubectl|helm) .*\n    \w", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")


def alike(one: str, other: str) -> bool:
    """Whether two outputs differ in the last digits of scores at most."""
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(float(mine) - float(theirs)) <= TOLERANCE for mine, theirs in pairs)


def test_outputs_are_compared() -> None:
    assert alike("scored 0.50, 3 of 4", "scored 0.52, 3 of 4")
    assert not alike("scored 0.50, 3 of 4", "scored 0.50, 2 of 4")
    assert not alike("scored 0.50", "scored 0.70")
    assert not alike("kept this", "kept that")


@pytest.mark.filterwarnings("ignore:.*is an experimental component")  # Haystack says so of what it documents
@pytest.mark.parametrize("name", PAGES)
def test_blocks_run_and_print_what_stands_below_them(name: str) -> None:
    for block, output, below in printed(PAGES[name]):
        expected = below.body if below is not None else ""
        assert alike(plain(output), expected), f"{block.body}\nprints\n{output}\n(python tests/docs_pages.py writes it)"


@pytest.mark.parametrize("name", PAGES)
def test_what_is_not_run_is_python_all_the_same(name: str) -> None:
    for block in blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.info == "python":
            compile(block.body, name, "exec")


@cache
def help_of(command: tuple[str, ...]) -> str:
    """What a command says of itself. Only those of trainers and benchmarks need an interpreter of their own."""
    if command[0] == "ctxprune":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main([*command[1:], "--help"]) == 0, command
        return out.getvalue()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ran = subprocess.run(
        [sys.executable, *command[1:], "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def shown_commands() -> list[tuple[str, tuple[str, ...]]]:
    return [
        (name, tuple(words))
        for name, page in PAGES.items()
        for words in commands(page.read_text(encoding="utf-8"))
        if words[0] != "make"
    ]


def subcommand(words: tuple[str, ...]) -> tuple[str, ...]:
    """The part of a command that has a help of its own."""
    if words[0] == "python":
        return words[: 4 if words[2] in ("benchmarks.risk", "benchmarks.recomp", "benchmarks.languages") else 3]
    depth = 3 if words[1:2] in (("train",), ("eval",)) and len(words) > 2 and not words[2].startswith("-") else 2
    return words[: depth if len(words) > 1 and not words[1].startswith("-") else 1]


@pytest.mark.parametrize(("name", "words"), shown_commands(), ids=lambda each: each if isinstance(each, str) else None)
def test_commands_exist_with_their_options(name: str, words: tuple[str, ...]) -> None:
    text = help_of(subcommand(words))
    options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    for option in options - {"--help"}:
        assert re.search(rf"{re.escape(option)}\b", text), f"{name}: {shlex.join(words)} has no {option}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, page in PAGES.items():
        for words in commands(page.read_text(encoding="utf-8")):
            for target in words[1:] if words[0] == "make" else ():
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{name}: make {target}"


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve()
        assert found.exists(), f"{name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in titles}, target


def test_every_compressor_is_in_the_table() -> None:
    page = PAGES["compressors.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", page, flags=re.MULTILINE)
    assert set(BUILT_IN) <= {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_rooms_of_the_architecture_are_those_of_the_tree() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = page.partition("## The rooms")[2].partition("`eval/`, `integrations/` and")[0]
    told = set(re.findall(r"`(\w[\w./]*[./][\w/]*)`", rooms))
    folders = ("ctxprune", "integrations", "eval", "trainers", "benchmarks", "light", "deploy")
    # where only the wheel is, the package holds them
    roots = [*(ROOT / name for name in folders), Path(ctxprune.__file__).parent]
    beside = (ROOT, Path(ctxprune.__file__).parents[1])
    lost = {name for name in told if not any((folder / name).exists() for folder in beside)}
    gone = {name for name in lost if not any(any(root.rglob(name)) for root in roots)}
    assert gone == set()
    folders = {f"{path.parent.name}/" for root in roots[:3] for path in root.glob("*/__init__.py")}
    assert {each for each in folders if not any(each in name for name in told)} == set()


def test_every_page_is_reached_from_the_index_and_the_navigation() -> None:
    index = PAGES["index.md"].read_text(encoding="utf-8")
    navigation = re.search(
        r"^nav:\n(.*?)^\w", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert navigation is not None
    for name in PAGES.keys() - {"README.md", "index.md"}:
        assert re.search(rf"\]\({re.escape(name)}[)#]", index), f"index.md does not lead to {name}"
        assert re.search(rf"\b{re.escape(name)}\b", navigation[1]), f"mkdocs.yml does not lead to {name}"


def test_a_command_that_is_shown_indented_has_no_sibling_in_prose() -> None:
    """A line that lost its indentation is a paragraph, in which the shell's words run together."""
    for name, page in PAGES.items():
        prose = _FENCED.sub("", page.read_text(encoding="utf-8"))
        assert not _TORN.search(prose), name


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert 120 <= len(PAGES["README.md"].read_text(encoding="utf-8").splitlines()) <= 160


def test_the_notebook_runs() -> None:
    import json

    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
    for cell, out in cells(notebook):
        shown = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        assert alike(out, shown), "".join(cell["source"])


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (extra docs)")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "ctxprune" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
