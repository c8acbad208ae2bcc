"""Loading pruners: every published layout against a reference forward, and what is wrong with a damaged one."""

import json
import math
import shutil

import fixtures_checkpoints as tiny
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_provence_checkpoint import rewrite
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel, PreTrainedTokenizerFast

from ctxprune.compressors.provence.model import load_pruner, new_pruner, save_pruner
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.formats import PairFormat, named_tokenizer, pair_format, plain_tokenizer, special_tokens

QUERY, PASSAGE = "what is the moon", "it orbits a red planet. mars, with two moons named after fear"

FAMILIES = {
    "provence": (tiny.provence, {}),
    "xprovence": (tiny.xprovence, {}),
    "xprovence, two-layer head": (tiny.xprovence, {"pooled": False}),
    "open bert": (tiny.open_bert, {}),
    "open bert, legacy": (tiny.open_bert, {"legacy": True}),
    "open roberta": (tiny.open_roberta, {}),
    "open roberta, legacy": (tiny.open_roberta, {"legacy": True}),
    "open modernbert": (tiny.open_modernbert, {}),
    "open modernbert, mean": (tiny.open_modernbert, {"pooling": "mean"}),
    "open modernbert, legacy": (tiny.open_modernbert, {"legacy": True}),
}


def ids_of(pruner, query=QUERY, passage=PASSAGE):
    encode = pruner.tokenizer.encode
    return encode(query, add_special_tokens=False).ids, encode(passage, add_special_tokens=False).ids


