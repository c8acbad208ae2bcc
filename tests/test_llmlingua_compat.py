"""`decisions` were made by llmlingua 0.2.2 on the very checkpoints that the fixtures build, its tiktoken replaced by a
counter of one token for three characters begun, as the encoding needs the network."""

import copy
import hashlib
import json
import random
from pathlib import Path
from unicodedata import category

import numpy as np
import pytest
import torch

from ctxprune.errors import InputError
from ctxprune.integrations.llmlingua.compressor import PromptCompressor
from ctxprune.integrations.llmlingua.structured_prompt import Segment, segments
from ctxprune.integrations.llmlingua.words import chunk_bounds
from tests.fixtures_tokenclass import CASES, CONTEXTS, ThirdsCounter, bert_classifier, roberta_classifier, varied_text

DECISIONS = json.loads((Path(__file__).parent / "data" / "llmlingua_decisions.json").read_text())


@pytest.fixture(scope="module")
def compressors(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifiers")
    options = {"device_map": "cpu", "use_llmlingua2": True, "counter": ThirdsCounter()}
    config = {"unknown_ends": True}
    return {
        "bert": PromptCompressor(str(bert_classifier(root)), **options),
        "roberta": PromptCompressor(str(roberta_classifier(root)), llmlingua2_config=config, **options),
    }


def labelled(result):
    lines = result["fn_labeled_original_prompt"].split("\x1e")
    return [tuple(line.split("\x1f")) for line in lines]


def test_every_case_was_recorded():
    assert len(DECISIONS) == 2 * len(CASES)


@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: f"{case['kind']}-{case['contexts']}-{case['options']}")
def test_words_and_labels_equal_those_of_llmlingua(case, compressors):
    result = compressors[case["kind"]].compress_prompt(
        CONTEXTS[case["contexts"]], return_word_label=True, word_sep="\x1e", label_sep="\x1f", **case["options"]
    )
    pairs = labelled(result)
    words = "\x1e".join(word for word, _ in pairs)
    assert "".join(label for _, label in pairs) == case["kept"]
    assert hashlib.blake2b(words.encode(), digest_size=8).hexdigest() == case["words"]
    assert (result["origin_tokens"], len(result["compressed_prompt_list"])) == (case["origin"], case["number"])
    kept = "".join(word for word, label in pairs if label == "1")
    assert "".join(result["compressed_prompt"].split()) == "".join(kept.split())


def test_fields_have_the_same_form(compressors):
    result = compressors["bert"].compress_prompt("the moon is red and mars orbits", rate=0.5)
    ratio = result["origin_tokens"] / result["compressed_tokens"]
    assert result["ratio"] == f"{ratio:.1f}x" and result["rate"] == f"{100 / ratio:.1f}%"
    assert result["saving"] == ", Saving $0.0 in GPT-4."
    assert result["compressed_prompt_list"] == [result["compressed_prompt"]]
    assert compressors["bert"]("the moon is red and mars orbits") == result
    assert compressors["bert"].compress_prompt_llmlingua2("the moon is red and mars orbits") == result


def test_xlmr_inputs_open_and_close_as_they_should_by_default(compressors, tmp_path):
    right = PromptCompressor(str(roberta_classifier(tmp_path)), "cpu", counter=ThirdsCounter())
    options = {"rate": 0.5, "return_word_label": True}
    assert right.compress_prompt(CONTEXTS["long"], **options) != compressors["roberta"].compress_prompt(
        CONTEXTS["long"], **options
    )
    sequence = right._reader._sequence([])
    assert sequence.ids.tolist() == [right.model.tokenizer.encode("").ids[0], right.model.tokenizer.encode("").ids[-1]]


def test_text_is_sliced_with_its_spacing(compressors):
    text = "In 1,000 years:\nthe moon  of mars.\n\nA red planet."
    for name in ("bert", "roberta"):
        whole = compressors[name].compress_prompt(text, rate=1.0)
        assert whole["compressed_prompt"] == text
        lines = compressors[name].compress_prompt(text, rate=0.9)["compressed_prompt"]
        assert "\n" in lines and "moon  of" in compressors[name].compress_prompt(text, rate=0.99)["compressed_prompt"]


