"""Tables and tokenizers that bundled models share: put together at load, told when damaged; old exports need none."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import ctxprune.bundled
from ctxprune.compressors.provence.pruner import Passage, PrunerModel
from ctxprune.errors import CheckpointError, InputError
from ctxprune.runtime import weights as shared
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.weights import FOLDER, SHARED, check_digest, model_file, shared_tables, write_digests
from ctxprune.trainers.shared.rewrite import Int4Embedding, quantised_blocks, shrink
from ctxprune.trainers.shared.sharing import join, load_whole, share

BUNDLED = Path(ctxprune.bundled.__file__).parent
PASSAGES = [Passage("When was the kiln lit?", "Kiln", "The kiln was lit in May. It cooled in June. Nobody came.")]


def copied(name: str, target: Path) -> Path:
    shutil.copytree(BUNDLED / name, target)
    return target


def alone(name: str, target: Path) -> Path:
    """The model as the exporter wrote it: one file with everything in it."""
    folder = copied(name, target)
    (folder / "model.onnx").write_bytes(load_whole(folder).SerializeToString())
    tokenizer = model_file(folder, "tokenizer.json")
    if tokenizer.parent != folder:
        shutil.copy(tokenizer, folder / "tokenizer.json")
    (folder / SHARED).unlink()
    write_digests(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared files in a folder that may be spoilt."""
    target = tmp_path / "shared"
    shutil.copytree(FOLDER, target)
    monkeypatch.setattr(shared, "FOLDER", target)
    return target


def test_a_self_contained_export_loads_and_reads_the_same(tmp_path: Path) -> None:
    [old] = PrunerModel.from_export(alone("provence-mini", tmp_path / "old")).read(PASSAGES)
    [new] = PrunerModel.from_export(BUNDLED / "provence-mini").read(PASSAGES)
    np.testing.assert_array_equal(old.keep, new.keep)
    np.testing.assert_array_equal(old.ranks, new.ranks)
    assert (old.offsets == new.offsets).all()


def test_the_english_models_share_one_table_in_memory() -> None:
    folders = [BUNDLED / name for name in ("provence-mini", "llmlingua2-mini", "recomp-mini", "minilm-encoder")]
    tables = [shared_tables(folder) for folder in folders]
    words = [next(each for name, each in mine.items() if name.endswith("word_embeddings.weight")) for mine in tables]
    assert all(each is words[0] for each in words)
    assert not words[0].flags.writeable
    assert len({model_file(folder, "tokenizer.json") for folder in folders}) == 1


def test_every_file_of_weights_has_its_digest() -> None:
    for folder in (path.parent for path in BUNDLED.rglob("digests.json")):
        weights = {path.name for pattern in ("*.onnx", "*.safetensors") for path in folder.glob(pattern)}
        assert set(json.loads((folder / "digests.json").read_text())) == weights
    held = {path.parent for pattern in ("*.onnx", "*.safetensors") for path in BUNDLED.rglob(pattern)}
    assert all((folder / "digests.json").is_file() for folder in held)


def test_a_changed_bit_of_a_shared_table_is_told(elsewhere: Path) -> None:
    path = elsewhere / "minilm-l6.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"minilm-l6\.safetensors is not the file that digests\.json"):
        OnnxRuntime(BUNDLED / "provence-mini" / "model.onnx")
    write_digests(elsewhere)
    check_digest(path)


def test_a_missing_shared_file_is_told(elsewhere: Path) -> None:
    for path in elsewhere.iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"no shared weights .*minilm-l6\.safetensors; reinstall"):
        OnnxRuntime(BUNDLED / "provence-mini" / "model.onnx")
    with pytest.raises(CheckpointError, match=r"minilm-l6\.tokenizer\.json"):
        PrunerModel.from_export(BUNDLED / "provence-mini")


@pytest.mark.parametrize(
    "listing",
    [
        "{",
        "[]",
        '{"tables": 3}',
        '{"tables": {"a": "b"}}',
        '{"tables": {"a": ["../../secret.safetensors", "b"]}}',
        '{"files": {"tokenizer.json": "/etc/passwd"}}',
        '{"files": {"tokenizer.json": 7}}',
    ],
)
def test_a_damaged_listing_is_told_and_leads_nowhere(tmp_path: Path, listing: str) -> None:
    folder = copied("minilm-encoder", tmp_path / "model")
    (folder / SHARED).write_text(listing)
    with pytest.raises(CheckpointError, match=r"shared\.json is damaged"):
        OnnxRuntime(folder / "model.onnx")


def test_a_table_that_the_shared_file_lacks_is_told(tmp_path: Path) -> None:
    folder = copied("minilm-encoder", tmp_path / "model")
    listing = json.loads((folder / SHARED).read_text())
    name = next(iter(listing["tables"]))
    listing["tables"][name][1] = "nothing"
    (folder / SHARED).write_text(json.dumps(listing))
    with pytest.raises(CheckpointError, match=r"minilm-l6\.safetensors holds no nothing"):
        OnnxRuntime(folder / "model.onnx")


