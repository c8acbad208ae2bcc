"""Training items of the two stages: prompts with a place for soft tokens, and the tokens that shall follow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctxprune.embedders import Vectors
from ctxprune.models.paraphrase import PARAPHRASES, paraphrase_ids, token_ids
from ctxprune.models.prompt_encoding import PromptEncoder
from ctxprune.prompt import render_prompt
from ctxprune.trainers.xrag_passages import Exercise
from ctxprune.types import Context, Document, SoftTokens

#: Stage 2: longer answers are left out; short ones are what is asked for, and what makes a batch cheap.
MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class SoftItem:
    """before, after: token ids around the soft tokens. vectors: (shards, d_retriever). target: ids to be predicted.

    bare: the prompt without any document; told: with the document's text, () in stage 1, where that is the target.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    vectors: Vectors
    target: tuple[int, ...]
    bare: tuple[int, ...]
    told: tuple[int, ...] = ()

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """All tokens that the model reads of it, for batches of like lengths."""
        return np.array([*self.before, *self.after, *self.target, *self.told])


def paraphrase_items(
    passages: Sequence[str], vectors: Sequence[Vectors], tokenizer: Any, *, max_length: int, rng: random.Random
) -> list[SoftItem]:
    """Stage 1: the passage after its own soft token, in a template drawn for each.

    max_length: tokens of a passage to predict; the vector is of all of it, what is beyond is not asked for.
    """
    templates = [paraphrase_ids(tokenizer, template) for template in PARAPHRASES]
    items = []
    for passage, found in zip(passages, vectors, strict=True):
        before, after = rng.choice(templates)
        target = token_ids(tokenizer, passage)[:max_length]
        items.append(SoftItem(before, after, found, target, bare=before + after))
    return items


def answer_items(
    exercises: Sequence[Exercise],
    vectors: Sequence[Vectors],
    tokenizer: Any,
    *,
    template: str,
    max_length: int,
    name: str,
) -> list[SoftItem]:
    """Stage 2: the answer and the end of the turn, after the question with its document's soft tokens.

    Left out: answers of more than `MAX_ANSWER_TOKENS` tokens, and documents whose text makes the teacher's prompt
    longer than `max_length` tokens. name: of the model, for messages.
    """
    encoder = PromptEncoder(tokenizer, name=name)
    items = []
    for exercise, found in zip(exercises, vectors, strict=True):
        before, after = _around(encoder, exercise, found, template)
        told = encoder.ids(render_prompt(Context.of(exercise.question, [exercise.document]), template=template))
        answer = encoder.answer_ids(exercise.answer)
        if len(answer) <= MAX_ANSWER_TOKENS and len(told) <= max_length:
            target = (*answer, tokenizer.eos_token_id)
            bare = tuple(encoder.ids(exercise.question))
            items.append(SoftItem(before, after, found, target, bare, tuple(told)))
    return items


def _around(
    encoder: PromptEncoder, exercise: Exercise, vectors: Vectors, template: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and after the soft tokens, exactly as a generator encodes such a context."""
    soft = SoftTokens(np.zeros((len(vectors), 1), np.float32), Document(exercise.document), "")
    parts = encoder.parts(Context(exercise.question, (soft,)), template=template)
    place = next(place for place, part in enumerate(parts) if not isinstance(part, list))
    before, after = (
        tuple(int(token) for part in some for token in part) for some in (parts[:place], parts[place + 1 :])
    )
    return before, after
