"""Sentences by a reranker: probabilities, documents, windows and warnings, with real cross-encoders from disk."""

import json
import math

import fixtures_checkpoints as tiny
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ctxprune.compressors.sentences import DSLR
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.encoders import CrossEncoderScorer
from ctxprune.models.formats import window_starts
from ctxprune.text import split_sentences
from ctxprune.types import Context, Document, Summary

MARS = "Mars orbits far out. It has two moons. Cheese is made of milk."
CATS = "Cats sleep. Dogs bark at the moon."


class Words:
    """A scorer that answers from a table: the logit of the first word that a sentence holds, else -4."""

    def __init__(self, **logits):
        self.logits = logits
        self.calls = []

    def score_pairs(self, pairs):
        self.calls.append(list(pairs))
        return [next((logit for word, logit in self.logits.items() if word in text), -4.0) for _, text in pairs]


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def test_sentences_score_their_probability_and_documents_their_best():
    scorer = Words(moons=2.0, moon=0.5)
    context = Context.of("moons of mars", [MARS, CATS, ""])
    mars, cats, empty = DSLR(scorer).score([context])[0].extracts
    assert [unit.score for unit in mars.units] == pytest.approx([sigmoid(-4), sigmoid(2), sigmoid(-4)])
    assert mars.score == pytest.approx(sigmoid(2))
    assert cats.score == pytest.approx(sigmoid(0.5))
    assert (empty.units, empty.score) == ((), None)
    assert scorer.calls == [
        [("moons of mars", text[span.start : span.end]) for text in (MARS, CATS) for span in split_sentences(text)]
    ]


def test_the_default_threshold_is_a_logit_of_zero():
    context = Context.of("moons of mars", [MARS, CATS])
    compressed = DSLR(Words(moons=0.01, moon=-0.01)).compress([context])[0]
    assert [extract.text for extract in compressed.extracts] == ["It has two moons.", ""]
    assert (
        DSLR(Words(moons=0.01, moon=-0.01)).compress([context], threshold=0.4)[0].extracts[1].text
        == "Dogs bark at the moon."
    )


def test_only_what_an_earlier_compressor_kept_is_judged():
    first = DSLR(Words(moons=3.0, far=3.0)).compress([Context.of("q", [Document(MARS)])])
    scorer = Words(moons=3.0)
    second = DSLR(scorer).compress(first)[0].extracts[0]
    assert [text for _, text in scorer.calls[0]] == ["Mars orbits far out.", "It has two moons."]
    assert second.text == "It has two moons."
    assert second.source.text[slice(*second.slices()[0])] == second.text


@given(st.lists(st.lists(st.sampled_from([MARS, CATS, "", "One."]), max_size=3), max_size=4))
def test_contexts_do_not_depend_on_their_batch(batches):
    contexts = [Context.of(f"query {place}", documents) for place, documents in enumerate(batches)]
    compressor = DSLR(Words(moons=2.0, Dogs=1.0))
    assert compressor.score(contexts) == [compressor.score([context])[0] for context in contexts]


def test_other_pieces_pass_through():
    summary = Summary("short", (Document("long"),))
    scorer = Words()
    context = Context("q", (summary,))
    assert DSLR(scorer).score([context]) == [context]
    assert scorer.calls == []


@pytest.mark.parametrize(
    ("scores", "message"),
    [([1.0], "shape \\(1,\\) for 3 pairs"), ([0.0, math.nan, 0.0], "nan for the sentence 'It has")],
)
def test_a_scorer_that_misbehaves(scores, message):
    class Broken:
        def score_pairs(self, pairs):
            return scores

    with pytest.raises(InputError, match=message):
        DSLR(Broken()).score([Context.of("q", [MARS])])


def cross_encoder(folder, *, labels=1, make=tiny.open_bert):
    """A plain Hugging Face cross-encoder and reference(ids, types) -> logits (labels,)."""
    pruner = make(folder / "pruner")
    fields = json.loads((pruner.folder / "config.json").read_text())["base_model_config"]
    fields = fields | {"num_labels": labels, "id2label": {place: str(place) for place in range(labels)}}
    fields["label2id"] = {str(place): place for place in range(labels)}
    weights = {
        key.removeprefix("ranking_model."): value
        for key, value in load_file(pruner.folder / "model.safetensors").items()
        if key.startswith("ranking_model.")
    }
    head = "classifier.out_proj" if "classifier.out_proj.weight" in weights else "classifier"
    second = tiny.linear(1, 9)
    for name, extra in zip(("weight", "bias"), second, strict=True):
        weights[f"{head}.{name}"] = torch.cat([weights[f"{head}.{name}"], *[extra] * (labels - 1)])
    make_tokenizer = tiny.roberta_tokenizer if make is tiny.open_roberta else tiny.bert_tokenizer
    tiny.write(folder / "ranker", fields | {"architectures": None, "dtype": "float32"}, weights, make_tokenizer())
    return folder / "ranker", pruner.reference


