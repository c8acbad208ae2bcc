"""The encoders a pruner can stand on, and what stock ones give as they are: relevance of pairs, means of sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
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
from ctxprune.models.formats import PairFormat, Windows, lay_windows, pair_format
from ctxprune.runtime import EncoderRuntime
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.runtime.torch import TorchRuntime
from ctxprune.text.normal import readable

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


def input_length(wanted: Any, config: PretrainedConfig) -> int:
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
        max_tokens=input_length(None, config),
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


class CrossEncoderScorer:
    """One relevance logit a pair; its sigmoid is a probability for models trained with a binary loss.

    runtime: gives "rank_logits" of one or two labels; of two, the second is "relevant". max_length: tokens of an input.
    A passage longer than the input is read in overlapping windows and scores as its best window does.
    """

    def __init__(
        self, runtime: EncoderRuntime, tokenizer: Tokenizer, layout: PairFormat, *, max_length: int = 512
    ) -> None:
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._layout = layout
        self._max_length = max_length

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int = 512,
    ) -> CrossEncoderScorer:
        """Load a model for sequence classification with one or two labels from a folder or a hub id.

        device, dtype: see `TorchRuntime`. Raises CheckpointError when it is missing, damaged or no cross-encoder.
        """
        folder = hub.resolve(source, revision=revision)
        model = _load_model(folder, what=str(source))
        tokenizer = hub.read_tokenizer(folder, model.config)
        pair = layout(tokenizer, folder, model.config, single_separator=False)
        length = input_length(max_length, model.config)
        return cls(TorchRuntime(RankLogits(model), device=device, dtype=dtype), tokenizer, pair, max_length=length)

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Logits of the (query, passage) pairs, in order; higher is more relevant."""
        inputs = self._inputs(pairs)
        outputs = iter(self._runtime.forward([sequence for windows in inputs for sequence in windows.sequences]))
        return [max(_logit(next(outputs)["rank_logits"]) for _ in windows.sequences) for windows in inputs]

    def shortens(self, query: str) -> bool:
        """Whether the query is longer than its share of the input, so that only its beginning is read."""
        return lay_windows(
            self._ids([query])[query], [], [], layout=self._layout, max_length=self._max_length
        ).question_cut

    def _inputs(self, pairs: Sequence[tuple[str, str]]) -> list[Windows]:
        ids = self._ids({text for pair in pairs for text in pair})
        return [
            lay_windows(ids[query], [], ids[passage], layout=self._layout, max_length=self._max_length)
            for query, passage in pairs
        ]

    def _ids(self, texts: Sequence[str] | set[str]) -> dict[str, list[int]]:
        distinct = list(texts)
        plain = [readable(text) for text in distinct]
        encodings = self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        return {text: encoding.ids for text, encoding in zip(distinct, encodings, strict=True)}


class RankLogits(nn.Module):
    """A stock classifier in the shape that `TorchRuntime` calls: (batch, seq) inputs, rank_logits (batch, labels)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        config: Any = self.model.config
        types = {"token_type_ids": token_type_ids} if uses_type_ids(config) else {}
        return {"rank_logits": self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits}


def _load_model(folder: Path, *, what: str) -> Any:
    auto: Any = AutoModelForSequenceClassification
    try:
        with no_bars_off_terminal():
            model, report = auto.from_pretrained(
                folder, trust_remote_code=False, dtype="float32", output_loading_info=True, local_files_only=True
            )
    except Exception as error:  # transformers raises whatever the damaged or foreign file led to
        raise CheckpointError(
            f"cannot load {what} as a cross-encoder ({error}); fetch it again or name another"
        ) from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:4])
        raise CheckpointError(
            f"{what} has no trained classifier (missing {missing}); name a cross-encoder, not an encoder"
        )
    if _labels(model.config) not in (1, 2):
        raise CheckpointError(f"{what} has {_labels(model.config)} labels; a cross-encoder for relevance has 1 or 2")
    return model


def _labels(config: PretrainedConfig) -> int:
    return int(config.num_labels or 0)


def _logit(rank_logits: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Log-odds of "relevant": the logit itself, or the difference of two logits under a softmax."""
    return float(rank_logits[0] if len(rank_logits) == 1 else rank_logits[1] - rank_logits[0])
