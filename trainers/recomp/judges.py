"""Let a generator judge summaries by its own task: keep those that help it to the answer, empty what helps nothing.

The end-task filter of RECOMP (Xu et al., ICLR 2024, section 3.2): where no summary beats answering without context, the
compressor learns to write nothing (selective augmentation).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from ctxprune.data.questions import locate_answers
from ctxprune.files import batched
from ctxprune.prompt import render_prompt
from ctxprune.trainers.shared.teacher import AnswerCache, answer_all
from ctxprune.types import Context, Document, Summary

if TYPE_CHECKING:
    from ctxprune.generators import Generator
    from ctxprune.models.causal import AnswerLikelihood

#: Pairs scored before the cache is written: what an interruption may lose.
_PAIRS_A_CALL = 128


class Outcome(StrEnum):
    """What becomes of a summary. EMPTIED: the target is ""."""

    KEPT = "kept"
    EMPTIED = "emptied"
    DROPPED = "dropped"


def judged(closed: float, summary: float, documents: float | None, *, margin: float, no_gain: Outcome) -> Outcome:
    """What the answer's scores without context, with the summary and (None: not scored) with all documents decide.

    A summary that gains `margin` over no context is kept. Where the documents would, it has failed them, and is
    dropped. Where nothing helps, `no_gain`: RECOMP empties for language modelling and drops for question answering.
    """
    if summary - closed >= margin:
        return Outcome.KEPT
    if documents is not None and documents - closed >= margin:
        return Outcome.DROPPED
    return no_gain


class Judge(Protocol):
    """How well a generator answers after each prompt; higher is better."""

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        """One score a prompt. answers: the accepted ones of each, at least one."""
        ...


class LikelihoodJudge:
    """Log-likelihood of the first accepted answer in nats, at most 0, remembered in the cache."""

    def __init__(self, model: AnswerLikelihood, cache: AnswerCache) -> None:
        self._model = model
        self._cache = cache
        self._name = f"nats {model.name}"

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        pairs = [(prompt, accepted[0]) for prompt, accepted in zip(prompts, answers, strict=True)]
        unknown = [pair for pair in dict.fromkeys(pairs) if self._known(pair) is None]
        for asked in batched(unknown, _PAIRS_A_CALL):
            found = self._model.score([prompt for prompt, _ in asked], [answer for _, answer in asked])
            for pair, score in zip(asked, found, strict=True):
                self._cache.put(self._name, json.dumps(pair), repr(score.nats))
        return [float(self._known(pair) or "nan") for pair in pairs]

    def _known(self, pair: tuple[str, str]) -> str | None:
        return self._cache.get(self._name, json.dumps(pair))


class MatchJudge:
    """1.0 where an accepted answer stands in what the generator writes, else 0.0; its answers are remembered."""

    def __init__(self, generator: Generator, cache: AnswerCache, *, max_new_tokens: int = 24) -> None:
        self._generator = generator
        self._cache = cache
        self._max_new_tokens = max_new_tokens

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        name = f"answers {self._generator.name} {self._max_new_tokens}"
        limit = self._max_new_tokens
        # a short answer comes first: that the limit ended what follows it does not matter
        answer_all(prompts, self._generator, model=name, cache=self._cache, max_new_tokens=limit, whole=False)
        written = [self._cache.get(name, prompt) or "" for prompt in prompts]
        return [float(bool(locate_answers(text, each))) for text, each in zip(written, answers, strict=True)]


def summary_prompt(question: str, summary: str) -> str:
    """What a generator is asked when `summary` is all of its context; "" tells it that nothing was found."""
    return render_prompt(Context(question, (Summary(summary, ()),)))


def documents_prompt(question: str, documents: Sequence[Document]) -> str:
    return render_prompt(Context.of(question, documents))
