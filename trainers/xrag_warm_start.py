"""A start for the projector that needs no pass through the language model: each soft token a weighted bag of its words.

A frozen language model reads the mean of a passage's token embeddings as what the passage is about, as long as frequent
tokens count little. The projector learns these means in seconds, where learning them through the model takes hours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ctxprune.models.xrag import Projector
from ctxprune.trainers.xrag_items import SoftItem

BATCH = 256
LR = 2e-3


def warm_start(projector: Projector, items: Sequence[SoftItem], table: Tensor, *, epochs: int) -> None:
    """Fit the projector to `bags`, least squares relative to their length; draws from torch's global generator.

    table: (vocabulary, d_model) token embeddings. Items of several shards are passed over.
    """
    single = [item for item in items if len(item.vectors) == 1]
    if not single:
        return
    vectors = torch.from_numpy(np.concatenate([item.vectors for item in single]))
    wanted = bags([item.target for item in single], table)
    length = float(wanted.norm(dim=-1).median())
    optimizer = torch.optim.AdamW(projector.parameters(), lr=LR, weight_decay=0.01)
    steps = epochs * math.ceil(len(single) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for places in torch.split(torch.randperm(len(single)), BATCH):
            loss = (projector(vectors[places]) - wanted[places]).square().sum(dim=-1).mean() / length**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def bags(texts: Sequence[Sequence[int]], table: Tensor) -> Tensor:
    """(n, d_model) the mean of each text's token embeddings, weighted by their squared inverse document frequency and
    scaled to the median length of the token embeddings. Unweighted, what all texts share drowns the rest."""
    found = Counter(token for text in texts for token in {*text})
    weights = {token: math.log((len(texts) + 1) / (count + 1)) ** 2 + 1e-6 for token, count in found.items()}
    table = table.detach().float().cpu()
    rows = [torch.tensor([weights[token] for token in text]) @ table[list(text)] for text in texts]
    means = torch.stack(rows)
    scaled: Tensor = means / means.norm(dim=-1, keepdim=True) * table.norm(dim=-1).median()
    return scaled
