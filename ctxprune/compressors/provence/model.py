"""Query-aware pruners after Provence: one encoder pass gives a relevance score and a keep logit for every token.

Chirkova et al., "Provence: efficient and robust context pruning for retrieval-augmented generation", ICLR 2025. Loads
Provence (DeBERTa-v3), XProvence (XLM-R), OpenProvence (BERT, XLM-R, ModernBERT) and what our trainer saves, which is
the OpenProvence layout. The files say which family, encoder, names, lengths and thresholds; no code of a checkpoint is
ever run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models import encoders, hub
from ctxprune.models.formats import PairFormat, named_tokenizer, special_tokens

Family = Literal["provence", "xprovence", "open_provence"]

#: Roles that transformers asks for, and the names that vocabularies use for them.
_ROLES = {"pad_token": ("[PAD]", "<pad>"), "unk_token": ("[UNK]", "<unk>"), "mask_token": ("[MASK]", "<mask>")}


def detect_family(config: Mapping[str, Any], keys: Collection[str], *, what: str) -> Family:
    """Which family the weights' names belong to; CheckpointError when none."""
    if any(key.startswith("pruning_head.") for key in keys):
        return "open_provence"
    if any(key.startswith("token_classifier.") for key in keys):
        if any(key.startswith("deberta.") for key in keys):
            return "provence"
        if any(key.startswith("roberta.") for key in keys):
            return "xprovence"
    raise CheckpointError(
        f"{what} is no pruner: config.json says model_type {config.get('model_type')!r} and the weights "
        f"({', '.join(sorted(keys)[:4])}, ...) have neither pruning_head.* (OpenProvence) nor token_classifier.* "
        "beside deberta.* (Provence) or roberta.* (XProvence)"
    )


def open_provence_keys(family: Family, weights: hub.Weights) -> hub.Weights:
    """Every family under OpenProvence's names; legacy OpenProvence files lack the `ranking_model.` prefix."""
    if any(key.startswith("ranking_model.") for key in weights):
        return weights
    heads = ("pruning_head.", "answer_head.") if family == "open_provence" else ("token_classifier.",)

    def renamed(key: str) -> str:
        if not key.startswith(heads):
            return f"ranking_model.{key}"
        return key.replace("token_classifier.", "pruning_head.classifier.", 1)

    return {renamed(key): value for key, value in weights.items()}


def encoder_config(family: Family, config: Mapping[str, Any], *, what: str) -> PretrainedConfig:
    """The config of the encoder inside; CheckpointError when it is missing or of no supported type."""
    if family != "open_provence":  # the config is the encoder's, under a model_type that only remote code knows
        model_type = "deberta-v2" if family == "provence" else "xlm-roberta"
        return encoders.backbone_config(config, model_type=model_type, what=what)
    fields = config.get("base_model_config")
    if not fields:
        base = config.get("base_model_name_or_path")
        if not base:
            raise CheckpointError(f"{what}: config.json has neither base_model_config nor base_model_name_or_path")
        fields = hub.read_json(hub.resolve(base, weights=False) / "config.json")
    return encoders.backbone_config(fields, model_type=fields.get("model_type"), what=what)


def ranking_head(weights: Mapping[str, Tensor], *, what: str) -> tuple[int, bool]:
    """(labels, whether it is XProvence's single layer over XLM-R's pooler), read off the weights.

    Configs are no guide to the labels: transformers leaves `num_labels` out and falls back to 2.
    """
    single, double = "ranking_model.classifier.weight", "ranking_model.classifier.out_proj.weight"
    if single in weights:
        return weights[single].shape[0], "ranking_model.roberta.embeddings.word_embeddings.weight" in weights
    if double in weights:
        return weights[double].shape[0], False
    raise CheckpointError(f"{what} has no ranking head: the weights lack {single}; fetch the checkpoint again")


def default_threshold(config: Mapping[str, Any], *, what: str) -> float | None:
    """OpenProvence writes `default_threadshold`; the right spelling is understood as well."""
    value = config.get("default_threadshold")
    value = config.get("default_threshold") if value is None else value
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise CheckpointError(f"{what}: default_threadshold must be a number in [0, 1], got {value!r}")
    return float(value)