def test_sharing_moves_what_is_common_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [alone(name, tmp_path / name) for name in ("provence-mini", "minilm-encoder")]
    before = sum((folder / "model.onnx").stat().st_size for folder in folders)
    into = tmp_path / "shared"
    moved = share(folders, "both", into=into)
    assert moved == ["position_embeddings.weight", "word_embeddings.scale", "word_embeddings.weight"]
    after = sum(path.stat().st_size for path in [*into.iterdir(), *(folder / "model.onnx" for folder in folders)])
    assert before - after > 11_000_000
    assert not any((folder / "tokenizer.json").exists() for folder in folders)
    monkeypatch.setattr(shared, "FOLDER", into)
    [mine] = PrunerModel.from_export(folders[0]).read(PASSAGES)
    monkeypatch.undo()
    [theirs] = PrunerModel.from_export(BUNDLED / "provence-mini").read(PASSAGES)
    np.testing.assert_array_equal(mine.keep, theirs.keep)


def test_a_model_trained_anew_joins_what_others_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into = tmp_path / "shared"
    share([alone(name, tmp_path / name) for name in ("recomp-mini", "minilm-encoder")], "both", into=into)
    kept = {path.name: path.read_bytes() for path in into.iterdir()}
    late = alone("provence-mini", tmp_path / "provence-mini")
    assert join(late, "both", into=into) == [
        "position_embeddings.weight", "word_embeddings.scale", "word_embeddings.weight",
    ]  # fmt: skip
    assert {path.name: path.read_bytes() for path in into.iterdir()} == kept
    assert not (late / "tokenizer.json").exists()
    monkeypatch.setattr(shared, "FOLDER", into)
    [mine] = PrunerModel.from_export(late).read(PASSAGES)
    monkeypatch.undo()
    [theirs] = PrunerModel.from_export(BUNDLED / "provence-mini").read(PASSAGES)
    np.testing.assert_array_equal(mine.keep, theirs.keep)


def test_a_model_of_another_table_does_not_join_and_stays_as_it_is(tmp_path: Path) -> None:
    into = tmp_path / "shared"
    share([alone(name, tmp_path / name) for name in ("recomp-mini", "minilm-encoder")], "both", into=into)
    other = alone("provence-mini", tmp_path / "other")
    graph = onnx.load(other / "model.onnx")
    for table in graph.graph.initializer:
        if table.name.endswith("word_embeddings.weight"):
            table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) + 1, table.name))
    onnx.save(graph, other / "model.onnx")
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight is not that of both\.safetensors"):
        join(other, "both", into=into)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    with pytest.raises(CheckpointError, match="nothing to join"):
        join(other, "neither", into=into)


def test_models_without_a_common_table_share_nothing(tmp_path: Path) -> None:
    folders = [alone("minilm-encoder", tmp_path / name) for name in ("one", "other")]
    graph = onnx.load(folders[1] / "model.onnx")
    for table in graph.graph.initializer:
        if "embeddings." in table.name and len(table.raw_data) > 100_000:
            table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) * 0, table.name))
    onnx.save(graph, folders[1] / "model.onnx")
    with pytest.raises(CheckpointError, match="no embedding table in common"):
        share(folders, "both", into=tmp_path / "shared")


def test_a_table_that_came_in_4_bits_is_found_again() -> None:
    draw = np.random.default_rng(5)
    scales = draw.normal(size=(1500, 4, 1)).astype(np.float16)
    steps = draw.integers(-8, 8, (1500, 4, 32))
    table = torch.nn.Embedding(1500, 128)
    table.weight.data = torch.tensor((steps * scales.astype(np.float32)).reshape(1500, 128).astype(np.float32))
    table.weight.data[7] = 0.0
    small = Int4Embedding(table)
    ids = torch.arange(1500)[None]
    wanted = table.weight.detach()
    assert float((small(ids)[0] - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())
    assert small.weight.shape == (1500, 64)
    assert small.weight.dtype == torch.uint8


def test_any_table_comes_out_near() -> None:
    table = torch.randn(2000, 64, generator=torch.Generator().manual_seed(3)) * 3
    values, scale = quantised_blocks(table)
    decoded = ((values.float() - 8).unflatten(-1, (-1, 32)) * scale.float().unsqueeze(-1)).flatten(-2)
    assert float((decoded - table).square().mean().sqrt()) < 0.1 * float(table.std())


def test_other_bits_and_widths_are_refused() -> None:
    with pytest.raises(InputError, match="table_bits must be 4 or 8, got 3"):
        shrink(torch.nn.Sequential(torch.nn.Embedding(2000, 64)), table_bits=3)
    with pytest.raises(InputError, match="multiple of 64, got 96"):
        shrink(torch.nn.Sequential(torch.nn.Embedding(2000, 96)), table_bits=4)