@pytest.mark.parametrize("options", [{"target_token": 10}, {"rate": 0.0}, {"rate": 0.3}, {"target_token": 0}])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_texts_that_used_to_crash(name, options, compressors):
    texts = [
        "",
        "   \n",
        "☃☃ ☃",
        "a" * 600,
        varied_text(5000, seed=3, full_stops=False)[:20000],
        "<s> [SEP] <unk> <pad>",
    ]
    for context in (texts, *([text] for text in texts)):
        result = compressors[name].compress_prompt(context, **options)
        assert result["compressed_tokens"] <= result["origin_tokens"]
    assert compressors[name].compress_prompt([])["compressed_prompt"] == ""


def test_literal_special_tokens_are_text(compressors):
    text = "moon <unk> mars [UNK] red <s> planet [SEP]"
    kept = compressors["bert"].compress_prompt(text, rate=0.0, force_tokens=["<unk>", "[UNK]", "<s>", "[SEP]"])
    assert kept["compressed_prompt"] == "<unk> [UNK] <s> [SEP]"


def test_many_force_tokens_and_too_many(compressors):
    words = [f"force{number}" for number in range(28)]
    text = " ".join(words) + " the moon"
    for compressor in compressors.values():
        assert compressor.compress_prompt(text, rate=0.1, force_tokens=words)["compressed_prompt"] == " ".join(words)
        with pytest.raises(InputError, match="at most 100 strings"):
            compressor.compress_prompt(text, force_tokens=[str(number) for number in range(101)])


def test_checkpoints_without_rows_for_forced_strings_keep_them_too(tmp_path):
    compressor = PromptCompressor(str(bert_classifier(tmp_path, markers=0)), "cpu", counter=ThirdsCounter())
    text = "the moon of mars\nand a red planet"
    kept = compressor.compress_prompt(text, rate=0.2, force_tokens=["\n", "of mars"])["compressed_prompt"]
    assert "of mars\n" in kept and set(kept.split()) < set(text.split())


def test_structured_prompts(compressors):
    prompt = (
        "<llmlingua, compress=False>Speaker 4:</llmlingua><llmlingua, rate=0.4> the moon < mars, and it is red."
        "</llmlingua><llmlingua, compress=False, rate=0.2>\nEnd <b>x</b></llmlingua> a planet"
    )
    for compressor in compressors.values():
        result = compressor.structured_compress_prompt([prompt, "<llmlingua>two moons</llmlingua>"], rate=1.0)
        first, second = result["compressed_prompt_list"]
        assert first.startswith("Speaker 4: ") and first.endswith("\nEnd <b>x</b> a planet")
        assert len(first) < len("Speaker 4: the moon < mars, and it is red.\nEnd <b>x</b> a planet")
        assert second == "two moons"


def test_segments_cover_the_prompt():
    text, parts = segments(
        "a<llmlingua, compress=False>b<</llmlingua><llmlingua,rate = 0.5 , compress=True>c</llmlingua>"
    )
    assert text == "ab<c"
    assert parts == [Segment(0, 1), Segment(1, 3, None, False), Segment(3, 4, 0.5, True)]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<llmlingua>a", "at character 0 is never closed"),
        ("a</llmlingua>", "closes nothing at character 1"),
        ("<llmlingua>a<llmlingua>b</llmlingua>", "within another at character 12"),
        ("<llmlingua, rate=2>a</llmlingua>", "rate must be in"),
        ("<llmlingua, rate=x>a</llmlingua>", "rate must be in"),
        ("<llmlingua, compress=maybe>a</llmlingua>", "True or False"),
        ("<llmlingua, speed=1>a</llmlingua>", "cannot read"),
    ],
)
def test_bad_tags_are_named(prompt, message):
    with pytest.raises(InputError, match=message):
        segments(prompt)


