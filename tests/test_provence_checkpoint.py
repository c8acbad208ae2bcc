"""Files of Provence checkpoints: what is wrong with them is told; shards, pickles, half precision, the hub."""

import json
import pickle
import shutil

import fixtures_checkpoints as tiny
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxprune.compressors.provence.model import load_pruner
from ctxprune.errors import CheckpointError


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_keys_that_do_not_fit_are_named(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)

    def damage(weights):
        del weights["ranking_model.bert.pooler.dense.weight"]
        weights["pruning_head.classifier.bias"] = torch.zeros(3)
        weights["ranking_model.surprise"] = torch.zeros(1)

    rewrite(checkpoint.folder, damage)
    with pytest.raises(CheckpointError) as raised:
        load_pruner(checkpoint.folder)
    message = str(raised.value)
    assert "missing: ranking_model.bert.pooler.dense.weight" in message
    assert "unexpected: ranking_model.surprise" in message
    assert "pruning_head.classifier.bias (3,) instead of (2,)" in message
    assert "open_provence" in message
    assert "Fetch the checkpoint again" in message


def test_harmless_buffers_are_ignored(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    key = "ranking_model.bert.embeddings.position_ids"
    rewrite(checkpoint.folder, lambda weights: weights.update({key: torch.arange(64)[None]}))
    assert load_pruner(checkpoint.folder).family == "open_provence"


def test_ranking_head_missing(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    rewrite(checkpoint.folder, lambda weights: weights.pop("ranking_model.classifier.weight"))
    with pytest.raises(CheckpointError, match=r"no ranking head: the weights lack ranking_model\.classifier\.weight"):
        load_pruner(checkpoint.folder)


def test_a_foreign_model_is_named_by_type_and_keys(tmp_path):
    tiny.write(tmp_path, {"model_type": "gpt2"}, {"h.0.attn.bias": torch.zeros(2)}, None)
    with pytest.raises(CheckpointError, match=r"model_type 'gpt2' and the weights \(h\.0\.attn\.bias"):
        load_pruner(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 200, -10])
def test_a_file_cut_short(keep, tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_pruner(checkpoint.folder)


def test_weights_or_config_or_folder_missing(tmp_path):
    checkpoint = tiny.open_bert(tmp_path / "a")
    (checkpoint.folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_pruner(checkpoint.folder)
    (checkpoint.folder / "config.json").write_text("{ no json")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        load_pruner(checkpoint.folder)
    (checkpoint.folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, found list"):
        load_pruner(checkpoint.folder)
    (checkpoint.folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_pruner(checkpoint.folder)
    for nowhere in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(CheckpointError, match="is no folder"):
            load_pruner(nowhere)


def to_shards(folder, *, pickled=False):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    places = {}
    for part, keys in enumerate((list(weights)[::2], list(weights)[1::2]), 1):
        name = f"{stem}-0000{part}-of-00002.{ending}"
        shard = {key: weights[key] for key in keys}
        torch.save(shard, folder / name) if pickled else save_file(shard, folder / name)
        places |= dict.fromkeys(keys, name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


@pytest.mark.parametrize("pickled", [False, True])
def test_weights_in_shards(pickled, tmp_path):
    whole = load_pruner(tiny.open_bert(tmp_path).folder).module.state_dict()
    index = to_shards(tmp_path, pickled=pickled)
    parts = load_pruner(tmp_path).module.state_dict()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    next(tmp_path.glob("*00002-of-00002*")).unlink()
    with pytest.raises(CheckpointError, match=r"shard .*00002-of-00002.* is missing"):
        load_pruner(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside the checkpoint's folder"):
        load_pruner(tmp_path)


def test_pickles_of_tensors_load_and_pickles_with_code_do_not(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert load_pruner(checkpoint.folder).family == "open_provence"

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "code was run"), "w"))

    torch.save(weights | {"evil": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickles can run code"):
        load_pruner(checkpoint.folder)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"evil": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="pickles can run code"):
        load_pruner(checkpoint.folder)
    assert not (tmp_path / "code was run").exists()
    torch.save({"state_dict": weights}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no plain table of tensors"):
        load_pruner(checkpoint.folder)


def test_half_precision_weights_become_fp32(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    rewrite(
        checkpoint.folder, lambda weights: weights.update({key: value.bfloat16() for key, value in weights.items()})
    )
    pruner = load_pruner(checkpoint.folder)
    assert {parameter.dtype for parameter in pruner.module.parameters()} == {torch.float32}


def test_loading_leaves_the_random_stream_alone(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    state = torch.get_rng_state()
    load_pruner(checkpoint.folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_hub_fetches_only_what_is_needed(tmp_path, monkeypatch):
    repository, calls = tiny.provence(tmp_path / "repository").folder, []

    def snapshot_download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision))
        for file in repository.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                (tmp_path / "cache").mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (repository / "pytorch_model.bin").write_bytes(b"never fetched")
    assert load_pruner("somebody/pruner", revision="v1").family == "provence"
    assert calls == [("somebody/pruner", "v1")]
    fetched = {file.name for file in (tmp_path / "cache").iterdir()}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json"}
    torch.save(load_file(repository / "model.safetensors"), repository / "pytorch_model.bin")
    (repository / "model.safetensors").unlink()
    shutil.rmtree(tmp_path / "cache")
    assert load_pruner("somebody/pruner").family == "provence"


def test_hub_out_of_reach(monkeypatch):
    def snapshot_download(repo_id, **options):
        raise OSError("no route to host\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError, match=r"cannot fetch 'a/b' .*no route to host\); pass a local folder"):
        load_pruner("a/b")
