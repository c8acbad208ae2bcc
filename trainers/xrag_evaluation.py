"""Whether soft tokens carry their documents: likelihoods with the true token against controls, and identification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxprune.models.soft_likelihood import answers_nll
from ctxprune.models.soft_prompt import Parts
from ctxprune.trainers.xrag_items import SoftItem
from ctxprune.trainers.xrag_loss import Trained, prompt, soft_tokens

#: Documents to tell apart, and how much of each is read to tell; chance is 1 / CANDIDATES.
CANDIDATES, IDENTIFY_TOKENS = 32, 32


@torch.no_grad()
def evaluate(model: Any, trained: Trained, items: Sequence[SoftItem], *, identify: int) -> dict[str, float]:
    """Nats per target token with the document's own soft tokens ("true"), with another item's ("shuffled"), the
    constant one ("constant"), none, and the text where an item has it; the mean of shuffled - true over items; the
    share of items with true below shuffled; and, for `identify` > 0 of the items, the share identified.

    items: in random order, as each gets the next one's soft tokens where they are shuffled.
    """
    own, constant = soft_tokens(trained, items)
    targets = [item.target for item in items]
    prompts: dict[str, list[Parts]] = {
        "true": [prompt(item, tokens) for item, tokens in zip(items, own, strict=True)],
        "shuffled": [prompt(item, tokens) for item, tokens in zip(items, [*own[1:], own[0]], strict=True)],
        "constant": [prompt(item, constant) for item in items],
        "none": [[item.bare] for item in items],
    }
    if all(item.told for item in items):
        prompts["text"] = [[item.told] for item in items]
    nats = {name: answers_nll(model, rows, targets) for name, rows in prompts.items()}
    tokens = np.array([len(target) for target in targets])
    gain = (nats["shuffled"] - nats["true"]) / tokens
    measured = {name: float(values.sum() / tokens.sum()) for name, values in nats.items()}
    measured |= {"shuffled_minus_true": float(gain.mean()), "true_better": float((gain > 0).mean())}
    if identify:
        measured["identified"] = identified(model, items, own, identify)
    return measured


def identified(model: Any, items: Sequence[SoftItem], own: Sequence[Tensor], count: int) -> float:
    """The share of the first `count` items whose own soft tokens, of those of the first `CANDIDATES` items, make the
    first `IDENTIFY_TOKENS` of its target the most likely."""
    candidates = own[:CANDIDATES]
    asked = items[: min(count, len(candidates))]
    prompts = [prompt(item, tokens) for item in asked for tokens in candidates]
    targets = [item.target[:IDENTIFY_TOKENS] for item in asked for _ in candidates]
    best = answers_nll(model, prompts, targets).reshape(len(asked), len(candidates)).argmin(axis=1)
    return float((best == np.arange(len(asked))).mean())
