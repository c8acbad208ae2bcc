"""LoRA adapters: find one, tell which model it was trained on, and put its weights into that model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ctxprune.errors import CheckpointError, MissingExtraError
from ctxprune.models.checkpoint import fetch, read_json, write_json

_CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def adapter_folder(source: str | Path) -> Path:
    """The folder of an adapter in peft's layout: `source` itself, or the hub's snapshot of 'owner/name'.

    Raises CheckpointError when there is none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and isinstance(source, str) and "/" in source and not folder.is_absolute():
        folder = fetch(source, None, [_CONFIG, *_WEIGHTS])
    if not (folder / _CONFIG).is_file():
        raise CheckpointError(f"{source} has no {_CONFIG}; pass the folder that the training run wrote, or a hub id")
    return folder


def base_of(folder: Path) -> str:
    """The folder or hub id of the model that an adapter was trained on. CheckpointError when its config has none."""
    name = read_json(folder / _CONFIG).get(_BASE)
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / _CONFIG} does not say which model the adapter is for; pass model=")
    return name


def name_base(folder: Path, name: str) -> None:
    """Write into an adapter's config which model it is for."""
    write_json(folder / _CONFIG, read_json(folder / _CONFIG) | {_BASE: name})


def merge_adapter(model: Any, adapter: str | Path) -> Any:
    """The model with the adapter's low-rank updates added to its weights, as fast as without; `model` is used up.

    adapter: see `adapter_folder`. Raises CheckpointError when it cannot be read or does not fit the model,
    MissingExtraError without peft.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError(f"the adapter {str(adapter)!r}", "train") from error
    folder = adapter_folder(adapter)
    try:
        with warnings.catch_warnings():
            # peft asks the model for something that transformers has renamed
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing.", category=FutureWarning)
            return PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()
    except Exception as error:  # missing files, foreign keys, other shapes: each its own type in another library
        raise CheckpointError(
            f"cannot put the adapter {str(adapter)!r} on this model: {error}; is it the model it was trained on?"
        ) from error
