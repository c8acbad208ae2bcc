"""A language model's input embeddings, read from its checkpoint without the rest of the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ctxprune.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_TABLE = re.compile(r"(^|\.)(embed_tokens|tok_embeddings|word_embeddings|embed_in|wte)\.weight$")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_embedding_table(source: str | Path) -> torch.nn.Embedding:
    """Ids (n,) to (n, d_model) in the checkpoint's own dtype; from a hub id only the file that holds it is fetched.

    Raises CheckpointError when there are no safetensors, when no tensor or more than one looks like the table, and for
    a model of the Gemma family, which scales the vectors it looks up: where a server does that is its own affair.
    """
    import torch

    from ctxprune.models.checkpoint import checkpoint_file, read_json, resolve

    folder = resolve(source, weights=False)
    family = str(read_json(folder / "config.json").get("model_type", ""))
    if family.startswith("gemma"):
        raise CheckpointError(
            f"{source} is of the {family} family, which scales its embeddings; run it with LocalGenerator instead"
        )
    index = checkpoint_file(source, folder, _INDEX)
    if index is None:
        weights = checkpoint_file(source, folder, _WHOLE)
    else:
        shards = read_json(index).get("weight_map")
        name = _table_name(source, list(shards) if isinstance(shards, dict) else [])
        weights = checkpoint_file(source, folder, Path(str(shards[name])).name) if isinstance(shards, dict) else None
    if weights is None:
        raise CheckpointError(f"{source} has no {_WHOLE} for its embeddings; convert the checkpoint to safetensors")
    table = _read(source, weights)
    vocabulary, d_model = table.shape
    return torch.nn.Embedding(vocabulary, d_model, _weight=table, _freeze=True)


def _read(source: str | Path, path: Path) -> torch.Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            table: torch.Tensor = tensors.get_tensor(_table_name(source, [*tensors.keys()]))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch the file again") from error
    return table


def _table_name(source: str | Path, names: list[str]) -> str:
    found = [name for name in names if _TABLE.search(name)]
    if len(found) != 1:
        raise CheckpointError(
            f"{source} must have one table of input embeddings, found {', '.join(found) or 'none'}; "
            "pass the checkpoint of a causal language model"
        )
    return found[0]
