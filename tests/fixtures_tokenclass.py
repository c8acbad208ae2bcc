"""Tiny token classifiers, the same on every machine, in the layouts of the two published LLMLingua-2 checkpoints."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers
from transformers import BertConfig, BertForTokenClassification, XLMRobertaConfig, XLMRobertaForTokenClassification

from tests.fixtures_checkpoints import WORDS, bert_tokenizer, roberta_tokenizer

#: llmlingua tells the two kinds of tokenizer apart by these words in the path.
BERT, ROBERTA = "bert-base-multilingual-cased", "xlm-roberta-large"
#: Rows that llmlingua's checkpoints have for force tokens beyond the tokenizer's own.
MARKERS = 100
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def extended(tokenizer: Tokenizer) -> Tokenizer:
    """With the punctuation that the other tests' vocabularies do without."""
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary += [[character, -9.0] for character in "!()-"]
    else:
        vocabulary |= {piece: len(vocabulary) + place for place, piece in enumerate("!()-")}
    return Tokenizer.from_str(json.dumps(spec))


def seeded(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """numpy's streams stay the same over versions, which torch does not promise; keep log-odds spread around 0."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.from_numpy(random.standard_normal(tuple(parameter.shape)).astype(np.float32))
            parameter.copy_(1 + 0.2 * noise if "norm" in name.lower() and name.endswith("weight") else 0.4 * noise)
        module.classifier.weight *= 3.0
        module.classifier.bias.zero_()
    return module.eval()


def write_classifier(folder, model, tokenizer, roles) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    fields = model.config.to_dict() | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**roles, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512})
    )
    return folder


def bert_classifier(
    root: Path, *, seed: int = 3, positions: int = 512, markers: int = MARKERS, labels: int = 2
) -> Path:
    tokenizer = extended(bert_tokenizer())
    tokenizer.normalizer = None
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    size = tokenizer.get_vocab_size() + markers
    config = BertConfig(
        **SIZES, vocab_size=size, max_position_embeddings=positions, num_labels=labels, classifier_dropout=0.0
    )
    model = seeded(BertForTokenClassification._from_config(config, attn_implementation="eager"), seed)
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return write_classifier(root / BERT, model, tokenizer, roles | {"mask_token": "[MASK]"})


def roberta_classifier(root: Path, *, seed: int = 4, positions: int = 512, markers: int = MARKERS) -> Path:
    tokenizer = extended(roberta_tokenizer())
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    tokenizer.decoder = decoders.Metaspace()
    size = tokenizer.get_vocab_size() + markers
    config = XLMRobertaConfig(
        **SIZES, vocab_size=size, max_position_embeddings=positions + 2, type_vocab_size=1, pad_token_id=1
    )
    model = seeded(XLMRobertaForTokenClassification._from_config(config, attn_implementation="eager"), seed)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    return write_classifier(root / ROBERTA, model, tokenizer, roles | {"pad_token": "<pad>", "mask_token": "<mask>"})


def varied_text(words: int, *, seed: int, full_stops: bool = True) -> str:
    """Words of the tiny vocabularies and others, numbers, punctuation and capitals, in sentences of 5 to 20 words."""
    random = np.random.default_rng(seed)
    vocabulary = [*WORDS, "Mars", "1,000", "3.14", "cheese,", "x-ray", "(moon)", "well-known", "2020", "fear?", "UFO"]
    parts = []
    for _ in range(words):
        word = vocabulary[int(random.integers(len(vocabulary)))]
        ends = full_stops and random.random() < 0.1
        parts.append(word.rstrip(",?") + "." if ends else word)
    return " ".join(parts)


#: Contexts by name, for the decisions recorded from llmlingua and for ours.
CONTEXTS = {
    "short": ["The moon is made of cheese, and it orbits Mars. A red planet with two moons named after fear."],
    "lines": ["The moon of mars.\nIt orbits, and it is red!\nA planet with 1,000 moons?\n\nNamed after (two) fears."],
    "digits": ["In 2020 the 3.14 moons of mars were 1,000 km from 25 red planets, A7 and b2."],
    "repeats": ["the moon , , is . . red , mars , , , and . it . . orbits , the moon . . a planet , , named fear"],
    "long": [varied_text(900, seed=1)],
    "many": [varied_text(length, seed=length) for length in (60, 5, 30, 90, 12)],
}
#: (contexts, options of compress_prompt)
CASES = [
    *((name, {"rate": rate}) for name in ("short", "lines", "digits", "long") for rate in (0.25, 0.5, 0.7, 0.9)),
    ("short", {"rate": 0.5, "token_to_word": "first"}),
    ("long", {"rate": 0.33, "token_to_word": "first"}),
    ("lines", {"rate": 0.4, "force_tokens": [".", "?", "!", ","]}),
    ("lines", {"rate": 0.4, "force_tokens": ["\n", "."]}),
    ("lines", {"rate": 0.5, "force_tokens": ["moons of", "\n", "It"], "chunk_end_tokens": ["\n"]}),
    ("digits", {"rate": 0.3, "force_reserve_digit": True}),
    ("digits", {"rate": 0.5, "force_reserve_digit": True, "token_to_word": "first"}),
    ("repeats", {"rate": 0.5, "force_tokens": [",", "."], "drop_consecutive": True}),
    ("repeats", {"rate": 0.3, "force_tokens": [",", "."], "drop_consecutive": False}),
    ("long", {"target_token": 400}),
    ("long", {"rate": 0.5, "chunk_end_tokens": [","]}),
    ("many", {"rate": 0.5}),
    ("many", {"rate": 0.5, "use_context_level_filter": False}),
    ("many", {"target_token": 100}),
    ("many", {"rate": 0.4, "target_context": 2}),
    ("many", {"rate": 0.6, "context_level_rate": 0.5, "force_context_ids": [1]}),
    ("many", {"rate": 0.6, "context_level_target_token": 120}),
]


class ThirdsCounter:
    """One token for every three characters begun: what stood in for llmlingua's counter when it was recorded."""

    name = "thirds"
    exact = True

    def count(self, texts):
        return [-(-len(text) // 3) for text in texts]
