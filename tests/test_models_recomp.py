"""RECOMP's dual encoder in its three layouts, each against a slow reference that reads one text at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, BertModel, XLMRobertaConfig, XLMRobertaModel

from ctxprune.compressors.recomp.vectors import load_dual_encoder, load_export
from ctxprune.errors import CheckpointError
from ctxprune.models.sentence_encoders import SentenceTransformerPair
from tests.fixtures_checkpoints import POSITIONS, SIZES, bert_tokenizer, randomised, roberta_tokenizer, write

TEXTS = ["the moon", "", "what is the red planet named after, and is it mars?", "a", "[SEP] fear <s> and cheese"]
LONG = "two moons orbits mars " * 40

KINDS = {
    "bert": (BertModel, BertConfig, bert_tokenizer, {"pad_token_id": 0}),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, roberta_tokenizer, {"pad_token_id": 1, "type_vocab_size": 1}),
}


def encoder_of(kind):
    model, config, tokenizer, options = KINDS[kind]
    tokenizer = tokenizer()
    config = config(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=POSITIONS, **SIZES, **options)
    return randomised(model(config)), tokenizer


def bare_folder(folder: Path, kind: str, *, architecture: str = "Contriever", prefix: str = "") -> torch.nn.Module:
    """A checkpoint as RECOMP published them: the weights of a stock encoder, its pooler included, and no more."""
    module, tokenizer = encoder_of(kind)
    weights = {f"{prefix}{key}": value for key, value in module.state_dict().items()}
    write(folder, module.config.to_dict() | {"architectures": [architecture]}, weights, tokenizer)
    return module


def pooled(module: torch.nn.Module, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return module(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_a_bare_encoder_is_the_mean_over_its_tokens_not_normalised(tmp_path, kind, prefixed):
    prefix = {"bert": "bert.", "xlm-roberta": "roberta."}[kind] if prefixed else ""
    module = bare_folder(tmp_path, kind, prefix=prefix)
    encoder = load_dual_encoder(tmp_path, device="cpu")
    tokenizer = encoder.tokenizer
    around = encoder.layout.prefix, encoder.layout.suffix
    expected = [
        pooled(module, [*around[0], *tokenizer.encode(text, add_special_tokens=False).ids, *around[1]])
        for text in TEXTS
    ]
    assert encoder.similarity == "dot" and encoder.with_title
    np.testing.assert_allclose(encoder.embed_sentences(TEXTS), expected, atol=1e-5)
    np.testing.assert_array_equal(encoder.embed_queries(TEXTS), encoder.embed_sentences(TEXTS))


def test_special_tokens_stand_around_a_text_and_never_come_from_it(tmp_path):
    bare_folder(tmp_path, "bert")
    encoder = load_dual_encoder(tmp_path, device="cpu")
    specials = bert_tokenizer().encode("a").ids
    assert [*encoder.layout.prefix, *encoder.layout.suffix] == [specials[0], specials[-1]]
    assert specials[-1] not in encoder.tokenizer.encode("[SEP]", add_special_tokens=False).ids


def test_a_long_text_is_averaged_over_all_its_tokens(tmp_path):
    module = bare_folder(tmp_path, "bert")
    encoder = load_dual_encoder(tmp_path, device="cpu")
    ids = encoder.tokenizer.encode(LONG, add_special_tokens=False).ids
    room = POSITIONS - 2
    pieces = [
        [*encoder.layout.prefix, *ids[first : first + room], *encoder.layout.suffix]
        for first in range(0, len(ids), room)
    ]
    assert len(pieces) > 2
    total = sum(pooled(module, piece) * len(piece) for piece in pieces)
    np.testing.assert_allclose(
        encoder.embed_sentences([LONG])[0], total / sum(len(piece) for piece in pieces), atol=1e-5
    )


def test_no_texts_no_vectors(tmp_path):
    bare_folder(tmp_path, "bert")
    assert len(load_dual_encoder(tmp_path, device="cpu").embed_sentences([])) == 0


@pytest.mark.parametrize(
    ("architecture", "extra", "message"),
    [
        ("BertForTokenClassification", {}, "needs a bare encoder"),
        ("T5ForConditionalGeneration", {"model_type": "t5", "is_encoder_decoder": True}, "needs a bare encoder"),
        ("GPT2LMHeadModel", {"model_type": "gpt2"}, "needs a bare encoder"),
        ("BertModel", {"is_decoder": True}, "needs a bare encoder"),
        ("LlamaModel", {"model_type": "llama"}, "encoder of type 'llama'"),
    ],
)
def test_another_architecture_is_refused_by_name(tmp_path, architecture, extra, message):
    bare_folder(tmp_path, "bert", architecture=architecture)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | extra))
    with pytest.raises(CheckpointError, match=message):
        load_dual_encoder(tmp_path)


def test_a_head_that_the_config_hides_is_refused_by_its_weights(tmp_path):
    module, tokenizer = encoder_of("bert")
    model = BertForTokenClassification(module.config)
    write(tmp_path, module.config.to_dict() | {"architectures": []}, model.state_dict(), tokenizer)
    with pytest.raises(CheckpointError, match=r"unexpected: classifier"):
        load_dual_encoder(tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_dual_encoder(tmp_path)
    with pytest.raises(CheckpointError, match="is no folder"):
        load_dual_encoder(tmp_path / "missing")


def transformer_folder(folder: Path, *, similarity: str = "cosine", mode: str = "mean", prompts=None) -> Path:
    """A sentence-transformers model in the layout that its library writes, without a module that normalises."""
    module, tokenizer = encoder_of("bert")
    write(folder, module.config.to_dict() | {"architectures": ["BertModel"]}, module.state_dict(), tokenizer)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    files = {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast", "model_max_length": POSITIONS, **special},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": SIZES["hidden_size"],
            "pooling_mode_cls_token": mode == "cls",
            "pooling_mode_mean_tokens": mode == "mean",
        },
        "config_sentence_transformers.json": {"similarity_fn_name": similarity, "prompts": prompts or {}},
    }
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_sentence_transformer_pools_and_compares_as_its_files_say(tmp_path, mode, similarity):
    folder = transformer_folder(tmp_path, similarity=similarity, mode=mode)
    encoder = load_dual_encoder(str(folder), device="cpu")
    assert isinstance(encoder, SentenceTransformerPair) and encoder.similarity == similarity
    module, tokenizer = encoder_of("bert")
    texts = ["the moon", "what is the red planet named after, and is it mars?"]
    for text, vector in zip(texts, encoder.embed_sentences(texts), strict=True):
        with torch.no_grad():
            states = module(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        expected = (states[0] if mode == "cls" else states.mean(0)).numpy()
        if similarity == "cosine":
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_a_sentence_transformers_prompts_are_used(tmp_path):
    folder = transformer_folder(tmp_path, prompts={"query": "what is ", "document": "the "})
    encoder = load_dual_encoder(folder, device="cpu")
    plain = load_dual_encoder(transformer_folder(tmp_path / "plain"), device="cpu")
    np.testing.assert_allclose(encoder.embed_queries(["moon"]), plain.embed_queries(["what is moon"]), atol=1e-6)
    np.testing.assert_allclose(encoder.embed_sentences(["moon"]), plain.embed_sentences(["the moon"]), atol=1e-6)


def test_a_distance_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="by euclidean; supported are cosine and dot"):
        load_dual_encoder(transformer_folder(tmp_path, similarity="euclidean"), device="cpu")


SETTINGS = {"pooling": "mean", "similarity": "cosine", "max_tokens": 16}


def export_folder(folder: Path, **settings) -> Path:
    """The bundled encoder's graph under settings of its own."""
    from ctxprune.models.sentence_encoders import BUNDLED_FOLDER
    from ctxprune.runtime.weights import model_file

    for name in ("model.onnx", "tokenizer.json", "shared.json"):
        (folder / name).symlink_to(model_file(BUNDLED_FOLDER, name))
    (folder / "recomp.json").write_text(json.dumps(SETTINGS | settings))
    return folder