def with_fresh_heads(model: PreTrainedModel, weights: hub.Weights) -> hub.Weights:
    """A base model's weights under `model`'s names, completed with `model`'s random ones for heads the base lacks.

    Heads for another task (another shape, another name) are left behind; the encoder must be complete.
    """
    prefix, own = f"{model.base_model_prefix}.", model.state_dict()
    bare = not any(key.startswith(prefix) for key in weights)

    def of_encoder(key: str) -> bool:
        return key.startswith(prefix) and not key.startswith(f"{prefix}pooler.")

    given = {prefix + key if bare and prefix + key in own else key: value for key, value in weights.items()}
    kept = {
        key: value for key, value in given.items() if key in own and (of_encoder(key) or value.shape == own[key].shape)
    }
    return {key: value for key, value in own.items() if not of_encoder(key)} | kept


def config_fields(
    encoder: PretrainedConfig,
    *,
    family: Family,
    max_length: int,
    default_threshold: float | None,
    answer_head: bool,
) -> dict[str, Any]:
    """The config.json of a checkpoint in the OpenProvence layout; InputError for the families it cannot describe."""
    if family != "open_provence":
        raise InputError(f"only pruners in the OpenProvence layout can be saved, got {family}; copy its folder instead")
    return {
        "model_type": "open_provence",
        "mode": "reranking_pruning",
        "base_model_config": encoder.to_dict(),
        "base_model_name_or_path": encoder.name_or_path or None,
        "encoder_architecture": encoder.model_type,
        "tokenizer_name_or_path": None,
        "max_length": max_length,
        "num_labels": encoder.num_labels,
        "num_pruning_labels": 2,
        "pruning_config": {"hidden_size": encoder.hidden_size, "num_labels": 2, "classifier_dropout": 0.1},
        "default_threadshold": default_threshold,
        "answer_head": answer_head,
    }


def special_names(tokenizer: Tokenizer, layout: PairFormat) -> dict[str, str]:
    """Special tokens by role: opening and separator as the layout uses them, the rest by their usual names."""
    known = special_tokens(tokenizer)
    by_id = {token_id: name for name, token_id in known.items()}
    roles = {"cls_token": by_id.get(layout.prefix[0]), "sep_token": by_id.get(layout.suffix[0])}
    roles |= {role: next((name for name in names if name in known), None) for role, names in _ROLES.items()}
    return {role: name for role, name in roles.items() if name is not None}


