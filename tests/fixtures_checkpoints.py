"""Tiny random checkpoints in exactly the published layouts, each with a slow reference forward written out by hand."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    ModernBertConfig,
    ModernBertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WIDTH, POSITIONS = 16, 64
WORDS = [
    *("what", "is", "the", "moon", "of", "mars", "cheese", "and", "it", "orbits"),
    *("a", "red", "planet", "with", "two", "moons", "named", "after", "fear"),
]
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?<>[]/"
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@dataclass
class Tiny:
    """A checkpoint's folder and reference(ids, types) -> (rank logits (labels,), token logits (seq, 2))."""

    folder: Path
    reference: Callable[[list[int], list[int]], tuple[torch.Tensor, torch.Tensor]]


def bert_tokenizer(*, template: bool = True) -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *WORDS, *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    vocab = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
        )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def unigram_tokenizer(specials: list[str], unknown: str) -> Tokenizer:
    """As sentencepiece makes them: special tokens are entries of the vocabulary, with the best score of all."""
    pieces = [(special, 0.0) for special in specials]
    pieces += [(piece, -9.0) for piece in dict.fromkeys("▁" + CHARACTERS)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS if len(word) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=specials.index(unknown)))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def roberta_tokenizer() -> Tokenizer:
    tokenizer = unigram_tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    tokenizer = unigram_tokenizer(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights far from their initial values, norms included, so that a weight in the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name.lower() and name.endswith("weight") else 0.3 * noise)
    return module.eval()


def linear(rows: int, seed: int, columns: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * 0.3, torch.randn(rows, generator=generator) * 0.3


def write(folder: Path, config: dict, weights: dict[str, torch.Tensor], tokenizer: Tokenizer | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key: value.detach().clone().contiguous() for key, value in weights.items()}, folder / "model.safetensors"
    )
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))