def forward(pruner, sequence):
    with torch.no_grad():
        return pruner.module(
            torch.from_numpy(sequence.ids)[None],
            torch.ones(1, len(sequence), dtype=torch.long),
            torch.from_numpy(sequence.type_ids)[None],
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_reference_outputs(family, attention, tmp_path):
    make, options = FAMILIES[family]
    checkpoint = make(tmp_path / "renamed", **options)
    pruner = load_pruner(checkpoint.folder, attn_implementation=attention)
    sequence = pruner.layout.build(*ids_of(pruner))
    outputs = forward(pruner, sequence)
    rank, token = checkpoint.reference(sequence.ids.tolist(), sequence.type_ids.tolist())
    torch.testing.assert_close(outputs["rank_logits"][0], rank, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs["token_logits"][0], token, atol=1e-4, rtol=1e-4)
    assert set(outputs) == {"rank_logits", "token_logits"}
    assert pruner.family == {"p": "provence", "x": "xprovence", "o": "open_provence"}[family[0]]
    assert pruner.score == ("sigmoid" if pruner.family == "open_provence" else "logit")
    assert pruner.max_length == (48 if pruner.family == "open_provence" else tiny.POSITIONS)
    assert not pruner.module.training


def test_layouts_are_those_of_training(tmp_path):
    formats = {
        name: load_pruner(make(tmp_path / name, **options).folder).layout for name, (make, options) in FAMILIES.items()
    }
    assert formats["provence"] == PairFormat((1,), (2,), (2,), 0)
    assert formats["xprovence"] == PairFormat((0,), (2,), (2,), 0)
    assert formats["open roberta"] == PairFormat((0,), (2, 2), (2,), 0)
    assert formats["open bert"] == PairFormat((2,), (3,), (3,), 1)
    assert formats["open modernbert"] == PairFormat((2,), (3,), (3,), 0)  # its tokenizer has no template


def test_build_puts_type_ids_on_passage_and_suffix():
    sequence = PairFormat((7,), (8, 8), (9,), 1).build([1, 2], [3])
    assert sequence.ids.tolist() == [7, 1, 2, 8, 8, 3, 9]
    assert sequence.type_ids.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert sequence.ids.dtype == sequence.type_ids.dtype == np.int64


@pytest.mark.parametrize("make", [tiny.bert_tokenizer, tiny.roberta_tokenizer, tiny.deberta_tokenizer])
def test_special_tokens_in_a_text_are_text(make):
    tokenizer = make()
    special = set(special_tokens(tokenizer).values())
    plain = plain_tokenizer(tokenizer)
    for name in special_tokens(tokenizer):
        for text in (name, f"moon {name} mars", f"x{name}y", name * 3):
            encoding = plain.encode(text, add_special_tokens=False)
            assert not special & set(encoding.ids), text
            covered = "".join(text[start:end] for start, end in dict.fromkeys(encoding.offsets))
            assert covered.replace(" ", "") == text.replace(" ", "")
    ordinary = "What is the moon of mars? it orbits a planet, 1,000 moons."
    assert plain.encode(ordinary.lower()).ids == make().encode(ordinary.lower()).ids


@pytest.mark.parametrize("make", [tiny.bert_tokenizer, tiny.roberta_tokenizer, tiny.deberta_tokenizer])
def test_plain_tokenizer_neither_cuts_nor_pads_and_can_be_saved_again(make, tmp_path):
    tokenizer = make()
    original = tokenizer.to_str()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for plain in (plain_tokenizer(tokenizer), plain_tokenizer(tmp_path / "tokenizer.json")):
        assert len(plain.encode(" ".join(["moon"] * 20), add_special_tokens=False).ids) == 20
        assert json.loads(named_tokenizer(plain).to_str()) == json.loads(original)
    assert tokenizer.truncation is not None  # the caller's own tokenizer is left alone
    assert pair_format(plain, type_ids=True) == pair_format(make(), type_ids=True)


def test_another_tokenizer_under_the_same_name_is_read_anew(tmp_path):
    file = tmp_path / "tokenizer.json"
    for make in (tiny.bert_tokenizer, tiny.roberta_tokenizer):
        make().save(str(file))
        assert plain_tokenizer(file).get_vocab_size() == make().get_vocab_size()
        assert set(special_tokens(plain_tokenizer(file))) == set(special_tokens(make()))


def test_tokenizers_that_cannot_be_used_say_so(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        plain_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        plain_tokenizer(tmp_path / "tokenizer.json")
    bare = Tokenizer.from_str(tiny.bert_tokenizer(template=False).to_str().replace("[SEP]", "[sep]"))
    with pytest.raises(CheckpointError, match=r"none of the tokens \[SEP\]"):
        pair_format(bare, type_ids=True)
    assert pair_format(bare, type_ids=True, sep_token="[sep]").middle == (3,)


@pytest.mark.parametrize(
    ("fields", "threshold"),
    [
        ({}, None),
        ({"default_threadshold": 0.1}, 0.1),
        ({"default_threshold": 0.2}, 0.2),
        ({"default_threadshold": None, "default_threshold": 0.2}, 0.2),
        ({"default_threadshold": 0.1, "default_threshold": 0.2}, 0.1),
    ],
)
def test_both_spellings_of_the_threshold(fields, threshold, tmp_path):
    assert load_pruner(tiny.open_bert(tmp_path, **fields).folder).default_threshold == threshold


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"default_threadshold": 1.5}, "must be a number in \\[0, 1\\], got 1.5"),
        ({"default_threadshold": "high"}, "got 'high'"),
        ({"max_length": -3}, "positive number of tokens, got -3"),
        ({"base_model_config": {"model_type": "llama"}}, "encoder of type 'llama'; supported are bert"),
        ({"base_model_config": {"hidden_size": 16}}, "encoder of type None"),
        ({"base_model_config": None, "base_model_name_or_path": None}, "neither base_model_config nor"),
        ({"answer_head": True}, "missing: answer_head.weight, answer_head.bias"),
    ],
)
def test_configs_that_make_no_sense(fields, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load_pruner(tiny.open_bert(tmp_path, **fields).folder)


def test_backbone_config_and_tokenizer_may_stand_elsewhere(tmp_path):
    base = tmp_path / "base"
    checkpoint = tiny.open_bert(tmp_path / "pruner", tokenizer_name_or_path=str(base))
    config = json.loads((checkpoint.folder / "config.json").read_text())
    base.mkdir()
    (base / "config.json").write_text(json.dumps(config.pop("base_model_config")))
    (checkpoint.folder / "config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    shutil.move(checkpoint.folder / "tokenizer.json", base / "tokenizer.json")
    assert load_pruner(checkpoint.folder).layout == PairFormat((2,), (3,), (3,), 1)


def test_tokenizer_is_built_from_an_older_vocabulary(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    vocab = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab()
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)), encoding="utf-8")
    pruner = load_pruner(checkpoint.folder)
    assert pruner.layout == PairFormat((2,), (3,), (3,), 1)
    assert pruner.tokenizer.encode("Moon [SEP]", add_special_tokens=False).tokens[:2] == ["moon", "["]


def plain_encoder(folder, *, pooler=False):
    tokenizer = tiny.bert_tokenizer()
    config = BertConfig(**tiny.SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=tiny.POSITIONS)
    base = tiny.randomised(BertModel(config, add_pooling_layer=pooler))
    tiny.write(folder, config.to_dict(), base.state_dict(), tokenizer)
    return base


