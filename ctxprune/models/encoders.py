"""The encoders a pruner can stand on: stock transformers classes, and how each turns hidden states into a ranking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
)
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaModel, XLMRobertaPreTrainedModel

from ctxprune.errors import CheckpointError
from ctxprune.models import hub
from ctxprune.models.formats import PairFormat, pair_format

#: What the naver checkpoints were trained on; their configs hold no length of their own.
_TRAINED_LENGTH = 512


def layout(tokenizer: Tokenizer, folder: Path, config: PretrainedConfig, *, single_separator: bool) -> PairFormat:
    """How inputs are put together; tokenizer_config.json names the special tokens if the tokenizer has no template."""
    path = folder / "tokenizer_config.json"
    names = hub.read_json(path) if path.is_file() else {}
    return pair_format(
        tokenizer,
        type_ids=uses_type_ids(config),
        single_separator=single_separator,
        cls_token=_content(names.get("cls_token")),
        sep_token=_content(names.get("sep_token")),
    )


def _content(token: Any) -> str | None:
    """A special token's text; older files hold an object instead of a string."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def max_length(wanted: Any, config: PretrainedConfig) -> int:
    """Tokens of an input: as wanted, 512 if nothing is said, never more than the encoder has positions for."""
    wanted = _TRAINED_LENGTH if wanted is None else wanted
    if not isinstance(wanted, int) or wanted < 1:
        raise CheckpointError(f"max_length must be a positive number of tokens, got {wanted!r}; correct config.json")
    return min(wanted, position_limit(config))


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
    folder = hub.resolve(source, revision=revision)
    fields = hub.read_json(folder / "config.json")
    what = f"the sentence encoder {source}"
    _refuse_heads(fields, what=what)
    config = backbone_config(fields, model_type=fields.get("model_type"), what=what)
    attention = "eager" if config.model_type == "deberta-v2" else "sdpa"  # DeBERTa has no other
    with torch.random.fork_rng(devices=[]):  # random weights, soon overwritten, shall not move the caller's stream
        encoder = cast(Any, AutoModel).from_config(config, attn_implementation=attention, dtype=torch.float32)
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    weights = _bare(hub.read_weights(folder), f"{encoder.base_model_prefix}.")
    hub.fill(encoder, weights, what=what)
    tokenizer = hub.read_tokenizer(folder, config, fields.get("_name_or_path"))
    return LoadedEncoder(
        module=MeanPooled(encoder).eval(),
        tokenizer=tokenizer,
        layout=layout(tokenizer, folder, config, single_separator=True),
        max_tokens=max_length(None, config),
    )


def _refuse_heads(fields: Mapping[str, Any], *, what: str) -> None:
    """A head tells what the encoder was trained for, and it was not sentence vectors."""
    architectures = [str(each) for each in fields.get("architectures") or ()]
    if fields.get("is_encoder_decoder") or fields.get("is_decoder") or any(map(_HEAD.search, architectures)):
        raise CheckpointError(
            f"{what} is a {', '.join(architectures) or fields.get('model_type')}; a dual encoder needs a bare encoder "
            "such as BertModel, a sentence-transformers model, or an export with recomp.json"
        )


def _bare(weights: hub.Weights, prefix: str) -> hub.Weights:
    """The encoder's own names, without its first-token pooler."""
    named = {key.removeprefix(prefix): value for key, value in weights.items()}
    return {key: value for key, value in named.items() if not key.startswith(_POOLER)}
