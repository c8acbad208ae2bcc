"""The models that write summaries: a T5 trained for it, or any generator that follows a request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Protocol

from ctxprune.compressors.summary_prompts import chat_prompt, read_answer, refuses_summary, seq2seq_source
from ctxprune.errors import GeneratorError
from ctxprune.generators.base import Generator
from ctxprune.generators.replies import REFUSED, Reply, generated
from ctxprune.models.seq2seq import Seq2Seq, Written
from ctxprune.text import split_sentences
from ctxprune.tokens import default_counter
from ctxprune.types import TokenCounter

_ENDED = re.compile(r"[.!?…。！？।][\"'”’»)\]]*$")


class Summarizer(Protocol):
    """Prompts in, summaries out. titles: whether passages carry their document's title."""

    @property
    def titles(self) -> bool: ...

    def prompt(self, query: str, passages: Sequence[str]) -> str: ...

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Input tokens of each prompt, as `source_tokens` limits them."""
        ...

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        """One summary a prompt, in order; "" where nothing helps."""
        ...

    def close(self) -> None:
        """Give back connections, if it has any."""
        ...


class Seq2SeqSummarizer:
    """A T5 with the published RECOMP input. titles: off, as that input has passages only."""

    def __init__(self, model: Seq2Seq, *, titles: bool = False) -> None:
        self.titles = titles
        self._model = model

    def prompt(self, query: str, passages: Sequence[str]) -> str:
        return seq2seq_source(query, passages)

    def count(self, prompts: Sequence[str]) -> list[int]:
        return self._model.count(prompts)

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        return self._model.generate(prompts, max_new_tokens=max_new_tokens)

    def close(self) -> None:
        """Nothing is held open."""


class GeneratorSummarizer:
    """A generator asked in its own turn, on disk or at an endpoint.

    counter: measures prompts and answers (default: the bundled tokenizer's estimate). Of a generator that does not say
    whether it ended by itself, an answer near the limit without a mark at its end counts as cut off.
    """

    #: Share of the limit from which on an answer may have been cut off, where tokens are only estimated.
    near_limit: ClassVar[float] = 0.8

    def __init__(self, generator: Generator, *, counter: TokenCounter | None = None, titles: bool = True) -> None:
        self.titles = titles
        self._generator = generator
        self._counter = counter or default_counter()

    def prompt(self, query: str, passages: Sequence[str]) -> str:
        return chat_prompt(query, passages)

    def count(self, prompts: Sequence[str]) -> list[int]:
        return self._counter.count(prompts)

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        """Raises GeneratorError for a reply that is no summary: empty, refused, only reasoning, cut off within its
        first sentence. "" comes only of a model that says that nothing helps."""
        replies = generated(self._generator, prompts, max_new_tokens=max_new_tokens)
        return [self._written(reply, max_new_tokens) for reply in replies]

    def _written(self, reply: Reply, limit: int) -> Written:
        if reply.cut and len(split_sentences(reply.text)) > 1:
            return Written(reply.text, complete=False)
        text = reply.usable(self._generator.name)
        if refuses_summary(text):
            raise GeneratorError(f"{self._generator.name} gave no summary: {REFUSED}: {text:.200}")
        answer = read_answer(text)
        if reply.cut is not None:
            return Written(answer, complete=not reply.cut)
        near = self._counter.count([answer])[0] >= self.near_limit * limit
        return Written(answer, complete=not near or bool(_ENDED.search(answer)))

    def close(self) -> None:
        """Close the generator where it can be closed."""
        if close := getattr(self._generator, "close", None):
            close()
