"""Query-aware pruners after Provence: one encoder pass gives a relevance score and a keep logit for every token.

Chirkova et al., "Provence: efficient and robust context pruning for retrieval-augmented generation", ICLR 2025. Loads
Provence (DeBERTa-v3), XProvence (XLM-R), OpenProvence (BERT, XLM-R, ModernBERT) and what our trainer saves, which is
the OpenProvence layout. No code of a checkpoint is ever run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ctxprune.compressors.provence import checkpoint
from ctxprune.compressors.provence.checkpoint import Family
from ctxprune.models import encoders, hub
from ctxprune.models.formats import PairFormat, named_tokenizer


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
    family = checkpoint.detect_family(config, weights, what=str(source))
    what = f"the {family} checkpoint {source}"
    backbone = checkpoint.encoder_config(family, config, what=what)
    weights = checkpoint.open_provence_keys(family, weights)
    module = _filled(backbone, weights, bool(config.get("answer_head")), attn_implementation, what)
    tokenizer = hub.read_tokenizer(
        folder, backbone, config.get("tokenizer_name_or_path"), config.get("base_model_name_or_path")
    )
    naver = family != "open_provence"
    return LoadedPruner(
        module=module.eval(),
        tokenizer=tokenizer,
        layout=encoders.layout(tokenizer, folder, backbone, single_separator=naver),
        max_length=encoders.max_length(None if naver else config.get("max_length"), backbone),
        default_threshold=checkpoint.default_threshold(config, what=what),
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
    hub.fill(model, checkpoint.with_fresh_heads(model, hub.read_weights(folder)), what=what)
    tokenizer = hub.read_tokenizer(folder, config)
    return LoadedPruner(
        module=Pruner(model, answer_head=answer_head).eval(),
        tokenizer=tokenizer,
        layout=encoders.layout(tokenizer, folder, config, single_separator=False),
        max_length=encoders.max_length(max_length, config),
        default_threshold=None,
        family="open_provence",
        score="sigmoid",
    )


def save_pruner(pruner: LoadedPruner, folder: str | Path, *, default_threshold: float | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer in the OpenProvence layout, for `load_pruner` and others.

    default_threshold: stored as the checkpoint's own (default: what the pruner came with). Weights are saved in fp32.
    Raises InputError for a Provence or XProvence pruner, whose inputs and scores the layout cannot describe.
    """
    fields = checkpoint.config_fields(
        pruner.module.ranking_model.config,
        family=pruner.family,
        max_length=pruner.max_length,
        default_threshold=pruner.default_threshold if default_threshold is None else default_threshold,
        answer_head=pruner.module.answer_head is not None,
    )
    names = checkpoint.special_names(pruner.tokenizer, pruner.layout)
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
    labels, pooled = checkpoint.ranking_head(weights, what=what)
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
