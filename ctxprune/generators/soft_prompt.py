"""Prompts with vectors among their tokens, spliced into a stock causal language model through `inputs_embeds`.

A batch is padded on the left with positions counted from the mask, so that all rows end together, the vocabulary's head
runs only where answers stand, and no row's result depends on its neighbours beyond rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctxprune.errors import InputError
from ctxprune.models.causal import token_batches
from ctxprune.text import model_text

#: In order: runs of token ids, and (n, d_model) vectors that stand where n tokens would.
Parts: TypeAlias = Sequence[Sequence[int] | Tensor]


@dataclass(frozen=True, slots=True)
class Spliced:
    """What a model's forward takes, padded on the left. embeds: (batch, seq, d_model) in the model's number format;
    mask: (batch, seq) int64, 1 = real token or vector; positions: (batch, seq) int64, from 0 in every row."""

    embeds: Tensor
    mask: Tensor
    positions: Tensor

    def inputs(self) -> dict[str, Tensor]:
        """By the names that transformers gives them."""
        return {"inputs_embeds": self.embeds, "attention_mask": self.mask, "position_ids": self.positions}


def splice(rows: Sequence[Parts], table: torch.nn.Module) -> Spliced:
    """One row of embeddings a prompt; gradients flow into the vectors.

    table: the model's input embeddings, (n,) ids to (n, d_model). Raises InputError for a row without any token, and
    for vectors that are not as wide as the embeddings.
    """
    lengths = [sum(map(len, parts)) for parts in rows]
    if not lengths or min(lengths) == 0:
        place = lengths.index(0) if lengths else 0
        raise InputError(f"prompt {place} of {len(rows)} has no tokens; pass at least one")
    device = next(table.parameters()).device
    width = max(lengths)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    soft: list[Tensor] = []
    where: list[tuple[int, int]] = []
    for row, parts in enumerate(rows):
        starts = accumulate(map(len, parts), initial=width - lengths[row])
        for part, start in zip(parts, starts, strict=False):
            if isinstance(part, Tensor):
                soft.append(part)
                where += [(row, start + place) for place in range(len(part))]
            else:
                ids[row, start : start + len(part)] = torch.tensor(part, dtype=torch.int64)
    embeds: Tensor = table(ids.to(device))
    if where:
        embeds = _inserted(embeds, torch.tensor(where, device=device), soft)
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long().to(device)
    return Spliced(embeds, mask, (mask.cumsum(dim=1) - 1).clamp(min=0))


def _inserted(embeds: Tensor, where: Tensor, soft: Sequence[Tensor]) -> Tensor:
    """where: (n, 2) row and place of each vector."""
    wrong = [tuple(part.shape) for part in soft if part.dim() != 2 or part.shape[1] != embeds.shape[2]]
    if wrong:
        raise InputError(
            f"soft tokens must have the shape (n, {embeds.shape[2]}), got {wrong[0]}; use the bridge that was trained "
            "for this model"
        )
    values = torch.cat(list(soft)).to(embeds.device, embeds.dtype)
    return embeds.index_put((where[:, 0], where[:, 1]), values)


def answer_logits(model: Any, prompts: Sequence[Parts], answers: Sequence[Sequence[int]]) -> Tensor:
    """What the model predicts at every answer token: (sum of the answers' lengths, vocabulary), answer after answer.

    The first row belongs to the first token of the first answer, predicted from the end of its prompt; nothing is
    predicted past an answer's end. Raises InputError for a prompt or an answer without tokens.
    """
    lengths = torch.tensor([len(answer) for answer in answers])
    if len(prompts) != len(answers) or not len(answers) or int(lengths.min()) == 0:
        raise InputError(f"each of {len(prompts)} prompts needs an answer with tokens, got {lengths.tolist()} tokens")
    if any(sum(map(len, parts)) == 0 for parts in prompts):
        raise InputError("a prompt has no tokens, so nothing predicts its answer; pass at least one token")
    # the last token of an answer predicts what comes after it, which nobody asks for
    rows = [[*parts, answer[:-1]] for parts, answer in zip(prompts, answers, strict=True)]
    spliced = splice(rows, model.get_input_embeddings())
    width = int(lengths.max())
    logits: Tensor = model(**spliced.inputs(), logits_to_keep=width, use_cache=False).logits[:, -width:]
    return logits[(torch.arange(width) >= width - lengths[:, None]).to(logits.device)]


def answer_nll(model: Any, prompts: Sequence[Parts], answers: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(nats, tokens), both (n,): -ln P(answer | prompt) summed over each answer's tokens, float32, and their number.

    Gradients flow into the prompts' vectors. The rows are one batch. Raises InputError as `answer_logits` does.
    """
    logits = answer_logits(model, prompts, answers)
    return summed_nll(logits, answers), torch.tensor([len(answer) for answer in answers])


def summed_nll(logits: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """(n,) float32 nats of each answer from the logits of `answer_logits`."""
    targets = torch.tensor([token for answer in answers for token in answer], device=logits.device)
    nats = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    return per_answer(nats, answers)


def per_answer(values: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """Sums over the tokens of each answer: (sum of lengths,) to (n,)."""
    owners = torch.tensor([place for place, answer in enumerate(answers) for _ in answer], device=values.device)
    return values.new_zeros(len(answers)).index_add(0, owners, values)


#: Tokens a forward pass, padding included.
BATCH_TOKENS = 1280

Nats: TypeAlias = npt.NDArray[np.float64]


@torch.no_grad()
def answers_nll(
    model: Any, prompts: Sequence[Parts], answers: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> Nats:
    """(n,) nats: -ln P(answer | prompt) summed over each answer's tokens; a row's value depends on no other's but for
    rounding. Raises InputError as `ctxprune.generators.soft_prompt.answer_logits` does."""
    lengths = [sum(map(len, parts)) + len(answer) for parts, answer in zip(prompts, answers, strict=True)]
    found = np.zeros(len(prompts))
    for places in token_batches(lengths, batch_tokens):
        nats, _ = answer_nll(model, [prompts[place] for place in places], [answers[place] for place in places])
        found[places] = nats.double().cpu().numpy()
    return found


#: What stands before and after the soft token; the text comes next.
PARAPHRASES: Final = (
    ("Background: ", " means the same as "),
    ("Background: ", "\nThe same in plain words: "),
    ("", " is another way of writing: "),
    ("Read this note: ", "\nWritten out in full it says: "),
    ("These two say the same.\nFirst: ", "\nSecond: "),
    ("Unpack the following passage.\n", "\nPassage: "),
    ("What ", " stands for is this text: "),
    ("Summary token: ", "\nOriginal text: "),
)


def token_ids(tokenizer: Any, text: str, *, special: bool = False) -> tuple[int, ...]:
    """special: with the tokens that the tokenizer puts at the beginning of a prompt."""
    return tuple(tokenizer(model_text(text), add_special_tokens=special, verbose=False)["input_ids"])


def paraphrase_ids(tokenizer: Any, template: tuple[str, str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and after the soft token. template: one of `PARAPHRASES`."""
    before, after = template
    return token_ids(tokenizer, before, special=True), token_ids(tokenizer, after)
