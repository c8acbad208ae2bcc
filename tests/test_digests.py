"""Digests of weights: a changed bit is told at load, an older export without digests still loads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import ctxprune.bundled
from ctxprune.compressors.llmlingua.model import WordModel
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.recomp.vectors import load_export
from ctxprune.errors import CheckpointError
from ctxprune.runtime import weights as digests
from ctxprune.runtime.weights import DIGESTS, check_digest, main, write_digests

BUNDLED = Path(ctxprune.bundled.__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "model"
    shutil.copytree(BUNDLED / "provence-mini", copied)
    (copied / DIGESTS).unlink(missing_ok=True)
    return copied


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_without_digests_a_model_loads(folder: Path) -> None:
    assert PrunerModel.from_export(folder).max_length > 0


@pytest.mark.parametrize(("share", "bit"), [(0.1, 0), (0.5, 3), (0.9, 7)])
def test_one_changed_bit_is_told_with_the_next_step(folder: Path, share: float, bit: int) -> None:
    write_digests(folder)
    PrunerModel.from_export(folder)
    path = folder / "model.onnx"
    flip(path, int(share * path.stat().st_size), bit)
    with pytest.raises(CheckpointError, match=r"model\.onnx is not the file that digests\.json .*runtime\.weights"):
        PrunerModel.from_export(folder)
    assert main([str(folder)]) == 0
    check_digest(path)


def test_a_file_is_read_once_while_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    write_digests(tmp_path)
    read = []
    real = digests.file_sha256
    monkeypatch.setattr(digests, "file_sha256", lambda path: (read.append(path), real(path))[1])
    check_digest(path)
    check_digest(path)
    assert len(read) == 1
    os.utime(path, ns=(0, 10**9))
    check_digest(path)
    assert len(read) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_damaged_digests_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / DIGESTS).write_text(content)
    with pytest.raises(CheckpointError, match=r"digests\.json is damaged"):
        check_digest(tmp_path / "model.onnx")


def test_the_command_names_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main([str(tmp_path)]) == 1
    assert "holds no *.onnx or *.safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(BUNDLED.glob(f"*/{DIGESTS}")), ids=lambda path: path.parent.name)
def test_bundled_models_are_what_their_digests_say(path: Path) -> None:
    listed = json.loads(path.read_text(encoding="utf-8"))
    weights = [file for pattern in ("*.onnx", "*.safetensors") for file in path.parent.glob(pattern)]
    assert listed.keys() == {file.name for file in weights}
    for file in weights:
        check_digest(file)


@pytest.mark.parametrize(
    ("model", "config", "load"),
    [
        ("provence-mini", "pruner.json", PrunerModel.from_export),
        ("llmlingua2-mini", "tokenclass.json", WordModel.from_export),
        ("recomp-mini", "recomp.json", load_export),
    ],
)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b"null", b"{}", b"\xff\xfe\x00", b'{"max_length": 1e999}', b'{"format": []}']
)
def test_a_damaged_config_is_our_error(tmp_path: Path, model: str, config: str, load: object, content: bytes) -> None:
    assert callable(load)
    for file in (BUNDLED / model).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / config).unlink()
    (tmp_path / config).write_bytes(content)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["xrag-smollm2-mini", "xrag-smollm2-pieces"])
def test_a_changed_bridge_is_told(tmp_path: Path, name: str) -> None:
    from ctxprune.compressors.xrag.bridge import load_bridge

    for file in (BUNDLED / name).iterdir():
        shutil.copy(file, tmp_path / file.name)
    write_digests(tmp_path)
    assert load_bridge(tmp_path).config.d_model > 0
    flip(tmp_path / "model.safetensors", 1_000_000, 2)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not the file"):
        load_bridge(tmp_path)
