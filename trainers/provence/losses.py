"""What a pruner learns by: the losses of its heads, and those that compare sentences, passages and twin questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ctxprune.trainers.shared.loop import IGNORE

#: Margins, in log-odds, by which the answerable twin's best sentence and best answer token must lead.
TWIN_MARGIN = 3.0


def losses(outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
    """Of one part of a batch: cross-entropy of the keep head over passage tokens whose target is known, of the rank
    head over pairs, and of the answer head.

    token_logits: (b, s, 2); rank_logits: (b, 1); answer_logits: (b, s). Each loss is a mean, zero without targets.
    """
    zero = sum((logits.sum() * 0.0 for logits in outputs.values()), torch.zeros(()))  # every head has a gradient
    result = {"keep": zero, "rank": zero, "answer": zero}
    token_logits = outputs["token_logits"].float()
    heads = {"keep": token_logits[..., 1] - token_logits[..., 0]}
    if "answer_logits" in outputs:
        heads["answer"] = outputs["answer_logits"].float()
    for name, logits in heads.items():
        target = batch[f"{name}_target"]
        known = ~target.isnan()
        if known.any():
            result[name] = zero + F.binary_cross_entropy_with_logits(logits[known], target[known])
    result["rank"] = F.binary_cross_entropy_with_logits(outputs["rank_logits"][:, 0].float(), batch["rank_target"])
    return result


def comparing_losses(
    parts: Sequence[tuple[dict[str, Tensor], dict[str, Any]]], whole: dict[str, Any]
) -> dict[str, Tensor]:
    """Of a whole batch, read in parts: listwise over the sentences and over the passages of each question, and twins.

    Log-odds of a sentence are those of the mean keep probability of its tokens, the very figure that pruning goes by.
    The ranking by margins follows the composite loss of LooComp (arXiv 2603.09222) in spirit: what is needed far above,
    the rest near zero.
    parts: (outputs, part of the batch), items in the batch's order. whole: "question" and "twins" of
    `numbered`, "rank": (items,).
    """
    tables, first, answers = [], 0, []
    for outputs, part in parts:
        tables.append(sentence_table(outputs["token_logits"], part["keep"], part["sentence"], first))
        first += len(part["rank"])
        if "answer_logits" in outputs:
            answers.append(outputs["answer_logits"].float().masked_fill(part["sentence"] == IGNORE, -10.0).amax(1))
    table = SentenceTable.join(tables)
    question, relevant = whole["question"], whole["rank"] > 0.5
    ranks = torch.cat([outputs["rank_logits"][:, 0].float() for outputs, _ in parts])
    twins = twin_margin(highest_by_item(table, first), relevant, question, whole["twins"], TWIN_MARGIN)
    if answers:
        twins = twins + twin_margin(torch.cat(answers), relevant, question, whole["twins"], TWIN_MARGIN)
    return {
        "sentences": listwise(table.logits, table.labels, question[table.item]),
        "passages": listwise(ranks, whole["rank"], question),
        "twins": twins,
    }


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
