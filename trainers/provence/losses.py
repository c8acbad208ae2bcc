"""Losses that compare sentences and passages with each other: over one question's context, and between twins.

Log-odds of a sentence are those of the mean keep probability of its tokens, the very figure that pruning goes by.
The ranking by margins of sentences follows the composite loss of LooComp (arXiv 2603.09222) in spirit: what is needed
far above, the rest near zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ctxprune.trainers.provence.items import IGNORE


@dataclass(frozen=True, slots=True)
class SentenceTable:
    """The sentences of a batch. logits, labels: (n_sentences,), labels 1.0, 0.0 or NaN; item: (n_sentences,) int."""

    logits: Tensor
    labels: Tensor
    item: Tensor

    @classmethod
    def join(cls, tables: Sequence[SentenceTable]) -> SentenceTable:
        """Tables of parts of a batch as one; their items are already numbered over the batch."""
        return cls(
            torch.cat([table.logits for table in tables]),
            torch.cat([table.labels for table in tables]),
            torch.cat([table.item for table in tables]),
        )


def sentence_table(token_logits: Tensor, keep: Tensor, sentence: Tensor, first_item: int = 0) -> SentenceTable:
    """token_logits: (b, s, 2); keep, sentence: (b, s), IGNORE where there is no label or no sentence.

    A sentence is relevant when more than half of its tokens are; its label is NaN where they have none.
    """
    rows, width = sentence.shape[0], int(sentence.max()) + 1 if bool((sentence >= 0).any()) else 1
    inside = sentence != IGNORE
    place = (torch.arange(rows, device=sentence.device)[:, None] * width + sentence)[inside]

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(rows * width, device=sentence.device).scatter_add(0, place, values)

    count = summed(torch.ones_like(place, dtype=torch.float32))
    mean = summed(token_logits.float().softmax(-1)[..., 1][inside]) / count.clamp(min=1)
    labelled = summed((keep[inside] != IGNORE).float())
    share = summed((keep[inside] == 1).float()) / count.clamp(min=1)
    labels = torch.where(labelled > 0, (share > 0.5).float(), torch.nan)
    there = (count > 0).nonzero().squeeze(1)
    probability = mean[there].clamp(1e-4, 1 - 1e-4)
    return SentenceTable(
        probability.log() - (1 - probability).log(), labels[there], there.div(width, rounding_mode="floor") + first_item
    )


def listwise(logits: Tensor, labels: Tensor, group: Tensor) -> Tensor:
    """Mean over relevant entries of -log softmax among themselves and the irrelevant ones of their group.

    logits, labels: (n,); group: (n,) int. Entries whose label is NaN have no part; zero without a group of both kinds.
    """
    known = ~labels.isnan()
    logits, labels, group = logits[known], labels[known], group[known]
    losses = []
    for number in sorted(set(group.tolist())):
        mine, relevant = logits[group == number], labels[group == number] == 1
        if bool(relevant.any()) and not bool(relevant.all()):
            against = torch.logsumexp(mine[~relevant], 0)
            losses.append((torch.logaddexp(mine[relevant], against) - mine[relevant]).mean())
    return torch.stack(losses).mean() if losses else logits.sum() * 0.0


def twin_margin(
    highest: Tensor, relevant: Tensor, question: Tensor, twins: Sequence[tuple[int, int]], margin: float
) -> Tensor:
    """Mean of max(0, margin - (best of the answerable twin - best of the unanswerable one)).

    highest: (items,) best log-odds of a passage. relevant: (items,) bool. question: (items,) int. The answerable twin
    is measured where its answer is, so that a passage elsewhere cannot stand in; zero without twins.
    """
    losses = []
    for answerable, unanswerable in twins:
        right, wrong = highest[(question == answerable) & relevant], highest[question == unanswerable]
        if len(right) and len(wrong):
            losses.append(F.relu(margin - (right.max() - wrong.max())))
    return torch.stack(losses).mean() if losses else highest.sum() * 0.0


def highest_by_item(table: SentenceTable, items: int) -> Tensor:
    """(items,) the best sentence's log-odds; -10 for a passage without sentences."""
    start = torch.full((items,), -10.0, device=table.logits.device)
    return start.scatter_reduce(0, table.item, table.logits, "amax", include_self=False)
