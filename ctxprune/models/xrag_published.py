"""Read the projector out of a checkpoint shaped like `Hannibal046/xrag-7b`, where it lies within a whole Mistral-7B.

The language model's weights are those of the stock one, so nothing but the projector's four tensors is read.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ctxprune.errors import CheckpointError
from ctxprune.models.checkpoint import Weights, checkpoint_file, read_json

#: What the keys begin with in a published checkpoint; ours have only the second half.
_OUTER = "projector."
_KEYS = tuple(f"{_OUTER}projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a published xRAG model."""
    return "projector_type" in config and "retriever_hidden_size" in config


def published_config(config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """The fields of a `BridgeConfig`: what config.json and weights say, the rest as the paper has it for xrag-7b.

    Raises CheckpointError for a projector of another kind than two layers with a GELU.
    """
    if config["projector_type"] != "mlp2x_gelu":
        raise CheckpointError(f"projector_type {config['projector_type']!r} is not supported, only 'mlp2x_gelu'")
    return {
        "generator": "mistralai/Mistral-7B-Instruct-v0.2",
        "encoder": "Salesforce/SFR-Embedding-Mistral",
        "d_retriever": config["retriever_hidden_size"],
        "d_model": len(weights["projector.0.bias"]),
        "normalised": False,
        "pooling": "last",
    }


def published_projector(source: str | Path, folder: Path, *, revision: str | None) -> Weights:
    """The projector's tensors under the keys of `bridge.Projector`, float32.

    folder: where config.json is; a hub id is asked for the files that are not there, of several shards only for those
    that hold the projector. Raises CheckpointError when a key is in no file, and for a file that is damaged.
    """
    find = partial(checkpoint_file, source, folder, revision=revision)
    single = next((path for name in _SINGLE if (path := find(name))), None)
    homes = dict.fromkeys(_KEYS, single) if single else _shards(source, find)
    weights = {key: value for path in {*homes.values()} for key, value in _read(path).items()}
    if missing := [key for key in _KEYS if key not in weights]:
        raise CheckpointError(f"{source} has no {', '.join(missing)}; is it an xRAG checkpoint?")
    return {key.removeprefix(_OUTER): value.float() for key, value in weights.items()}


def _shards(source: str | Path, find: Callable[[str], Path | None]) -> dict[str, Path]:
    """For each of the projector's keys the shard that holds it."""
    index = next((path for name in _INDICES if (path := find(name))), None)
    if index is None:
        raise CheckpointError(f"{source} has no weights: none of {', '.join([*_SINGLE, *_INDICES])}")
    names = read_json(index).get("weight_map")
    names = names if isinstance(names, dict) else {}
    homes: dict[str, Path] = {}
    for key in _KEYS:
        name = names.get(key)
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names no shard for {key} ({name!r}); is it an xRAG checkpoint?")
        if (path := find(name)) is None:
            raise CheckpointError(f"{source} lacks the shard {name}; fetch the checkpoint again")
        homes[key] = path
    return homes


def _read(path: Path) -> Weights:
    """The projector's tensors in one file; weights_only keeps a pickle from running code, mapping spares the memory."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in _KEYS if key in file.keys()}  # noqa: SIM118
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        return {key: found[key].clone() for key in _KEYS if key in found}
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors, or is damaged, and is not opened") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch the file again") from error
