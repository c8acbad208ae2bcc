"""LLMLingua-2 checkpoints: any stock encoder with a two-label token classifier, its second label meaning "keep".

Pan et al., "LLMLingua-2: data distillation for efficient and faithful task-agnostic prompt compression", ACL 2024. The
published ones are XLM-R-large and multilingual BERT. The encoder follows from config.json, never from a name, and no
code of a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES

from ctxprune.errors import CheckpointError
from ctxprune.models import encoders, hub
from ctxprune.models.encoders import layout
from ctxprune.models.formats import PairFormat

#: What the published checkpoints were trained on; their configs hold no length of their own.
TRAINED_LENGTH = 512
#: Poolers that older saves carry and no token score depends on.
_IDLE = (".pooler.dense.weight", ".pooler.dense.bias")


class KeepClassifier(nn.Module):
    """A token classifier whose only output is how much it would rather keep a token than drop it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask: (batch, seq) int; mask 1 = real token; token types are all 0 and not needed.

        Returns {"keep": (batch, seq)}: log-odds of keeping, so that P(keep) is their sigmoid. Padding means nothing.
        """
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return {"keep": logits[..., 1] - logits[..., 0]}


@dataclass(frozen=True)
class LoadedTokenClassifier:
    """A token classifier ready to run, with what is needed to feed it.

    tokenizer: plain (see `formats.plain_tokenizer`). layout: the special tokens around a text. max_length: tokens of an
    input, special ones included. rows: of the embedding table; the published checkpoints have more than the tokenizer.
    fingerprint: tells checkpoints apart, whatever they are called.
    """

    module: KeepClassifier
    tokenizer: Tokenizer
    layout: PairFormat
    max_length: int
    rows: int
    fingerprint: str


def load_token_classifier(
    source: str | Path, *, revision: str | None = None, attn_implementation: str = "sdpa"
) -> LoadedTokenClassifier:
    """Load a *ForTokenClassification checkpoint with two labels from a folder or a hub id: fp32, CPU, eval mode.

    Raises CheckpointError when it is missing, damaged, no token classifier, or has another number of labels.
    """
    folder = hub.resolve(source, revision=revision)
    fields = hub.read_json(folder / "config.json")
    weights = hub.read_weights(folder)
    what = f"the token classifier {source}"
    config = _config(fields, weights, what=what)
    # DeBERTa has no other attention
    attention = "eager" if config.model_type == "deberta-v2" else attn_implementation
    with torch.random.fork_rng(devices=[]):  # random weights, soon overwritten, shall not move the caller's stream
        builder = cast(Any, AutoModelForTokenClassification)
        model = builder.from_config(config, attn_implementation=attention, dtype=torch.float32)
    own = model.state_dict()
    given = {key: value for key, value in weights.items() if key in own or not key.endswith(_IDLE)}
    hub.fill(model, given, what=what)
    tokenizer = hub.read_tokenizer(folder, config, fields.get("_name_or_path"))
    return LoadedTokenClassifier(
        module=KeepClassifier(model).eval(),
        tokenizer=tokenizer,
        layout=layout(tokenizer, folder, config, single_separator=True),
        max_length=min(TRAINED_LENGTH, encoders.position_limit(config)),
        rows=int(model.get_input_embeddings().weight.shape[0]),
        fingerprint=_fingerprint(given),
    )


def _config(fields: Mapping[str, Any], weights: hub.Weights, *, what: str) -> PretrainedConfig:
    """The encoder's config with the labels of the weights: files leave them out where they are two."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES:
        raise CheckpointError(f"{what}: transformers has no token classifier for model_type {model_type!r}")
    heads = [value for key, value in weights.items() if key in ("classifier.weight", "score.weight")]
    if not heads:
        raise CheckpointError(
            f"{what} has no classifier.weight (architectures {fields.get('architectures')}); "
            "pass the folder of a *ForTokenClassification checkpoint"
        )
    if heads[0].dim() != 2 or heads[0].shape[0] != 2:
        raise CheckpointError(f"{what} has a head of shape {tuple(heads[0].shape)}; two labels are needed: drop, keep")
    known = {name: value for name, value in fields.items() if name not in ("model_type", "auto_map", "architectures")}
    try:
        config = AutoConfig.for_model(model_type, **known)
    except Exception as error:  # transformers validates with error classes of several libraries
        raise CheckpointError(f"{what}: config.json does not describe a {model_type} encoder ({error})") from error
    config.num_labels = 2
    return config


def _fingerprint(weights: hub.Weights) -> str:
    """A digest of every tensor's name, shape and first values: training moves them all, and reading all takes long."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1)[:64].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
