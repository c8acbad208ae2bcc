"""xRAG bridges: the projector's arithmetic, our format and the published one, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxprune.compressors.xrag.bridge import Bridge, BridgeConfig, Projector, load_bridge, save_bridge
from ctxprune.errors import CheckpointError, InputError
from ctxprune.runtime.weights import DIGESTS, write_digests

IN, OUT = 6, 8
CONFIG = BridgeConfig(generator="tiny", encoder="hashed", d_retriever=IN, d_model=OUT, scale=2.0, output_scale=0.5)


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, IN)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def bridge() -> Bridge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = Projector(IN, OUT, scale=CONFIG.scale, output_scale=CONFIG.output_scale)
    return Bridge(projector, CONFIG, constant=np.arange(OUT, dtype=np.float32))


def test_projection_is_two_layers_with_a_gelu_between_and_a_scale_on_either_side(bridge: Bridge) -> None:
    found = bridge.project(unit(5))
    one, two = (bridge.projector.projector[place].requires_grad_(False) for place in (0, 2))
    for row, vector in zip(found, unit(5), strict=True):
        hidden = [float(w @ vector * 2.0 + b) for w, b in zip(one.weight.numpy(), one.bias.numpy(), strict=True)]
        hidden = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in hidden]
        out = two.weight.numpy() @ np.array(hidden) + two.bias.numpy()
        assert row == pytest.approx(out * 0.5, abs=1e-5)
    assert found.dtype == np.float32 and bridge.project(unit(0)).shape == (0, OUT)
    assert bridge.project(unit(5)[3:4])[0] == pytest.approx(found[3], abs=1e-6)


def test_the_projector_stays_float32_within_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Projector(IN, OUT)(torch.ones(1, IN, dtype=torch.bfloat16)).dtype == torch.float32


def test_soft_tokens_get_the_length_asked_for() -> None:
    projector = Projector(IN, OUT, scale=math.sqrt(IN))
    sample = torch.from_numpy(unit(33))
    projector.match_length(sample, 2.5)
    assert projector(sample).norm(dim=1).median().item() == pytest.approx(2.5, rel=1e-4)


def test_what_is_saved_is_loaded_again(bridge: Bridge, tmp_path: Path) -> None:
    save_bridge(bridge, tmp_path / "new" / "folder")
    loaded = load_bridge(tmp_path / "new" / "folder")
    assert loaded.config == CONFIG
    assert loaded.constant.tolist() == bridge.constant.tolist()
    assert np.array_equal(loaded.project(unit(4)), bridge.project(unit(4)))
    renamed = load_bridge(tmp_path / "new" / "folder", generator="elsewhere/tiny", encoder="other")
    assert renamed.config == replace(CONFIG, generator="elsewhere/tiny", encoder="other")
    save_bridge(Bridge(bridge.projector, CONFIG), tmp_path)
    assert load_bridge(str(tmp_path)).constant is None


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, IN + 1)), r"shape \(n, 6\), got \(2, 7\)"),
        (np.ones(IN), r"got \(6,\)"),
        (np.where(np.arange(3 * IN).reshape(3, IN) == 8, np.nan, unit(3)), "vector 1 of 3 holds nan"),
        (unit(2) * [[1], [np.inf]], "vector 1 of 2 holds nan or infinity"),
        (unit(2) * [[1], [3]], "vector 1 of 2 has the length 3"),
    ],
)
def test_unusable_vectors_are_refused(bridge: Bridge, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bridge.project(vectors)


def test_vectors_of_any_length_go_into_a_bridge_trained_on_such(bridge: Bridge) -> None:
    free = Bridge(bridge.projector, replace(CONFIG, normalised=False))
    assert not np.allclose(free.project(unit(2) * 30), bridge.project(unit(2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 0}, "d_model must be at least 1"),
        ({"template": "Refer to {context}"}, "needs {question}"),
    ],
)
def test_a_config_must_be_usable(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)


def edited(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "no xRAG bridge.*'llama'"),
        ({"d_retriever": "6"}, "d_retriever = '6', expected int"),
        ({"d_retriever": 7}, "of another shape: projector.0.weight"),
        ({"generator": None}, "generator"),
        ({"shard_tokens": 0}, "shard_tokens must be at least 1"),
    ],
)
def test_a_damaged_config_is_named(bridge: Bridge, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    save_bridge(bridge, tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_bridge(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("projector.2.bias", None, "missing: projector.2.bias"),
        ("projector.2.bias", torch.full((OUT,), torch.nan), "projector.2.bias holds nan"),
        ("constant", torch.zeros(3), r"constant token has the shape \(3,\)"),
        ("lm_head.weight", torch.zeros(3), "unexpected: lm_head.weight"),
    ],
)
def test_damaged_weights_are_named(bridge: Bridge, tmp_path: Path, key: str, value: object, message: str) -> None:
    save_bridge(bridge, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights = {name: tensor for name, tensor in {**weights, key: value}.items() if tensor is not None}
    save_file(weights, tmp_path / "model.safetensors")
    write_digests(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_bridge(tmp_path)


def test_a_truncated_file_is_named(bridge: Bridge, tmp_path: Path) -> None:
    save_bridge(bridge, tmp_path)
    (tmp_path / DIGESTS).unlink()  # as bridges of earlier versions have none
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_bridge(tmp_path)


def published(bridge: Bridge, folder: Path, *, pickled: bool, sharded: bool) -> Path:
    """The bridge's weights as a checkpoint of the shape of xrag-7b, in bfloat16 within a larger model."""
    folder.mkdir()
    config = {"model_type": "xmistral", "projector_type": "mlp2x_gelu", "retriever_hidden_size": IN}
    (folder / "config.json").write_text(json.dumps(config))
    inner = {f"projector.{key}": value.bfloat16() for key, value in bridge.projector.state_dict().items()}
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")

    def write(name: str, weights: dict[str, torch.Tensor]) -> None:
        torch.save(weights, folder / name) if pickled else save_file(weights, folder / name)

    rest = {"model.embed_tokens.weight": torch.zeros(3, OUT)}
    if not sharded:
        write(f"{stem}.{ending}", rest | inner)
        return folder
    first, last = (f"{stem}-0000{place}-of-00003.{ending}" for place in (2, 3))
    halves = ({key: inner[key] for key in list(inner)[:2]}, {key: inner[key] for key in list(inner)[2:]})
    write(first, rest | halves[0])
    write(last, halves[1])
    # the first shard holds nothing of the projector, so it need not be there
    homes = {"lm_head.weight": f"{stem}-00001-of-00003.{ending}"} | dict.fromkeys(halves[0], first)
    index = {"weight_map": homes | dict.fromkeys(halves[1], last)}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_published_checkpoints_load(bridge: Bridge, tmp_path: Path, pickled: bool, sharded: bool) -> None:
    loaded = load_bridge(published(bridge, tmp_path / "xrag", pickled=pickled, sharded=sharded))
    config = loaded.config
    assert (config.d_retriever, config.d_model, config.normalised, config.pooling) == (IN, OUT, False, "last")
    assert (config.generator, config.encoder) == (
        "mistralai/Mistral-7B-Instruct-v0.2",
        "Salesforce/SFR-Embedding-Mistral",
    )
    assert config.shard_tokens == 180 and config.scale == config.output_scale == 1.0
    plain = {key: value.bfloat16().float() for key, value in bridge.projector.state_dict().items()}
    bridge.projector.load_state_dict(plain)
    bridge.projector.scale = bridge.projector.output_scale = 1.0
    assert loaded.project(unit(3) * 40) == pytest.approx(
        bridge.projector(torch.from_numpy(unit(3) * 40)).detach().numpy(), abs=1e-4
    )