def prefixed(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{key}": value for key, value in module.state_dict().items()}


def named(prefix: str, pair: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.weight": pair[0], f"{prefix}.bias": pair[1]}


def apply(pair: tuple[torch.Tensor, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    return states @ pair[0].T + pair[1]


def run(base: torch.nn.Module, ids: list[int], types: list[int] | None) -> torch.Tensor:
    """Last hidden states of one sequence (seq, width)."""
    inputs = {"input_ids": torch.tensor([ids])}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        return base(**inputs).last_hidden_state[0]


def provence(folder: Path) -> Tiny:
    tokenizer = deberta_tokenizer()
    config = DebertaV2Config(
        **SIZES,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=POSITIONS,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        pooler_hidden_size=WIDTH,
        pooler_hidden_act="gelu",
    )
    base = randomised(DebertaV2Model._from_config(config, attn_implementation="eager"))
    pooler, rank, token = linear(WIDTH, 1), linear(1, 2), linear(2, 3)
    weights = prefixed("deberta", base) | named("pooler.dense", pooler)
    weights |= named("classifier", rank) | named("token_classifier", token)
    fields = config.to_dict() | {
        "model_type": "Provence",
        "architectures": ["Provence"],
        "auto_map": {"AutoConfig": "modeling_provence.ProvenceConfig", "AutoModel": "modeling_provence.Provence"},
    }
    write(folder, fields, weights, tokenizer)
    (folder / "modeling_provence.py").write_text("raise SystemExit('code of a checkpoint was run')")

    def reference(ids, types):
        hidden = run(base, ids, None)
        pooled = torch.nn.functional.gelu(apply(pooler, hidden[0]))
        return apply(rank, pooled), apply(token, hidden)

    return Tiny(folder, reference)


def roberta_config(tokenizer: Tokenizer) -> XLMRobertaConfig:
    size = tokenizer.get_vocab_size()
    return XLMRobertaConfig(
        **SIZES, vocab_size=size, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1
    )


def xprovence(folder: Path, *, pooled: bool = True) -> Tiny:
    """pooled: one linear layer over the pooler; else the stock two-layer head beside an idle pooler."""
    tokenizer = roberta_tokenizer()
    config = roberta_config(tokenizer)
    base = randomised(XLMRobertaModel._from_config(config, attn_implementation="eager", add_pooling_layer=True))
    dense, rank, token = linear(WIDTH, 1), linear(1, 2), linear(2, 3)
    weights = prefixed("roberta", base) | named("token_classifier", token)
    if pooled:
        weights |= named("classifier", rank)
        dense = (base.pooler.dense.weight.detach(), base.pooler.dense.bias.detach())
    else:
        weights |= named("classifier.dense", dense) | named("classifier.out_proj", rank)
    fields = config.to_dict() | {"model_type": "XProvence", "auto_map": {"AutoModel": "modeling_xprovence.XProvence"}}
    write(folder, fields, weights, tokenizer)

    def reference(ids, types):
        hidden = run(base, ids, None)
        return apply(rank, torch.tanh(apply(dense, hidden[0]))), apply(token, hidden)

    return Tiny(folder, reference)


def open_fields(config, **changes) -> dict:
    """config.json of an OpenProvence checkpoint."""
    return {
        "architectures": ["OpenProvenceModel"],
        "model_type": "open_provence",
        "mode": "reranking_pruning",
        "auto_map": {"AutoModel": "modeling_open_provence_standalone.OpenProvenceModel"},
        "base_model_config": config.to_dict() | {"transformers_version": "4.57.1", "dtype": "bfloat16"},
        "base_model_name_or_path": "somebody/base-model",
        "tokenizer_name_or_path": "somebody/base-model",
        "encoder_architecture": config.model_type,
        "pruning_config": {
            "hidden_size": WIDTH,
            "num_labels": 2,
            "classifier_dropout": 0.1,
            "sentence_pooling": "mean",
        },
        "max_length": 48,
        "num_labels": 1,
        "num_pruning_labels": 2,
    } | changes


def write_open(folder, config, ranking, token, tokenizer, *, legacy, **changes) -> None:
    prefix = "" if legacy else "ranking_model."
    weights = {prefix + key: value for key, value in ranking.items()} | named("pruning_head.classifier", token)
    write(folder, open_fields(config, **changes), weights, tokenizer)


def open_bert(folder: Path, *, legacy: bool = False, **changes) -> Tiny:
    tokenizer = bert_tokenizer()
    config = BertConfig(**SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=POSITIONS)
    base = randomised(BertModel._from_config(config, attn_implementation="eager"))
    rank, token = linear(1, 2), linear(2, 3)
    ranking = prefixed("bert", base) | named("classifier", rank)
    write_open(folder, config, ranking, token, tokenizer, legacy=legacy, **changes)

    def reference(ids, types):
        hidden = run(base, ids, types)
        pooled = torch.tanh(hidden[0] @ base.pooler.dense.weight.T + base.pooler.dense.bias)
        return apply(rank, pooled.detach()), apply(token, hidden)

    return Tiny(folder, reference)


def open_roberta(folder: Path, *, legacy: bool = False, **changes) -> Tiny:
    tokenizer = roberta_tokenizer()
    config = roberta_config(tokenizer)
    base = randomised(XLMRobertaModel._from_config(config, attn_implementation="eager", add_pooling_layer=False))
    dense, rank, token = linear(WIDTH, 1), linear(1, 2), linear(2, 3)
    ranking = prefixed("roberta", base) | named("classifier.dense", dense) | named("classifier.out_proj", rank)
    write_open(folder, config, ranking, token, tokenizer, legacy=legacy, **changes)

    def reference(ids, types):
        hidden = run(base, ids, None)
        return apply(rank, torch.tanh(apply(dense, hidden[0]))), apply(token, hidden)

    return Tiny(folder, reference)


def open_modernbert(folder: Path, *, legacy: bool = False, pooling: str = "cls", **changes) -> Tiny:
    """The token head reads the states before the last norm, the ranking head those after it."""
    tokenizer = bert_tokenizer(template=False)
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    sizes = SIZES | {"num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 3}
    config = ModernBertConfig(
        **sizes,
        **special,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=POSITIONS,
        classifier_pooling=pooling,
    )
    base = randomised(ModernBertModel._from_config(config, attn_implementation="eager"))
    dense, rank, token = torch.randn(WIDTH, WIDTH) * 0.3, linear(1, 2), linear(2, 3)
    scale = 1 + 0.3 * torch.randn(WIDTH)
    ranking = prefixed("model", base) | named("classifier", rank)
    ranking |= {"head.dense.weight": dense, "head.norm.weight": scale}
    write_open(folder, config, ranking, token, tokenizer, legacy=legacy, **changes)

    def reference(ids, types):
        seen = []
        hook = base.final_norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
        hidden = run(base, ids, None)
        hook.remove()
        pooled = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        features = torch.nn.functional.gelu(pooled @ dense.T)
        normed = torch.nn.functional.layer_norm(features, (WIDTH,), eps=config.norm_eps) * scale
        return apply(rank, normed), apply(token, seen[0])

    return Tiny(folder, reference)
