"""The pages of the documentation as code: their blocks, what these print, and a command that writes the outputs anew.

python tests/docs_pages.py          # run every block and put what it prints below it
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Blocks of these run in tests of their own, where a framework may be missing.
ELSEWHERE = {"langchain.md", "migrating.md"}
#: A block that imports one of these runs where it is installed.
_FRAMEWORK = re.compile(r"^from (agents|haystack|llama_index)\b", re.MULTILINE)
_FENCE = re.compile(
    r"(?P<note><!-- not run: [^>]+ -->\n)?^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_SECONDS = re.compile(r"\d+\.\d{3} s\b")
#: A command, with the lines that a backslash joins to it.
_COMMAND = re.compile(r"((?:ctxprune|python -m (?:ctxprune|benchmarks)\S*|make) (?:[^\n\\]|\\[^\n]|\\\n)*)")


@dataclass(frozen=True, slots=True)
class Block:
    """info: what stands behind the opening fence. start, end: of the whole block in the page."""

    info: str
    body: str
    runs: bool
    start: int
    end: int


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    return [
        Block(found["info"].strip(), found["body"], found["note"] is None, found.start(), found.end())
        for found in _FENCE.finditer(text)
    ]


def printed(page: Path) -> Iterator[tuple[Block, str, Block | None]]:
    """(block, what it prints, the block of text below it that says so), for every block of a page that runs.

    Python blocks share their names; commands run in a folder with the files that the page shows.
    """
    found = blocks(page.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "page"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block, below in zip(found, [*found, None][1:], strict=True):
            kind, _, file = block.info.partition(" file=")
            if file:
                Path(file).write_text(block.body, encoding="utf-8")
            elif not block.runs or (kind == "python" and (page.name in ELSEWHERE or _lacks_framework(block))):
                continue
            elif kind == "python":
                expected = below if below is not None and below.info == "text" else None
                yield block, _output(block.body, names, page), expected
            elif kind == "console":
                yield block, "".join(map(_console, block.body.splitlines())), block


def _lacks_framework(block: Block) -> bool:
    return any(importlib.util.find_spec(name) is None for name in _FRAMEWORK.findall(block.body))


def _output(code: str, names: dict[str, Any], page: Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, page.name, "exec"), names)  # our own text
    return out.getvalue()


def _console(line: str) -> str:
    """A command with what it prints; "" for a line of output."""
    if not line.startswith("$ "):
        return ""
    from ctxprune.cli import main

    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "ctxprune", line
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(arguments) == 0, line
    return f"{line}\n{plain(out.getvalue())}"


def plain(output: str) -> str:
    """Without what differs from run to run."""
    return _SECONDS.sub("0.050 s", output)


def commands(text: str) -> list[list[str]]:
    """The commands that a page shows, indented by four or in a block of sh, as the shell splits them."""
    parts = [line.removeprefix("    ") if line.startswith("    ") else "" for line in _FENCE.sub("", text).split("\n")]
    parts += [block.body for block in blocks(text) if block.info == "sh"]
    shown = "\n".join(parts)
    starts = (found for found in _COMMAND.finditer(shown) if found.start() == 0 or shown[found.start() - 1] == "\n")
    return [shlex.split(found[1].replace("\\\n", " "), comments=True) for found in starts]


def rewrite(page: Path) -> bool:
    """Put what the blocks print below them; whether anything changed."""
    text = old = page.read_text(encoding="utf-8")
    for block, output, below in reversed(list(printed(page))):
        if below is not None:
            text = text[: below.start] + f"```{below.info}\n{plain(output)}```" + text[below.end :]
        elif output:
            text = text[: block.end] + f"\n\n```text\n{plain(output)}```" + text[block.end :]
    page.write_text(text, encoding="utf-8")
    return text != old


def cells(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each code cell of a notebook, run in order, with what it prints."""
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("".join(cell["source"]), "first_steps.ipynb", "exec"), names)  # our own text
            yield cell, plain(out.getvalue())


def rewrite_notebook(path: Path) -> bool:
    """Put what the cells print below them; whether anything changed."""
    old = path.read_text(encoding="utf-8")
    notebook = json.loads(old)
    for cell, printed_text in cells(notebook):
        for output in cell["outputs"]:
            output["text"] = printed_text.splitlines(keepends=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return text != old


if __name__ == "__main__":
    os.environ["NO_COLOR"] = "1"
    for each in pages():
        if rewrite(each):
            sys.stdout.write(f"{each.relative_to(ROOT)}\n")
    if rewrite_notebook(ROOT / "examples" / "first_steps.ipynb"):
        sys.stdout.write("examples/first_steps.ipynb\n")
