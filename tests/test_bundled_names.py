"""What a name among the bundled models stands for."""

from __future__ import annotations

import pytest

from ctxprune.bundled import bundled_folder
from ctxprune.compressors.llmlingua.model import load_word_model
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.errors import UnknownNameError


@pytest.mark.parametrize(
    ("name", "file", "known"),
    [
        ("provence-mini", "pruner.json", True),
        ("provence-mini-multilingual", "pruner.json", True),
        ("recomp-mini", "recomp.json", True),
        ("recomp-mini", "pruner.json", False),
        ("shared/../provence-mini", "pruner.json", False),
        ("./provence-mini", "pruner.json", False),
        ("", "__init__.py", False),
        ("lantern", "pruner.json", False),
    ],
)
def test_a_bundled_model_is_known_by_name_and_kind(name: str, file: str, known: bool) -> None:
    assert (bundled_folder(name, file) is not None) is known


def test_a_folder_elsewhere_is_never_a_bundled_one(tmp_path) -> None:
    (tmp_path / "pruner.json").write_text("{}")
    assert bundled_folder(tmp_path, "pruner.json") is None


@pytest.mark.parametrize(("load", "name"), [(load_model, "llmlingua2-mini"), (load_word_model, "provence-mini")])
def test_a_bundled_model_of_another_kind_is_no_model_of_this_one(load, name) -> None:
    with pytest.raises(UnknownNameError, match=f"no model at '{name}'"):
        load(name)
