"""Vectors among tokens: answers' likelihoods on tiny random models against one row and one token at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ctxprune.errors import InputError
from ctxprune.generators.soft_prompt import Parts, answer_logits, answer_nll, splice

TOKENS, WIDTH = 30, 16
FAMILIES = ["llama", "gpt2"]


@cache
def tiny(family: str) -> Any:
    """A random model of which every token matters: large weights, two layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "llama":
            config = LlamaConfig(
                vocab_size=TOKENS, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5,
            )  # fmt: skip
            return LlamaForCausalLM(config).eval()
        dropped = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        config = GPT2Config(
            vocab_size=TOKENS, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=64, initializer_range=0.5, **dropped
        )
        return GPT2LMHeadModel(config).eval()


def slow_nll(model: Any, parts: Parts, answer: list[int]) -> float:
    """One row, one token at a time, no padding, the whole head."""
    table = model.get_input_embeddings()
    rows = [part if isinstance(part, Tensor) else table(torch.tensor(part, dtype=torch.int64)) for part in parts]
    embeds, nats = torch.cat([row for row in rows if len(row)]), 0.0
    for token in answer:
        logits = model(inputs_embeds=embeds[None]).logits[0, -1].double()
        nats -= float(logits.log_softmax(-1)[token])
        embeds = torch.cat([embeds, table(torch.tensor([token]))])
    return nats


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


TOKEN = st.integers(0, TOKENS - 1)
PART = st.lists(TOKEN, max_size=5) | st.builds(vectors, st.integers(1, 3), st.integers(0, 99))
PROMPT = st.lists(PART, min_size=1, max_size=4).filter(lambda parts: any(map(len, parts)))
ROW = st.tuples(PROMPT, st.lists(TOKEN, min_size=1, max_size=5))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_a_batch_gives_what_single_tokens_give(family: str, rows: list[tuple[Parts, list[int]]]) -> None:
    with torch.no_grad():
        nats, tokens = answer_nll(tiny(family), [parts for parts, _ in rows], [answer for _, answer in rows])
        slow = [slow_nll(tiny(family), parts, answer) for parts, answer in rows]
    assert nats.tolist() == pytest.approx(slow, abs=2e-3, rel=1e-4)
    assert tokens.tolist() == [len(answer) for _, answer in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_answer_token_counts_and_nothing_past_the_end(family: str) -> None:
    model, parts, answer = tiny(family), [[3, 4], vectors(1, 7), [5]], [6, 7, 8]
    logits = answer_logits(model, [parts], [answer])
    table = model.get_input_embeddings()
    whole = torch.cat([table(torch.tensor([3, 4])), parts[1], table(torch.tensor([5, 6, 7, 8]))])
    # the prompt's four places predict up to the answer's first token; the last place predicts past the end
    assert torch.allclose(logits, model(inputs_embeds=whole[None]).logits[0, 3:6], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_finite_differences_and_stay_in_their_row(family: str) -> None:
    model, answers = tiny(family), [[6, 7], [8]]
    soft = [vectors(1, 1).requires_grad_(), vectors(2, 2).requires_grad_()]
    rows: list[Parts] = [[[3], soft[0]], [soft[1], [4, 5]]]
    nats, _ = answer_nll(model, rows, answers)
    nats[0].backward(retain_graph=True)
    assert soft[1].grad is None or not soft[1].grad.any()
    assert soft[0].grad is not None
    step = 1e-3 * torch.nn.functional.one_hot(torch.tensor([4]), WIDTH)
    with torch.no_grad():
        ends = [slow_nll(model, [[3], soft[0] + sign * step], [6, 7]) for sign in (1, -1)]
    assert float(soft[0].grad[0, 4]) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.05, abs=0.01)


def test_without_vectors_a_row_is_the_embeddings_of_its_tokens() -> None:
    spliced = splice([[[1, 2], [3]], [[4]]], tiny("llama").get_input_embeddings())
    table = tiny("llama").get_input_embeddings().weight
    assert torch.equal(spliced.embeds[0], table[1:4]) and torch.equal(spliced.embeds[1, 2], table[4])
    assert spliced.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert spliced.positions.tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize(
    ("prompts", "answers", "message"),
    [
        ([[[]]], [[1]], "a prompt has no tokens"),
        ([[[1]]], [[]], "needs an answer with tokens"),
        ([[[1]]], [[1], [2]], "each of 1 prompts"),
        ([[[1], torch.zeros(1, WIDTH + 1)]], [[1]], r"shape \(n, 16\), got \(1, 17\)"),
    ],
)
def test_unusable_rows_are_named(prompts: list[Parts], answers: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        answer_nll(tiny("llama"), prompts, answers)
