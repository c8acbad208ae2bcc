"""The language model that reads soft tokens: as it is, or with low-rank updates (LoRA) that belong to the bridge."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from ctxprune.compressors.xrag.bridge import READER
from ctxprune.errors import InputError

#: What peft puts before and into the names of the model's own weights, and what its updates are called.
_WRAPPED, _BASE, _UPDATE = "base_model.model.", ".base_layer", "lora_"


def with_updates(model: Any, rank: int, init: Path | None) -> Any:
    """The model with low-rank updates beside its queries and values, in float32; only they learn.

    init: a bridge to go on from, whose updates are taken over if it has any. Raises InputError for a rank other than
    theirs.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if init is not None and (init / READER).is_dir():
        adapted = PeftModel.from_pretrained(model, str(init / READER), is_trainable=True)
        config: Any = adapted.peft_config["default"]
        if (saved := config.r) != rank:
            raise InputError(f"the bridge {init} has a reader of rank {saved}, not {rank}; pass --lora {saved}")
        return adapted
    options: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, **options))


def updates(model: Any) -> nn.ParameterList:
    """The parameters that learn; none for a model as it is."""
    return nn.ParameterList([value for name, value in model.named_parameters() if _UPDATE in name])


def checksum(model: Any) -> str:
    """Of every parameter of the language model but its updates, to show that training left it alone."""
    return _digest(
        (name.removeprefix(_WRAPPED).replace(_BASE, ""), value)
        for name, value in model.named_parameters()
        if _UPDATE not in name
    )


def save_reader(model: Any, tokenizer: Any, folder: Path) -> str:
    """Write the updates, with what loads them beside the model they belong to. Returns their digest."""
    model.save_pretrained(folder / READER)
    tokenizer.save_pretrained(folder / READER)
    return _digest((name, value) for name, value in model.named_parameters() if _UPDATE in name)


def _digest(parameters: Any) -> str:
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in parameters:
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
