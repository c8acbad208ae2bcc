"""The encoders a pruner can stand on: stock transformers classes, and how each turns hidden states into a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
)
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaModel, XLMRobertaPreTrainedModel

from ctxprune.errors import CheckpointError

SUPPORTED = ("bert", "deberta-v2", "modernbert", "roberta", "xlm-roberta")


class Encoded(NamedTuple):
    """hidden: (batch, seq, width), what token heads read. rank_logits: (batch, labels)."""

    hidden: Tensor
    rank_logits: Tensor


def backbone_config(fields: Mapping[str, Any], *, model_type: str | None, what: str) -> PretrainedConfig:
    """A transformers config from the fields of a config.json, without anything that points to remote code.

    Raises CheckpointError when the type is none of SUPPORTED or the fields are not usable.
    """
    if model_type not in SUPPORTED:
        raise CheckpointError(
            f"{what} stands on an encoder of type {model_type!r}; supported are {', '.join(SUPPORTED)}"
        )
    known = {name: value for name, value in fields.items() if name not in ("model_type", "auto_map", "architectures")}
    try:
        return AutoConfig.for_model(model_type, **known)
    except Exception as error:  # transformers validates with error classes of several libraries
        raise CheckpointError(f"{what}: config.json does not describe a {model_type} encoder ({error})") from error


def build(config: PretrainedConfig, *, labels: int, pooled: bool, attn_implementation: str) -> PreTrainedModel:
    """An encoder with a ranking head and random weights, in fp32.

    labels: rows of the ranking head. pooled: the XLM-R variant of XProvence. attn_implementation: "sdpa" or "eager";
    DeBERTa-v2 has only the latter.
    """
    config.num_labels = labels
    attention = "eager" if config.model_type == "deberta-v2" else attn_implementation
    options = {"attn_implementation": attention, "dtype": torch.float32}
    if pooled:
        model = _untyped(PooledXLMRoberta)._from_config(config, **options)
    else:
        model = _untyped(AutoModelForSequenceClassification).from_config(config, **options)
    if config.model_type == "modernbert":
        norm = DeferredNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        norm.load_state_dict(model.model.final_norm.state_dict())
        model.model.final_norm = norm
    return cast(PreTrainedModel, model)


def _untyped(value: Any) -> Any:
    """transformers annotates these builders in part only."""
    return value


class PooledXLMRoberta(XLMRobertaPreTrainedModel):  # type: ignore[no-untyped-call]
    """XLM-R whose ranking head is one linear layer over the tanh-pooled first token, as XProvence was trained.

    The stock class for sequence classification has no pooler and a head of two layers.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaModel(config, add_pooling_layer=True)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()  # type: ignore[no-untyped-call]


class DeferredNorm(nn.LayerNorm):
    """ModernBERT's last norm, left out of the encoder's pass so that `encode` can have the states before and after it.

    OpenProvence trained its token head on `hidden_states[-1]`, which transformers 4 took before this norm and
    transformers 5 takes after it; the ranking head has always read the states after it.
    """

    def forward(self, input: Tensor) -> Tensor:
        return input

    def normalise(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden)


def encode(model: Any, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Encoded:
    """One pass through encoder and ranking head. input_ids, attention_mask, token_type_ids: (batch, seq)."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None and uses_type_ids(model.config):
        inputs["token_type_ids"] = token_type_ids
    output = model.base_model(**inputs)
    hidden = output.last_hidden_state
    kind = model.config.model_type
    if kind == "modernbert":
        return Encoded(hidden, _rank_modernbert(model, hidden, attention_mask))
    if kind == "deberta-v2":
        return Encoded(hidden, model.classifier(model.dropout(model.pooler(hidden))))
    if kind == "bert" or isinstance(model, PooledXLMRoberta):
        return Encoded(hidden, model.classifier(model.dropout(output.pooler_output)))
    return Encoded(hidden, model.classifier(hidden))  # (XLM-)RoBERTa's head takes the first token itself


def _rank_modernbert(model: Any, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """hidden: (batch, seq, width) before the last norm. Returns (batch, labels)."""
    states = model.model.final_norm.normalise(hidden)
    if model.config.classifier_pooling == "cls":
        pooled = states[:, 0]
    else:
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return cast(Tensor, model.classifier(model.drop(model.head(pooled))))


def uses_type_ids(config: PretrainedConfig) -> bool:
    """Whether the encoder tells question from passage by token types."""
    return getattr(config, "type_vocab_size", 0) > 1


def position_limit(config: PretrainedConfig) -> int:
    """The longest input in tokens. RoBERTa counts positions from the padding id on."""
    limit = int(config.max_position_embeddings)
    return limit - config.pad_token_id - 1 if config.model_type in ("roberta", "xlm-roberta") else limit
