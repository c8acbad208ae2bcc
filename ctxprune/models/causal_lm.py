"""Load a causal language model and its tokenizer from the Hugging Face hub or a folder."""

from __future__ import annotations

from typing import Any

from ctxprune.errors import CheckpointError, InputError
from ctxprune.runtime.device import best_dtype
from ctxprune.runtime.quiet import no_bars_off_terminal


def load_causal_lm(name: str, *, device: str, dtype: str | None, gguf_file: str | None) -> tuple[Any, Any]:
    """(tokenizer, model) in eval mode on `device`. dtype: None for what suits the device. gguf_file: the file to read.

    Raises InputError for an unknown dtype, CheckpointError when tokenizer or model cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch_dtype = getattr(torch, dtype or best_dtype(device), None)
    if not isinstance(torch_dtype, torch.dtype):
        raise InputError(f"dtype must name a torch dtype such as float32 or bfloat16, got {dtype!r}")
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        with no_bars_off_terminal():
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch_dtype, **options)
    except Exception as error:  # missing path, no network, foreign layout: each its own type in another library
        raise CheckpointError(f"cannot load a causal language model from {name!r}: {error}") from error
    return tokenizer, model.to(device).eval()
