"""Put a LoRA adapter's weights into the model that it was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ctxprune.errors import CheckpointError, MissingExtraError


def merge_adapter(model: Any, adapter: str | Path) -> Any:
    """The model with the adapter's low-rank updates added to its weights, as fast as without; `model` is used up.

    adapter: a folder or hub id in peft's layout. Raises CheckpointError when it cannot be read or does not fit the
    model, MissingExtraError without peft.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError(f"the adapter {str(adapter)!r}", "train") from error
    if isinstance(adapter, Path) and not (adapter / "adapter_config.json").is_file():
        raise CheckpointError(f"{adapter} has no adapter_config.json; pass the folder that the training run wrote")
    try:
        with warnings.catch_warnings():
            # peft asks the model for something that transformers has renamed
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing.", category=FutureWarning)
            return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()
    except Exception as error:  # missing files, foreign keys, other shapes: each its own type in another library
        raise CheckpointError(
            f"cannot put the adapter {str(adapter)!r} on this model: {error}; is it the model it was trained on?"
        ) from error
