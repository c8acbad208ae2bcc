"""The README's Python runs as printed, and what it names exists."""

import re
from pathlib import Path

import pytest

from ctxprune.compressors import BUILT_IN

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_keeps_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})  # our own text
    printed = capsys.readouterr().out
    assert "1911" in printed
    assert "Bicycles" not in printed
    assert "b7" in printed


def test_every_compressor_is_in_the_table() -> None:
    rows = {
        name
        for row in re.findall(r"^\| (`[^|]*`) \|", README, flags=re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }
    assert set(BUILT_IN) <= rows


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file(), path