def test_nothing_of_the_callers_changes(tmp_path):
    model_config, config = {"torch_dtype": torch.float32}, {"max_batch_size": 7}
    context, force = ["the moon\nof mars", "a red planet"], ["\n", "moon of"]
    folder = str(bert_classifier(tmp_path))
    before = copy.deepcopy((model_config, config, context, force))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    compressor = PromptCompressor(folder, "cpu", model_config, None, True, config)
    compressor.compress_prompt(context, force_tokens=force)
    assert (model_config, config, context, force) == before
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(states[2], torch.get_rng_state())


def test_options_of_neither_kind_are_refused(compressors):
    with pytest.raises(InputError, match="pass use_llmlingua2=True"):
        PromptCompressor("x", use_llmlingua2=False)
    with pytest.raises(InputError, match="llmlingua2_config knows no option speed"):
        PromptCompressor("x", llmlingua2_config={"speed": 1})
    with pytest.raises(InputError, match="no option raet"):
        compressors["bert"].compress_prompt("x", raet=0.5)
    with pytest.raises(InputError, match="rate must be in"):
        compressors["bert"].compress_prompt("x", rate=1.5)
    with pytest.raises(InputError, match="must be a string"):
        compressors["bert"].compress_prompt(["x", None])
    assert (
        compressors["bert"].compress_prompt("the moon", rate=1.0, rank_method="bm25")["compressed_prompt"] == "the moon"
    )


def test_chunks_end_where_they_may():
    assert chunk_bounds(list("ab.cdefg.h"), 4, {"."}) == [(0, 3), (3, 8), (8, 10)]
    assert chunk_bounds([], 4, {"."}) == []


@pytest.mark.parametrize("text", ["Der Bru\u0308ckenzoll stieg.", "Le cafe\u0301 ouvre a\u0300 midi.", "नौका चलती है।"])
def test_a_kept_word_keeps_its_accents_and_vowel_signs(text):
    words = PromptCompressor().compress_prompt(
        text, rate=0.5, return_word_label=True, word_sep="\x1e", label_sep="\x1f"
    )
    assert {category(word[0])[0] for word, _ in labelled(words)}.isdisjoint("M")
    kept = words["compressed_prompt"]
    at = 0
    for word, flag in labelled(words):
        at = text.index(word, at) + len(word)
        assert not category(text[at : at + 1] or " ").startswith("M"), word
        assert flag == "0" or word in kept


@pytest.mark.parametrize("context", [None, 5, b"text", {"a": "text"}, ["text", None], float("nan")])
def test_what_is_no_context(context):
    for method in ("compress_prompt", "structured_compress_prompt"):
        with pytest.raises(InputError, match="context must be"):
            getattr(PromptCompressor(), method)(context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": None}, "rate must be in"),
        ({"rate": "0.5"}, "rate must be in"),
        ({"rate": True}, "rate must be in"),
        ({"target_token": "9"}, "target_token must be a number"),
        ({"target_token": float("nan")}, "target_token must be a number"),
        ({"force_tokens": [""]}, "not empty"),
        ({"force_tokens": None}, "must be a list of strings"),
        ({"force_tokens": [b"x"]}, "must be a list of strings"),
    ],
)
def test_limits_of_a_wrong_type(options, message):
    with pytest.raises(InputError, match=message):
        PromptCompressor().compress_prompt("Mars is red.", **options)


def test_numbers_of_other_libraries_and_counters_by_name():
    compressor = PromptCompressor(counter="words")
    plain = compressor.compress_prompt("Mars is red and dry.", target_token=3)
    assert compressor.compress_prompt(iter(["Mars is red and dry."]), target_token=np.int64(3)) == plain
    assert plain["origin_tokens"] == 5
    with pytest.raises(InputError, match="max_force_token must be a whole number"):
        PromptCompressor(llmlingua2_config={"max_force_token": None})