@pytest.mark.parametrize("make", [tiny.open_bert, tiny.open_roberta])
def test_pairs_score_as_the_reference_does(make, tmp_path):
    folder, reference = cross_encoder(tmp_path, make=make)
    scorer = CrossEncoderScorer.from_pretrained(folder, device="cpu")
    tokenizer = make_tokenizer(make)
    pairs = [("what is mars", "a red planet"), ("two moons", "it orbits, mars"), ("moon", "")]
    for (query, passage), score in zip(pairs, scorer.score_pairs(pairs), strict=True):
        encoding = tokenizer.encode(query, passage)
        assert score == pytest.approx(reference(encoding.ids, encoding.type_ids)[0].item(), abs=1e-4)
    assert scorer.score_pairs([]) == []


def make_tokenizer(make):
    return tiny.roberta_tokenizer() if make is tiny.open_roberta else tiny.bert_tokenizer()


def test_two_labels_are_read_as_log_odds(tmp_path):
    folder, _ = cross_encoder(tmp_path, labels=2)
    from transformers import AutoModelForSequenceClassification

    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoding = tiny.bert_tokenizer().encode("what is mars", "a red planet")
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor([encoding.ids]), token_type_ids=torch.tensor([encoding.type_ids])).logits[
            0
        ]
    (score,) = CrossEncoderScorer.from_pretrained(folder, device="cpu").score_pairs([("what is mars", "a red planet")])
    assert sigmoid(score) == pytest.approx(torch.softmax(logits, -1)[1].item(), abs=1e-5)


def test_a_sentence_longer_than_the_input_scores_as_its_best_window(tmp_path):
    folder, reference = cross_encoder(tmp_path)
    scorer = CrossEncoderScorer.from_pretrained(folder, device="cpu", max_length=24)
    words = np.random.default_rng(0).choice(tiny.WORDS, 60).tolist()
    tokenizer = tiny.bert_tokenizer()
    vocabulary, room = tokenizer.get_vocab(), 24 - 3 - 2
    windows = [words[start : start + room] for start in window_starts(len(words), room)]
    assert {place for start in window_starts(len(words), room) for place in range(start, start + room)} >= set(
        range(60)
    )
    logits = []
    for window in windows:
        encoding = tokenizer.encode("what moon", " ".join(window))
        assert len(encoding.ids) == 24
        logits.append(reference(encoding.ids, encoding.type_ids)[0].item())
    assert scorer.score_pairs([("what moon", " ".join(words))]) == [pytest.approx(max(logits), abs=1e-4)]
    assert len(windows) > 3
    assert all(word in vocabulary for word in words)


def test_a_long_query_is_cut_with_a_warning(tmp_path):
    compressor = DSLR.from_pretrained(cross_encoder(tmp_path)[0], device="cpu")
    short, long = Context.of("moon", [MARS]), Context.of("moon " * 40, [MARS])
    assert compressor.score([short])[0].warnings == ()
    (warning,) = compressor.score([long])[0].warnings
    assert "query is longer" in warning


def test_special_tokens_and_surrogates_in_texts(tmp_path):
    scorer = CrossEncoderScorer.from_pretrained(cross_encoder(tmp_path)[0], device="cpu")
    plain, special = scorer.score_pairs([("moon", "mars moon"), ("moon", "mars [SEP] moon")])
    assert plain != special
    assert np.isfinite(scorer.score_pairs([("\ud800", "mars \udfff"), ("", ""), ("[SEP]", "[PAD]")])).all()


def test_models_that_are_no_cross_encoders(tmp_path):
    folder, _ = cross_encoder(tmp_path / "a", labels=3)
    with pytest.raises(CheckpointError, match="has 3 labels; a cross-encoder for relevance has 1 or 2"):
        CrossEncoderScorer.from_pretrained(folder)
    folder, _ = cross_encoder(tmp_path / "b")
    weights = load_file(folder / "model.safetensors")
    encoder = {key: value for key, value in weights.items() if not key.startswith("classifier")}
    tiny.write(folder, json.loads((folder / "config.json").read_text()), encoder, None)
    with pytest.raises(CheckpointError, match=r"no trained classifier \(missing classifier"):
        CrossEncoderScorer.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"cannot load .* as a cross-encoder"):
        CrossEncoderScorer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="is no folder"):
        DSLR.from_pretrained(tmp_path / "nowhere")