def test_an_export_agrees_with_the_bundled_encoder(tmp_path):
    from ctxprune.models.sentence_encoders import BundledEncoder

    encoder = load_dual_encoder(export_folder(tmp_path, max_tokens=256, with_title=False, default_threshold=0.3))
    texts = ["A cat sat on the mat.", "Volcanoes erupt molten rock.", ""]
    np.testing.assert_allclose(encoder.embed_sentences(texts), BundledEncoder().embed(texts), atol=1e-6)
    assert (encoder.name, encoder.with_title, encoder.default_threshold) == (tmp_path.name, False, 0.3)


def test_an_exports_similarity_window_and_prefixes_hold(tmp_path):
    encoder = load_export(export_folder(tmp_path, similarity="dot", query_prefix="query: ", name="mini"))
    (tmp_path / "plain").mkdir()
    plain = load_export(export_folder(tmp_path / "plain", similarity="dot"))
    assert encoder.name == "mini"
    np.testing.assert_array_equal(encoder.embed_queries(["moons"]), plain.embed_queries(["query: moons"]))
    np.testing.assert_array_equal(encoder.embed_sentences(["moons"]), plain.embed_sentences(["moons"]))
    assert abs(np.linalg.norm(encoder.embed_sentences(["moons"])) - 1) > 0.1
    end = "It is about moons." + " And so on." * 20
    assert np.abs(plain.embed_sentences([end + " Jupiter."]) - plain.embed_sentences([end])).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "cls"}, "pooling must be 'mean', got 'cls'"),
        ({"similarity": "euclidean"}, "similarity must be one of cosine, dot"),
        ({"max_tokens": 2}, "max_tokens must be at least 3, got 2"),
        ({"max_tokens": None}, "missing or damaged"),
    ],
)
def test_bad_settings_name_the_value(tmp_path, settings, message):
    with pytest.raises(CheckpointError, match=message):
        load_export(export_folder(tmp_path, **settings))
