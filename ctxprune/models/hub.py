"""Checkpoint folders: find or fetch them, read config, weights and tokenizer, fill a module or say why not."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from ctxprune.errors import CheckpointError
from ctxprune.models.formats import plain_tokenizer
from ctxprune.runtime.weights import check_digest

Weights = dict[str, torch.Tensor]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
#: Vocabularies in older formats, from which transformers can build a tokenizer.json.
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
_SAFE_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
#: Buffers that older transformers versions saved and newer ones compute, and pooling weights no token score depends on.
_HARMLESS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|pooling_weights\.(weight|bias))$")


def resolve(source: str | Path, *, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of a checkpoint: `source` itself when it is one, else the hub's snapshot of only the files needed.

    HF_HUB_OFFLINE is respected. Raises CheckpointError when there is neither a folder nor a reachable hub id.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or folder.exists() or folder.is_absolute() or source.startswith((".", "~")):
        raise CheckpointError(f"{source} is no folder; pass a checkpoint's folder or a hub id such as 'owner/name'")
    small = ["config.json", *_TOKENIZER_FILES, *_VOCABULARIES]
    snapshot = fetch(source, revision, [*small, *_SAFE_WEIGHTS] if weights else small)
    if weights and not any(snapshot.glob("model*.safetensors")):
        snapshot = fetch(source, revision, [*small, *_PICKLED_WEIGHTS])
    return snapshot


def fetch(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """The hub's snapshot of the files that match. Raises CheckpointError when the hub cannot be asked."""
    from huggingface_hub import snapshot_download

    try:
        return Path(str(snapshot_download(repo, revision=revision, allow_patterns=patterns)))
    except Exception as error:  # OSError, ValueError and the HTTP client's own errors, which differ between versions
        raise CheckpointError(
            f"cannot fetch '{repo}' from the model hub ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "pass a local folder, or check the id, the network and HF_HUB_OFFLINE"
        ) from error


def checkpoint_file(source: str | Path, folder: Path, name: str, *, revision: str | None = None) -> Path | None:
    """One more file of the checkpoint whose folder `resolve` gave, fetched if it is on the hub; None if there is none.

    Raises CheckpointError when the hub cannot be asked.
    """
    if (folder / name).is_file():
        return folder / name
    if folder == Path(source).expanduser():
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(str(source), name, revision=revision))
    except EntryNotFoundError:  # also what an offline cache says of a file that it lacks
        return None
    except Exception as error:  # OSError, ValueError and the HTTP client's own errors, which differ between versions
        raise CheckpointError(
            f"cannot fetch {name} of '{source}' ({error}); pass a local folder, or check the network"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError when it is missing, damaged or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}; is it the folder of a checkpoint?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error}); fetch the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, so that people can read a config."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_weights(folder: Path) -> Weights:
    """Every tensor of a checkpoint by name: safetensors if there are any, else pickles, which may hold tensors only."""
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / single).is_file():
            return _read_shard(folder / single)
        if (folder / index).is_file():
            return _read_shards(folder / index)
    raise CheckpointError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, whole or in shards"
    )


def _read_shards(index: Path) -> Weights:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index} has no weight_map; fetch the file again")
    weights: Weights = {}
    for name in sorted(set(shards.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r} outside the checkpoint's folder; do not trust it")
        weights |= _read_shard(index.parent / name)
    return weights


def _read_shard(path: Path) -> Weights:
    """weights_only keeps a pickle from running code."""
    if path.is_file():
        check_digest(path)
    try:
        weights = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True, map_location="cpu")
        )
    except FileNotFoundError as error:
        raise CheckpointError(
            f"the shard {path.name} is missing from {path.parent}; fetch the checkpoint again"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged, and is not opened because pickles can run code; "
            "convert it to model.safetensors where you trust it"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch the file again") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} is no plain table of tensors; save the model's state_dict alone")
    return weights


def fill(module: nn.Module, weights: Mapping[str, torch.Tensor], *, what: str) -> None:
    """Copy the weights into the module, cast to its dtype; every one must have its place and every place its weight.

    what: family and origin of the checkpoint, for the message. Raises CheckpointError that names the keys that are
    missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    given = {key: value for key, value in weights.items() if key in expected or not _HARMLESS.search(key)}
    misshaped = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    problems = [
        f"{label}: {_some(keys)}"
        for label, keys in (
            ("missing", [key for key in expected if key not in given]),
            ("unexpected", [key for key in given if key not in expected]),
            ("of another shape", misshaped),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{what} does not fit its config.json; weights {'; '.join(problems)}. "
            "Fetch the checkpoint again, or check that config and weights belong together"
        )
    module.load_state_dict(given)


def _some(keys: Collection[str], limit: int = 4) -> str:
    shown = ", ".join(list(keys)[:limit])
    return f"{shown} and {len(keys) - limit} more" if len(keys) > limit else shown


def read_tokenizer(folder: Path, backbone: Any, *references: str | None) -> Tokenizer:
    """The checkpoint's tokenizer, plain (see `plain_tokenizer`): its tokenizer.json, or one built from older files.

    backbone: the transformers config that decides how older files are read. references: folders or hub ids to turn to
    when the folder has neither; None and "" are passed over. Raises CheckpointError when nothing is found.
    """
    if (folder / "tokenizer.json").is_file():
        return plain_tokenizer(folder / "tokenizer.json")
    if any((folder / name).is_file() for name in _VOCABULARIES):
        return plain_tokenizer(_converted(folder, backbone))
    for reference in references:
        if reference and (elsewhere := resolve(reference, weights=False)) != folder:
            return read_tokenizer(elsewhere, backbone)
    raise CheckpointError(
        f"{folder} has no tokenizer.json and names no tokenizer; save the tokenizer beside the weights"
    )


def _converted(folder: Path, backbone: Any) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=backbone, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever the missing converter or the damaged file led to
        raise CheckpointError(f"cannot build a tokenizer from {folder} ({error}); add its tokenizer.json") from error
    if not isinstance(converted := getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise CheckpointError(f"{folder} has no tokenizer that runs without Python code; add its tokenizer.json")
    return converted
