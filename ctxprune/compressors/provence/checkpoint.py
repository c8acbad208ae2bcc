"""What the files of the Provence families say: which family, which encoder, which names, lengths and thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models import encoders, hub
from ctxprune.models.formats import PairFormat, special_tokens

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
