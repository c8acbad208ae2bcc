import re
import threading

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification

from ctxprune import Context, Document, Pipeline, Policy
from ctxprune.compressors.llmlingua.compressor import LLMLingua2, llmlingua2
from ctxprune.compressors.llmlingua.model import WordModel, load_word_model
from ctxprune.compressors.llmlingua.words import word_offsets
from ctxprune.errors import BudgetError, CheckpointError, InputError, UnknownNameError
from ctxprune.prompt import count_contexts, readable_text
from ctxprune.tokens import WordCounter
from tests.fixtures_scoring import LetterCompressor
from tests.fixtures_tokenclass import bert_classifier, roberta_classifier, varied_text

TEXT = (
    "# Moons of Mars\n\nThe red planet has two moons, named after fear.\n- Phobos is 22.2 km wide.\n"
    "- See https://mars.org/moons?x=1,2 or mail a.b@mars.org on 5 May 2020.\n"
    "日本語のテキスト costs $1,000,000 <s> [SEP]."
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifiers")
    return {"bert": bert_classifier(root), "roberta": roberta_classifier(root)}


@pytest.fixture(scope="module")
def models(folders):
    return {kind: load_word_model(str(folder), device="cpu") for kind, folder in folders.items()}


def text_of(compressor, *texts, **options):
    (context,) = compressor.compress([Context.of("", list(texts))], **options)
    return readable_text(context)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_probabilities_are_those_of_transformers(kind, folders, models):
    text = "the moon orbits mars and a red planet"
    reading = models[kind].read([text])[0]
    reference = AutoModelForTokenClassification.from_pretrained(folders[kind]).eval()
    ids = models[kind].tokenizer.encode(text).ids
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits.softmax(-1)[0, 1:-1, 1].numpy()
    np.testing.assert_allclose(reading.keep, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_word_probability_is_mean_or_first_of_its_tokens(kind, models):
    text = TEXT[:150]
    reading = models[kind].read([text])[0]
    for how in ("mean", "first"):
        words = LLMLingua2(models[kind], token_to_word=how).words([text])[0]
        for start, end, score in zip(words.starts, words.ends, words.scores, strict=True):
            inside = [
                keep
                for (first, last), keep in zip(reading.offsets, reading.keep, strict=True)
                if last > start and first < end
            ]
            assert score == pytest.approx(inside[0] if how == "first" else np.mean(inside))


def test_long_texts_are_read_in_windows_without_neighbours_changing_scores(tmp_path):
    model = load_word_model(str(bert_classifier(tmp_path, positions=64)), device="cpu")
    texts = [varied_text(300, seed=5), "red " * 3, "x" * 600, varied_text(5000, seed=6, full_stops=False)[:9000]]
    together = model.read(texts)
    for text, reading in zip(texts, together, strict=True):
        alone = model.read([text])[0]
        np.testing.assert_allclose(reading.keep, alone.keep, atol=1e-4)
        assert len(reading.keep) == len(reading.offsets) == len(model.tokenizer.encode(text, add_special_tokens=False))


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(st.sampled_from([*"abmoons.,-?#<> \n12日本", "é", "\ud800", "\u200b", "☃"]), max_size=80),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    force=st.sampled_from([(), (".", "mo"), (",", "\n", "-")]),
    scope=st.sampled_from(["context", "document"]),
)
def test_lower_rates_keep_a_subset_within_the_budget(models, text, rates, force, scope):
    contexts = [Context.of("", [text, "the red moon of mars"])]
    counter = WordCounter()
    kept = []
    for rate in rates:
        options = {"rate": rate, "force_tokens": force, "scope": scope, "counter": counter}
        (context,) = LLMLingua2(models["bert"], **options).compress(contexts)
        for extract in context.extracts:
            for start, end in extract.slices():
                assert extract.source.text[start:end] in extract.text
        if rate == 1.0:
            assert context == contexts[0]
        if not any("exceeded" in warning for warning in context.warnings) and scope == "context":
            assert count_contexts([context], counter)[0] <= rate * count_contexts(contexts, counter)[0] + 1e-9
        kept.append(
            {
                (extract.index, place)
                for extract in context.extracts
                for unit in extract.kept_units()
                for place in range(unit.start, unit.end)
                if not extract.source.text[place].isspace()
            }
        )
    assert kept[0] <= kept[1]


def test_rate_one_is_the_identity_and_rate_zero_is_empty(models):
    context = Context.of("", ["  " + TEXT + "\n\n", ""])
    assert LLMLingua2(models["bert"], rate=1.0).compress([context]) == [context]
    assert text_of(LLMLingua2(models["bert"], rate=0.0), TEXT) == ""
    assert text_of(LLMLingua2(models["bert"], target_tokens=5), "", " \n") == ""


def test_protected_text_is_one_unit():
    starts, ends = word_offsets(TEXT)
    units = [TEXT[a:b] for a, b in zip(starts, ends, strict=True)]
    for whole in ("22.2 km", "https://mars.org/moons?x=1,2", "a.b@mars.org", "5 May 2020.", "$1,000,000", "日"):
        assert whole in units
    fenced = "a\n```py\nx = 1\n\ny = 2\n```\nb"
    starts, ends = word_offsets(fenced)
    assert [fenced[a:b] for a, b in zip(starts, ends, strict=True)] == ["a", fenced[2:-2], "b"]


@given(st.lists(st.sampled_from([*"ab1,.`~ \n$", "May", "日", "5 km", "```"]), max_size=60).map("".join))
def test_word_units_cover_all_text_in_order(text):
    starts, ends = word_offsets(text)
    assert "".join("".join(text[a:b].split()) for a, b in zip(starts, ends, strict=True)) == "".join(text.split())
    assert all(a < b for a, b in zip(starts, ends, strict=True))
    assert (ends[:-1] <= starts[1:]).all()


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_what_is_forced_stays(models, rate):
    text = "The moon is red. It orbits mars, not 3.14 planets?"
    kept = text_of(LLMLingua2(models["bert"], rate=rate, force_tokens=[".", "?", "mars"]), text)
    assert kept.count(".") >= 1 and "?" in kept and "mars" in kept
    assert "3.14" not in text_of(LLMLingua2(models["bert"], rate=0.0, force_tokens=["."]), text)
    assert "3.14" in text_of(LLMLingua2(models["bert"], rate=rate, force_reserve_digit=True), text)
    structured = text_of(LLMLingua2(models["bert"], rate=rate, keep_structure=True), TEXT)
    assert structured.startswith("# Moons of Mars\n") and structured.count("\n-") == 2
    lines = text_of(LLMLingua2(models["roberta"], rate=0.7, force_tokens=["\n"]), "moon mars\nred\nplanet two")
    assert set(lines.split()) <= set(b"moon mars red planet two".decode().split())


def test_consecutive_forced_strings_are_dropped(models):
    text = "moon , , , mars"
    kept = text_of(LLMLingua2(models["bert"], rate=0.0, force_tokens=[","], drop_consecutive=True), text)
    assert kept == ","
    assert text_of(LLMLingua2(models["bert"], rate=0.0, force_tokens=[","]), text).count(",") == 3


def test_no_space_enters_text_without_spaces(models):
    text = "日本語のテキストを短くする道具"
    assert " " not in text_of(LLMLingua2(models["roberta"], rate=0.5), text)


def test_documents_are_dropped_first_in_the_same_reading(models):
    class Counting:
        default_threshold, fingerprint, calls = 0.5, "x", 0

        def read(self, texts):
            self.calls += 1
            return models["bert"].read(texts)

    documents = [Document(varied_text(20, seed=seed), score=float(-seed)) for seed in range(4)]
    model = Counting()
    (context,) = LLMLingua2(model, rate=1.0, document_rate=0.5, document_score="given").compress(
        [Context.of("", documents)]
    )
    assert [extract.dropped for extract in context.extracts] == [False, False, True, True]
    assert model.calls == 1
    (context,) = LLMLingua2(model, rate=1.0, document_rate=0.25).compress([Context.of("", documents)])
    means = [words.scores.mean() for words in LLMLingua2(models["bert"]).words([each.text for each in documents])]
    assert [not extract.dropped for extract in context.extracts] == [mean == max(means) for mean in means]
    with pytest.raises(InputError, match="has no score"):
        LLMLingua2(model, rate=0.5, document_rate=0.5, document_score="given").compress([Context.of("", ["a", "b"])])


def test_chained_after_sentences_words_are_weighted_and_only_removed(models):
    text = "The moon and mars. Nothing here to see. A planet and a moon."
    first = LetterCompressor("a", threshold=0.3)
    (narrowed,) = first.compress([Context.of("q", [text])])
    plain, weighted = LLMLingua2(models["bert"]), LLMLingua2(models["bert"], weight="sentence")
    (left,), (right,) = plain.score([narrowed]), weighted.score([narrowed])
    factors = {unit.start: unit.score for unit in narrowed.extracts[0].kept_units()}
    for one, other in zip(left.extracts[0].kept_units(), right.extracts[0].kept_units(), strict=True):
        sentence = max(start for start in factors if start <= one.start)
        assert other.score == pytest.approx(one.score * factors[sentence])
    result = Pipeline([first, LLMLingua2(models["bert"])]).run([Context.of("q", [text])], budget=8)[0]
    assert result.tokens_after <= 8 and "Nothing" not in result.text
    with pytest.raises(InputError, match="finds none"):
        weighted.compress([Context.of("q", [text])])


def test_scope_document_gives_every_document_its_share(models):
    texts = [varied_text(60, seed=1), varied_text(20, seed=2)]
    (context,) = LLMLingua2(models["bert"], rate=0.5, scope="document", counter=WordCounter()).compress(
        [Context.of("", texts)]
    )
    for text, extract in zip(texts, context.extracts, strict=True):
        assert 0.5 * len(text.split()) - 1 <= len(extract.text.split()) <= 0.5 * len(text.split())


def test_threads_do_not_change_results(models):
    texts = [varied_text(40, seed=seed) for seed in range(8)]
    expected = [text_of(LLMLingua2(models["bert"], rate=0.5), text) for text in texts]
    shared, found = LLMLingua2(models["bert"], rate=0.5), [""] * len(texts)
    threads = [
        threading.Thread(target=lambda place=place: found.__setitem__(place, text_of(shared, texts[place])))
        for place in range(len(texts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_an_exported_folder_runs_without_torch(tmp_path, folders):
    tokenizer = (folders["bert"] / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    (tmp_path / "tokenclass.json").write_text(
        '{"format": 1, "kind": "llmlingua2", "name": "tiny", "max_length": 64, "default_threshold": 0.4, "base": "x"}'
    )
    cast = onnx.helper.make_node("Cast", ["input_ids"], ["keep"], to=onnx.TensorProto.FLOAT)
    names = ("input_ids", onnx.TensorProto.INT64), ("attention_mask", onnx.TensorProto.INT64)
    inputs = [onnx.helper.make_tensor_value_info(name, kind, ["b", "s"]) for name, kind in names]
    outputs = [onnx.helper.make_tensor_value_info("keep", onnx.TensorProto.FLOAT, ["b", "s"])]
    graph = onnx.helper.make_graph([cast], "tiny", inputs, outputs)
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    compressor = llmlingua2(model=str(tmp_path))
    assert (compressor.model.name, compressor.default_threshold) == ("tiny", 0.4)
    ids = compressor.model.tokenizer.encode("red moon", add_special_tokens=False).ids
    expected = 1 / (1 + np.exp(-np.array(ids, float)))
    np.testing.assert_allclose(compressor.model.read(["red moon"])[0].keep, expected, atol=1e-6)
    (tmp_path / "tokenclass.json").write_text('{"format": 2, "kind": "llmlingua2"}')
    with pytest.raises(CheckpointError, match="format 2"):
        WordModel.from_export(tmp_path)


def test_bad_checkpoints_and_options_say_so(tmp_path, models):
    with pytest.raises(CheckpointError, match="two labels"):
        load_word_model(str(bert_classifier(tmp_path, labels=3)))
    with pytest.raises(UnknownNameError, match="no model at"):
        load_word_model("./nowhere")
    model = models["bert"]
    for options, message in (
        ({"rate": 1.5}, "rate must be in"),
        ({"rate": 0.5, "budget": 3}, "one of rate"),
        ({"scope": "page"}, "scope must be one of"),
        ({"force_tokens": "."}, "force_tokens must be a list"),
        ({"force_tokens": [""]}, "not empty"),
        ({"token_to_word": "max"}, "token_to_word must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            LLMLingua2(model, **options)
    with pytest.raises(BudgetError, match="must be positive"):
        LLMLingua2(model, target_tokens=0)


def test_nothing_global_moves_and_the_policy_is_kept(models):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    policy = Policy(protect=("planet",))
    assert "planet" in text_of(LLMLingua2(models["bert"], rate=0.0, policy=policy), "a red planet with moons")
    assert policy.protect == ("planet",)
    assert torch.equal(state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


def test_literal_special_tokens_and_28_forced_strings_pass(models):
    text = "<s> moon </s> [SEP] mars <unk> [UNK] <pad> red"
    for model in models.values():
        forced = ["<s>", "</s>", "[SEP]", "<unk>", "[UNK]", "<pad>", *(f"word{number}" for number in range(22))]
        kept = text_of(LLMLingua2(model, rate=0.0, force_tokens=forced), text)
        assert re.findall(r"\S+", kept) == ["<s>", "</s>", "[SEP]", "<unk>", "[UNK]", "<pad>"]