class TokenHead(nn.Module):
    """(batch, seq, width) -> (batch, seq, 2) logits of remove and keep."""

    def __init__(self, width: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = _fresh_linear(width, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


class Pruner(nn.Module):
    """An encoder with a ranking head, a token head and, if trained with one, a head for where the answer stands."""

    def __init__(self, ranking_model: PreTrainedModel, *, answer_head: bool = False) -> None:
        super().__init__()
        width = ranking_model.config.hidden_size
        self.ranking_model = ranking_model
        self.pruning_head = TokenHead(width)
        self.answer_head = _fresh_linear(width, 1) if answer_head else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask, token_type_ids: (batch, seq) int; mask 1 = real token.

        Returns rank_logits (batch, labels), token_logits (batch, seq, 2), where keep is softmax[..., 1], and with an
        answer head answer_logits (batch, seq). Values at padding mean nothing.
        """
        encoded = encoders.encode(self.ranking_model, input_ids, attention_mask, token_type_ids)
        outputs = {"rank_logits": encoded.rank_logits, "token_logits": self.pruning_head(encoded.hidden)}
        if self.answer_head is not None:
            outputs["answer_logits"] = self.answer_head(encoded.hidden).squeeze(-1)
        return outputs


@dataclass(frozen=True)
class LoadedPruner:
    """A pruner ready to run, with what is needed to feed it and to read its outputs.

    tokenizer: plain (see `formats.plain_tokenizer`). max_length: tokens of an input, special ones included.
    default_threshold: the checkpoint's own, on the mean keep probability of a sentence. score: how the first ranking
    logit becomes the relevance score, as it is ("logit") or through a sigmoid.
    """

    module: Pruner
    tokenizer: Tokenizer
    layout: PairFormat
    max_length: int
    default_threshold: float | None
    family: Family
    score: Literal["logit", "sigmoid"]


def load_pruner(source: str | Path, *, revision: str | None = None, attn_implementation: str = "sdpa") -> LoadedPruner:
    """Load a published or self-trained pruner from a folder or a hub id, in fp32, on the CPU, in eval mode.

    attn_implementation: "sdpa" or "eager". The family follows from the weights' names and the config, never from the
    checkpoint's own name. Raises CheckpointError when the checkpoint is missing, damaged, of no known family, or does
    not fit its config.
    """
    folder = hub.resolve(source, revision=revision)
    config = hub.read_json(folder / "config.json")
    weights = hub.read_weights(folder)
    family = detect_family(config, weights, what=str(source))
    what = f"the {family} checkpoint {source}"
    backbone = encoder_config(family, config, what=what)
    weights = open_provence_keys(family, weights)
    module = _filled(backbone, weights, bool(config.get("answer_head")), attn_implementation, what)
    tokenizer = hub.read_tokenizer(
        folder, backbone, config.get("tokenizer_name_or_path"), config.get("base_model_name_or_path")
    )
    naver = family != "open_provence"
    return LoadedPruner(
        module=module.eval(),
        tokenizer=tokenizer,
        layout=encoders.layout(tokenizer, folder, backbone, single_separator=naver),
        max_length=encoders.input_length(None if naver else config.get("max_length"), backbone),
        default_threshold=default_threshold(config, what=what),
        family=family,
        score="logit" if naver else "sigmoid",
    )


def new_pruner(
    base: str | Path,
    *,
    answer_head: bool = False,
    max_length: int = 512,
    revision: str | None = None,
    attn_implementation: str = "sdpa",
) -> LoadedPruner:
    """A pruner to be trained, from a plain encoder or a cross-encoder: what the base has is kept, the rest is random.

    Draws from torch's global generator; seed it for the same heads again. Raises CheckpointError when an encoder
    weight is missing or does not fit.
    """
    folder = hub.resolve(base, revision=revision)
    fields = hub.read_json(folder / "config.json")
    what = f"the base model {base}"
    config = encoders.backbone_config(fields, model_type=fields.get("model_type"), what=what)
    model = encoders.build(config, labels=1, pooled=False, attn_implementation=attn_implementation)
    hub.fill(model, with_fresh_heads(model, hub.read_weights(folder)), what=what)
    tokenizer = hub.read_tokenizer(folder, config)
    return LoadedPruner(
        module=Pruner(model, answer_head=answer_head).eval(),
        tokenizer=tokenizer,
        layout=encoders.layout(tokenizer, folder, config, single_separator=False),
        max_length=encoders.input_length(max_length, config),
        default_threshold=None,
        family="open_provence",
        score="sigmoid",
    )


def save_pruner(pruner: LoadedPruner, folder: str | Path, *, default_threshold: float | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer in the OpenProvence layout, for `load_pruner` and others.

    default_threshold: stored as the checkpoint's own (default: what the pruner came with). Weights are saved in fp32.
    Raises InputError for a Provence or XProvence pruner, whose inputs and scores the layout cannot describe.
    """
    fields = config_fields(
        pruner.module.ranking_model.config,
        family=pruner.family,
        max_length=pruner.max_length,
        default_threshold=pruner.default_threshold if default_threshold is None else default_threshold,
        answer_head=pruner.module.answer_head is not None,
    )
    names = special_names(pruner.tokenizer, pruner.layout)
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * (pruner.layout.passage_type_id > 0)
    extra = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": pruner.max_length}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().float().cpu().contiguous() for key, value in pruner.module.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    named_tokenizer(pruner.tokenizer).save(str(folder / "tokenizer.json"))
    hub.write_json(folder / "config.json", fields)
    hub.write_json(folder / "special_tokens_map.json", names)
    hub.write_json(folder / "tokenizer_config.json", {**names, **extra, "model_input_names": inputs})


def _filled(
    backbone: PretrainedConfig, weights: hub.Weights, answer_head: bool, attn_implementation: str, what: str
) -> Pruner:
    labels, pooled = ranking_head(weights, what=what)
    if not pooled:  # a head of its own leaves XLM-R's pooler without a use
        weights = {key: value for key, value in weights.items() if not key.startswith("ranking_model.roberta.pooler.")}
    with torch.random.fork_rng(devices=[]):  # random weights, soon overwritten, shall not move the caller's stream
        model = encoders.build(backbone, labels=labels, pooled=pooled, attn_implementation=attn_implementation)
        module = Pruner(model, answer_head=answer_head)
    hub.fill(module, weights, what=what)
    return module


def _fresh_linear(inputs: int, outputs: int) -> nn.Linear:
    """Initialised as transformers does heads: normal with deviation 0.02, bias 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
