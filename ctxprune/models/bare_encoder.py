"""Encoders without a head, such as RECOMP's published compressors on Contriever: stock classes, masked mean pooling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel

from ctxprune.errors import CheckpointError
from ctxprune.models import backbones, checkpoint, provence_files
from ctxprune.models.formats import PairFormat

#: Class names of models with a head for some task: "BertForTokenClassification", "GPT2LMHeadModel".
_HEAD = re.compile(r"For[A-Z]|LMHead|WithHead")
#: First-token poolers that saves carry and that mean pooling has no use for.
_POOLER = "pooler."


class MeanPooled(nn.Module):
    """An encoder whose only output is the mean over the last hidden states of the real tokens."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        """All (batch, seq) int; mask 1 = real token; types are all 0. Returns {"mean": (batch, width)}."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"mean": (hidden * mask).sum(dim=1) / mask.sum(dim=1)}


@dataclass(frozen=True)
class LoadedEncoder:
    """tokenizer: plain (see `formats.plain_tokenizer`). max_tokens: of an input, special ones included."""

    module: MeanPooled
    tokenizer: Tokenizer
    layout: PairFormat
    max_tokens: int


def load_bare_encoder(source: str | Path, *, revision: str | None = None) -> LoadedEncoder:
    """Load from a folder or a hub id: fp32, CPU, eval mode.

    Raises CheckpointError when it is missing, damaged, has a head for another task, or is no known encoder.
    """
    folder = checkpoint.resolve(source, revision=revision)
    fields = checkpoint.read_json(folder / "config.json")
    what = f"the sentence encoder {source}"
    _refuse_heads(fields, what=what)
    config = backbones.backbone_config(fields, model_type=fields.get("model_type"), what=what)
    attention = "eager" if config.model_type == "deberta-v2" else "sdpa"  # DeBERTa has no other
    with torch.random.fork_rng(devices=[]):  # random weights, soon overwritten, shall not move the caller's stream
        encoder = cast(Any, AutoModel).from_config(config, attn_implementation=attention, dtype=torch.float32)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    weights = _bare(checkpoint.read_weights(folder), f"{encoder.base_model_prefix}.")
    checkpoint.fill(encoder, weights, what=what)
    tokenizer = checkpoint.read_tokenizer(folder, config, fields.get("_name_or_path"))
    return LoadedEncoder(
        module=MeanPooled(encoder).eval(),
        tokenizer=tokenizer,
        layout=provence_files.layout(tokenizer, folder, config, single_separator=True),
        max_tokens=provence_files.max_length(None, config),
    )


def _refuse_heads(fields: Mapping[str, Any], *, what: str) -> None:
    """A head tells what the encoder was trained for, and it was not sentence vectors."""
    architectures = [str(each) for each in fields.get("architectures") or ()]
    if fields.get("is_encoder_decoder") or fields.get("is_decoder") or any(map(_HEAD.search, architectures)):
        raise CheckpointError(
            f"{what} is a {', '.join(architectures) or fields.get('model_type')}; a dual encoder needs a bare encoder "
            "such as BertModel, a sentence-transformers model, or an export with recomp.json"
        )


def _bare(weights: checkpoint.Weights, prefix: str) -> checkpoint.Weights:
    """The encoder's own names, without its first-token pooler."""
    named = {key.removeprefix(prefix): value for key, value in weights.items()}
    return {key: value for key, value in named.items() if not key.startswith(_POOLER)}
