"""Likelihoods of many answers after prompts with vectors among their tokens, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ctxprune.models.likelihood import token_batches
from ctxprune.models.soft_prompt import Parts, answer_nll

#: Tokens a forward pass, padding included.
BATCH_TOKENS = 1280

Nats: TypeAlias = npt.NDArray[np.float64]


@torch.no_grad()
def answers_nll(
    model: Any, prompts: Sequence[Parts], answers: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> Nats:
    """(n,) nats: -ln P(answer | prompt) summed over each answer's tokens; a row's value depends on no other's but for
    rounding. Raises InputError as `ctxprune.models.soft_prompt.answer_logits` does."""
    lengths = [sum(map(len, parts)) + len(answer) for parts, answer in zip(prompts, answers, strict=True)]
    found = np.zeros(len(prompts))
    for places in token_batches(lengths, batch_tokens):
        nats, _ = answer_nll(model, [prompts[place] for place in places], [answers[place] for place in places])
        found[places] = nats.double().cpu().numpy()
    return found