def test_a_pickle_that_runs_code_is_not_opened(bridge: Bridge, tmp_path: Path) -> None:
    folder = published(bridge, tmp_path / "xrag", pickled=True, sharded=False)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"projector.projector.0.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_bridge(folder)
    assert not (tmp_path / "touched").exists()


def test_published_checkpoints_without_their_projector_are_refused(bridge: Bridge, tmp_path: Path) -> None:
    folder = published(bridge, tmp_path / "xrag", pickled=True, sharded=True)
    edited(folder, projector_type="linear")
    with pytest.raises(CheckpointError, match="projector_type 'linear' is not supported"):
        load_bridge(folder)
    edited(folder, projector_type="mlp2x_gelu", retriever_hidden_size=IN + 1)
    with pytest.raises(CheckpointError, match="of another shape"):
        load_bridge(folder)
    edited(folder, retriever_hidden_size=IN)
    shard = folder / "pytorch_model-00003-of-00003.bin"
    shard.rename(tmp_path / "shard")
    with pytest.raises(CheckpointError, match="lacks the shard pytorch_model-00003"):
        load_bridge(folder)
    (tmp_path / "shard").rename(shard)
    index = folder / "pytorch_model.bin.index.json"
    for home in (None, "../shard.bin"):
        names = json.loads(index.read_text())["weight_map"] | {"projector.projector.2.bias": home}
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(CheckpointError, match=r"names no shard for projector\.projector\.2\.bias"):
            load_bridge(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        load_bridge(folder)
    torch.save({"lm_head.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no projector\.projector\.0\.weight"):
        load_bridge(folder)
