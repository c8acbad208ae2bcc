import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctxprune import Context
from ctxprune.compressors.llmlingua.selective_context import SelectiveContext
from ctxprune.errors import BudgetError, CheckpointError, InputError
from ctxprune.prompt import readable_text
from ctxprune.tokens import WordCounter
from tests.fixtures_llama import save_llama

TEXTS = ["the cat sat on the mat and the moon", "a river and a rock. and the sea the sun", "", "sun"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def slow_bits(folder, text):
    """One forward pass a token, without batch or padding."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        steps = [model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1) for place in range(1, len(ids))]
    return [-float(step[token]) / np.log(2) for step, token in zip(steps, ids[1:], strict=True)]


def test_word_scores_are_self_information(folder):
    compressor = SelectiveContext(folder, device="cpu")
    for text, words in zip(TEXTS, compressor.words(TEXTS), strict=True):
        np.testing.assert_allclose(words.scores, slow_bits(folder, text), atol=1e-3)


def test_long_texts_keep_every_word_and_what_stands_before_it(folder):
    text = "the cat sat on the mat and the moon " * 10
    whole, cut = SelectiveContext(folder, device="cpu", window=64), SelectiveContext(folder, device="cpu", window=16)
    first, second = whole.words([text])[0], cut.words([text])[0]
    assert len(first.scores) == len(second.scores) == 90
    np.testing.assert_allclose(first.scores[:15], second.scores[:15], atol=1e-3)
    assert (second.scores > 0).all()


def test_sentences_and_sums(folder):
    bits = slow_bits(folder, TEXTS[1])
    for pooling, expected in (
        ("sum", [sum(bits[:5]), sum(bits[5:])]),
        ("mean", [np.mean(bits[:5]), np.mean(bits[5:])]),
    ):
        words = SelectiveContext(folder, device="cpu", unit="sentence", pooling=pooling).words([TEXTS[1]])[0]
        np.testing.assert_allclose(words.scores, expected, atol=1e-3)


def test_the_least_expected_words_stay(folder):
    compressor = SelectiveContext(folder, device="cpu", rate=0.5, counter=WordCounter())
    (context,) = compressor.compress([Context.of("", [TEXTS[0]])])
    bits = slow_bits(folder, TEXTS[0])
    best = sorted(np.argsort(-np.array(bits), kind="stable")[:4])
    assert readable_text(context).split() == [TEXTS[0].split()[place] for place in best]


def test_bad_arguments(folder, tmp_path):
    with pytest.raises(BudgetError, match="pass rate="):
        SelectiveContext(folder, device="cpu").compress([Context.of("", ["sun"])])
    with pytest.raises(InputError, match="are not probabilities"):
        SelectiveContext(folder, device="cpu", threshold=0.5)
    with pytest.raises(InputError, match="unit must be one of"):
        SelectiveContext(folder, unit="page")
    with pytest.raises(InputError, match="at least 8"):
        SelectiveContext(folder, window=2)
    with pytest.raises(CheckpointError, match="cannot load"):
        SelectiveContext(tmp_path / "nothing")
