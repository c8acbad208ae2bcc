"""What the xRAG trainer trains, the bridge and a constant token beside it, and the loss of the paper's two stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ctxprune.compressors.xrag.bridge import Projector
from ctxprune.generators.soft_prompt import Parts, answer_logits
from ctxprune.trainers.xrag.data import SoftItem

#: One row in so many trains the constant token, the control that knows of no document, instead of the bridge.
CONSTANT_EVERY = 10


class Trained(nn.Module):
    """The projector, and one token that is the same for every document, in the projector's units before its
    `output_scale`. Their rows are apart, so neither gets a gradient from the other's."""

    def __init__(self, projector: Projector, constant: Tensor) -> None:
        super().__init__()
        self.projector = projector
        self.constant = nn.Parameter(constant.clone())

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """vectors: (n, d_retriever). Returns soft tokens (n, d_model) and the constant one (1, d_model), float32."""
        return self.projector(vectors), self.constant_token()

    def constant_token(self) -> Tensor:
        """(1, d_model) float32."""
        return self.constant[None] * self.projector.output_scale

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.projector.scale, "output_scale": self.projector.output_scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.projector.scale, self.projector.output_scale = state["scale"], state["output_scale"]


@dataclass(frozen=True, slots=True)
class Losses:
    """total: to be minimised. Means over tokens, detached: nll of the rows with their documents' own vectors, constant
    of those with the constant token (nan without such), kl of all rows (0 in stage 1). tokens: run through the model.
    """

    total: Tensor
    nll: float
    constant: float
    kl: float
    tokens: int


def batch_losses(model: Any, module: Any, batch: Sequence[SoftItem], *, alpha: float) -> Losses:
    """NLL + alpha * KL(the model that reads the text || the model that reads the soft token), over target tokens only.

    model: the frozen language model. module: `Trained`, or what accelerate wraps it in. Rows `CONSTANT_EVERY` - 1,
    2 * `CONSTANT_EVERY` - 1, ... have the constant token. Each loss is a mean over all the batch's target tokens.
    """
    is_constant = [place % CONSTANT_EVERY == CONSTANT_EVERY - 1 for place in range(len(batch))]
    own, constant = soft_tokens(module, batch)
    soft = [constant if flag else tokens for flag, tokens in zip(is_constant, own, strict=True)]
    targets = [item.target for item in batch]
    logits = answer_logits(model, [prompt(item, tokens) for item, tokens in zip(batch, soft, strict=True)], targets)
    flat = torch.tensor([token for target in targets for token in target], device=logits.device)
    nll = cross_entropy(logits.float(), flat, reduction="none")
    flags = [flag for flag, target in zip(is_constant, targets, strict=True) for _ in target]
    divergence = _divergence(model, batch, logits) if alpha else nll.new_zeros(1)
    # a sum that is always 0 keeps both parts in the graph, which training on several devices asks for
    total = nll.mean() + alpha * divergence.mean() + 0.0 * constant.sum()
    mask = torch.tensor(flags, device=nll.device)
    seen = nll.detach()
    return Losses(
        total,
        nll=float(seen[~mask].mean()),
        constant=float(seen[mask].mean()),
        kl=float(divergence.detach().mean()),
        tokens=sum(len(item.ids) for item in batch),
    )


def soft_tokens(module: Any, items: Sequence[SoftItem]) -> tuple[list[Tensor], Tensor]:
    """The soft tokens of each item, (shards, d_model), and the constant one, (1, d_model)."""
    device = next(module.parameters()).device
    vectors = torch.from_numpy(np.concatenate([item.vectors for item in items])).to(device)
    projected, constant = module(vectors)
    return list(projected.split([len(item.vectors) for item in items])), constant


def prompt(item: SoftItem, tokens: Tensor) -> Parts:
    """The item's prompt with these soft tokens, (n, d_model), in their place."""
    return [item.before, tokens, item.after]


def _divergence(model: Any, batch: Sequence[SoftItem], logits: Tensor) -> Tensor:
    """(target tokens,) KL(teacher || student), the teacher being the same model with the text in its prompt."""
    with torch.no_grad():
        teacher = answer_logits(model, [[item.told] for item in batch], [item.target for item in batch])
        expected = teacher.float().log_softmax(dim=-1)
    return (expected.exp() * (expected - logits.float().log_softmax(dim=-1))).sum(dim=-1)
