"""What an abstractive compressor trains on, as token ids: the very prompt that it is asked at use, then the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch

from ctxprune.compressors.summary_prompts import NOTHING, chat_prompt, seq2seq_source
from ctxprune.errors import InputError
from ctxprune.models.likelihood import left_padded
from ctxprune.models.prompt_encoding import PromptEncoder
from ctxprune.prompt import piece_text
from ctxprune.text import model_text
from ctxprune.trainers.items import IGNORE
from ctxprune.trainers.recomp_abstractive_contexts import shown_documents
from ctxprune.trainers.recomp_abstractive_data import SummaryTarget
from ctxprune.types import whole


class Example(TypedDict):
    """input_ids: what the model reads (a causal one: prompt, then target). labels: the target, its end token last."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Fitting:
    """The examples of at most the tokens allowed, and how many were longer: those are left out, none is cut."""

    examples: list[Example]
    too_long: int


def seq2seq_example(made: SummaryTarget, tokenizer: Any) -> Example:
    """Reads the published RECOMP input, without titles; the empty summary is the end token alone."""
    source = seq2seq_source(made.question.text, [document.text for document in shown_documents(made.question)])
    ids = tokenizer(model_text(source), verbose=False)["input_ids"]
    labels = tokenizer(model_text(made.target), add_special_tokens=False, verbose=False)["input_ids"]
    return Example(input_ids=ids, labels=[*labels, tokenizer.eos_token_id])


def causal_example(made: SummaryTarget, tokenizer: Any, encoder: PromptEncoder) -> Example:
    """Reads a chat turn, with titles; the empty summary is written as that turn asks for it."""
    passages = [piece_text(whole(document)) for document in shown_documents(made.question)]
    prompt = encoder.ids(chat_prompt(made.question.text, passages))
    labels = [*encoder.answer_ids(made.target or NOTHING), tokenizer.eos_token_id]
    return Example(input_ids=prompt + labels, labels=labels)


def examples(targets: Sequence[SummaryTarget], model: Any, tokenizer: Any, *, max_length: int, name: str) -> Fitting:
    """The targets as the model's kind needs them. max_length: tokens of input and target together.

    Raises InputError for a tokenizer without an end token and when nothing fits.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {name} has no end token, so a summary would never end; set eos_token")
    if seq2seq := model.config.is_encoder_decoder:
        made = [seq2seq_example(target, tokenizer) for target in targets]
    else:
        encoder = PromptEncoder(tokenizer, name=name)
        made = [causal_example(target, tokenizer, encoder) for target in targets]
    fitting = [each for each in made if len(each["input_ids"]) + (len(each["labels"]) if seq2seq else 0) <= max_length]
    if not fitting:
        shortest = min((len(each["input_ids"]) for each in made), default=0)
        raise InputError(
            f"none of {len(made)} targets fits --max-length {max_length} (the shortest input takes {shortest} tokens); "
            "raise it, or make targets with fewer --documents or --passage-tokens"
        )
    return Fitting(fitting, len(made) - len(fitting))


def causal_batch(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Rows padded on the left, so that all targets end together.

    input_ids, attention_mask, position_ids: (b, longest) int64. labels: (b, longest target), IGNORE before a target.
    """
    ids, mask = left_padded([each["input_ids"] for each in batch])
    width = max(len(each["labels"]) for each in batch)
    labels = torch.full((len(batch), width), IGNORE, dtype=torch.int64)
    for row, each in enumerate(batch):
        labels[row, width - len(each["labels"]) :] = torch.tensor(each["labels"])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}
