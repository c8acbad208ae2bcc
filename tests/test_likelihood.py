"""Answer likelihoods: a tiny random llama against one token at a time, whatever the batch and the shared prefix."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.causal import AnswerLikelihood, token_batches, trailing_log_probabilities

VOCABULARY = "<pad> <s> </s> user assistant the cat sat on a mat and river rock sea cell vote sun moon star"
WORDS = VOCABULARY.split()
TEMPLATE = "user {{ messages[0]['content'] }}{% if add_generation_prompt %} assistant {% endif %}"
SHARED = "the cat sat on a mat and the moon "
PROMPTS = ["the cat", "a river and a rock and the sea", "sun", "vote", "the cat sat on the mat and the moon", "sea"]
ANSWERS = ["mat", "sun moon star", "the sea", "cell", "a vote and a star", "rock"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def likelihood(llama: Path) -> AnswerLikelihood:
    return AnswerLikelihood(llama, device="cpu", dtype="float32", batch_tokens=40)


def slow_nats(scorer: AnswerLikelihood, prompt: str, answer: str) -> float:
    ids, nats = [WORDS.index(word) for word in prompt.split()], 0.0
    for word in answer.split():
        with torch.inference_mode():
            logits = scorer.model(torch.tensor([ids])).logits[0, -1].double()
        nats += float(logits.log_softmax(-1)[WORDS.index(word)])
        ids.append(WORDS.index(word))
    return nats


@pytest.mark.parametrize("before", ["", SHARED])
def test_scores_are_those_of_one_token_at_a_time(likelihood: AnswerLikelihood, before: str) -> None:
    prompts = [before + prompt for prompt in PROMPTS]
    together = likelihood.score(prompts, ANSWERS)
    for prompt, answer, found in zip(prompts, ANSWERS, together, strict=True):
        assert found.nats == pytest.approx(slow_nats(likelihood, prompt, answer), abs=1e-4)
        assert found.tokens == len(answer.split())
        assert found.nats == pytest.approx(likelihood.score([prompt], [answer])[0].nats, abs=1e-4)


def test_equal_prompts_keep_a_token_after_the_shared_part(likelihood: AnswerLikelihood) -> None:
    scores = likelihood.score([SHARED] * len(WORDS), WORDS)
    assert sum(math.exp(score.nats) for score in scores) == pytest.approx(1.0, abs=1e-4)


def test_a_chat_template_wraps_the_prompt(llama: Path) -> None:
    chat = AnswerLikelihood(llama, device="cpu", dtype="float32", chat=False, attn="eager")
    chat.tokenizer.chat_template, chat.encoder.chat = TEMPLATE, True
    [found] = chat.score(["the cat"], ["mat"])
    assert found.nats == pytest.approx(slow_nats(chat, "user the cat assistant", "mat"), abs=1e-4)


def test_gradients_reach_input_embeddings(likelihood: AnswerLikelihood) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    soft = likelihood.model.get_input_embeddings()(ids).detach().requires_grad_()
    found = trailing_log_probabilities(likelihood.model, ids[:, -2:], inputs_embeds=soft)
    assert found.sum().item() == pytest.approx(slow_nats(likelihood, "the cat", "sat on"), abs=1e-4)
    found.sum().backward()
    assert soft.grad is not None
    assert (soft.grad.abs().sum(dim=-1) > 0).tolist() == [[True, True, True, False]]


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_batches_hold_everything_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    found = list(token_batches(lengths, budget))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget


def test_bad_input_is_named(likelihood: AnswerLikelihood, llama: Path, tmp_path: Path) -> None:
    assert likelihood.score([], []) == []
    with pytest.raises(InputError, match="2 prompts and 1 answers"):
        likelihood.score(["sun", "moon"], ["star"])
    with pytest.raises(InputError, match=r"answers\[1\] has no tokens"):
        likelihood.score(["sun", "moon"], ["star", "  "])
    with pytest.raises(InputError, match=r"prompts\[0\] has no tokens"):
        likelihood.score([""], ["star"])
    with pytest.raises(InputError, match=r"71 tokens, but .* holds 64"):
        likelihood.score(["sun " * 70], ["star"])
    with pytest.raises(InputError, match="no chat template"):
        AnswerLikelihood(llama, chat=True)
    with pytest.raises(InputError, match="batch_tokens must be at least 1, got 0"):
        AnswerLikelihood(llama, batch_tokens=0)
    with pytest.raises(CheckpointError, match="cannot load a causal language model"):
        AnswerLikelihood(tmp_path)