@pytest.mark.parametrize("pooler", [False, True])
def test_new_pruner_keeps_the_base_and_draws_the_heads(pooler, tmp_path):
    base = plain_encoder(tmp_path, pooler=pooler)
    torch.manual_seed(3)
    first = new_pruner(tmp_path, answer_head=True)
    torch.manual_seed(3)
    again = new_pruner(tmp_path, answer_head=True)
    weights, repeated = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(weights[key], repeated[key]) for key in weights)
    for key, value in base.state_dict().items():
        assert torch.equal(weights[f"ranking_model.bert.{key}"], value)
    assert 0.005 < weights["pruning_head.classifier.weight"].std() < 0.05
    assert (first.max_length, first.score, first.layout.passage_type_id) == (tiny.POSITIONS, "sigmoid", 1)
    outputs = forward(first, first.layout.build(*ids_of(first)))
    assert outputs["rank_logits"].shape == (1, 1)
    assert outputs["answer_logits"].shape == outputs["token_logits"].shape[:2]


def test_new_pruner_takes_over_the_head_of_a_cross_encoder(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    ranking = {key.removeprefix("ranking_model."): value for key, value in weights.items() if "pruning" not in key}
    fields = json.loads((tmp_path / "config.json").read_text())["base_model_config"]
    tiny.write(tmp_path / "ranker", fields, ranking, tiny.bert_tokenizer())
    pruner = new_pruner(tmp_path / "ranker")
    sequence = pruner.layout.build(*ids_of(pruner))
    rank, _ = checkpoint.reference(sequence.ids.tolist(), sequence.type_ids.tolist())
    torch.testing.assert_close(forward(pruner, sequence)["rank_logits"][0], rank, atol=1e-4, rtol=1e-4)


def test_new_pruner_needs_a_whole_encoder(tmp_path):
    plain_encoder(tmp_path)
    rewrite(tmp_path, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(CheckpointError, match=r"missing: bert\.encoder\.layer\.1\.output\.dense\.weight"):
        new_pruner(tmp_path)


@pytest.mark.parametrize("make", [tiny.open_bert, tiny.open_roberta, tiny.open_modernbert])
def test_saved_pruners_load_again(make, tmp_path):
    pruner = load_pruner(make(tmp_path / "a", default_threadshold=0.1).folder)
    save_pruner(pruner, tmp_path / "b" / "c")
    again = load_pruner(tmp_path / "b" / "c")
    before, after = pruner.module.state_dict(), again.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (again.layout, again.max_length, again.default_threshold) == (pruner.layout, pruner.max_length, 0.1)
    assert ids_of(again, "<s> [CLS]") == ids_of(pruner, "<s> [CLS]")
    save_pruner(pruner, tmp_path / "d", default_threshold=0.3)
    assert load_pruner(tmp_path / "d").default_threshold == 0.3


def test_others_can_read_what_is_saved(tmp_path):
    """Stock transformers classes make sense of the ranking model and of the tokenizer, as OpenProvence's code does."""
    plain_encoder(tmp_path / "base")
    pruner = new_pruner(tmp_path / "base", answer_head=True)
    save_pruner(pruner, tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["model_type"], config["num_pruning_labels"]) == ("open_provence", 2)
    fields = dict(config["base_model_config"])
    stock = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(fields.pop("model_type"), **fields)
    ).eval()
    own = {
        key.removeprefix("ranking_model."): value for key, value in weights.items() if key.startswith("ranking_model.")
    }
    stock.load_state_dict(own)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    inputs = tokenizer(QUERY, PASSAGE, return_tensors="pt")
    sequence = pruner.layout.build(*ids_of(pruner))
    assert inputs["input_ids"][0].tolist() == sequence.ids.tolist()
    with torch.no_grad():
        logit = stock(**{key: inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids")}).logits
    assert math.isclose(logit.item(), forward(pruner, sequence)["rank_logits"].item(), abs_tol=1e-5)
    assert set(weights) - {f"ranking_model.{key}" for key in own} == {
        "pruning_head.classifier.weight",
        "pruning_head.classifier.bias",
        "answer_head.weight",
        "answer_head.bias",
    }
    assert load_pruner(tmp_path / "saved").module.answer_head is not None


def test_other_families_are_not_saved_in_a_layout_that_cannot_hold_them(tmp_path):
    with pytest.raises(InputError, match="got provence; copy its folder instead"):
        save_pruner(load_pruner(tiny.provence(tmp_path / "a").folder), tmp_path / "b")
    assert not (tmp_path / "b").exists()
