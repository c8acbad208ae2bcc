"""The pictures of the documentation show what the sources now do, and every picture that a page names is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT, pages


def script() -> Any:
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "pictures" / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: The sources stand beside the tests in a checkout, not where only the wheel is installed.
checkout = pytest.mark.skipif(not (ROOT / "ctxprune").is_dir(), reason="no sources beside the tests")


@checkout
def test_pictures_show_the_current_build() -> None:
    assert script().stale() == [], "run: python docs/pictures/make.py"


@checkout
def test_a_changed_source_makes_a_picture_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script()
    source = tmp_path / "page.css"
    source.write_text("a", encoding="utf-8")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    first = module.digest(("page.css",))
    source.write_text("b", encoding="utf-8")
    assert module.digest(("page.css",)) != first
    changed = module.digest((".",))
    source.rename(tmp_path / "other.css")
    assert module.digest((".",)) != changed


def test_pictures_that_pages_name_exist() -> None:
    for page in pages():
        for path in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"
