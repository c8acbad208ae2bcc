"""What a language model reads: a prompt as token ids, a context with soft tokens as ids with vectors between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ctxprune.errors import InputError
from ctxprune.prompt import piece_text, render_prompt
from ctxprune.text import model_text
from ctxprune.types import Context, Piece, SoftTokens, Summary

if TYPE_CHECKING:
    import torch

#: A prompt in order: runs of token ids, and (n, d_model) float32 vectors that stand where n tokens would.
Parts: TypeAlias = "list[list[int] | torch.Tensor]"


class PromptEncoder:
    """A model's tokenizer and how it wraps a prompt. chat: as a user's turn; None: if there is a chat template.

    Raises InputError for chat=True without a template. name: the model's, for messages.
    """

    def __init__(self, tokenizer: Any, *, name: str, chat: bool | None = None) -> None:
        self.chat = bool(tokenizer.chat_template) if chat is None else chat
        if self.chat and not tokenizer.chat_template:
            raise InputError(f"{name} has no chat template; pass chat=False")
        self._tokenizer = tokenizer

    def ids(self, prompt: str) -> list[int]:
        return self._ids(self._wrapped(prompt), first=True)

    def answer_ids(self, answer: str) -> list[int]:
        """What follows the prompt: after a chat template's own line break, else after a blank. No end token."""
        text = model_text(answer)
        return self._ids(text if self.chat or not text else f" {text}", first=False)

    def parts(self, context: Context, *, template: str) -> Parts:
        """The prompt of `render_prompt` with each run of neighbouring soft tokens in its place, no separator within it.

        The text between two runs is tokenised by itself. Without soft tokens there is one part, the same ids as `ids`.
        Raises InputError for a prompt template without its placeholders, or a chat template that does not write the
        prompt once and whole.
        """
        import torch

        prompt, runs, mark = _marked(context, template)
        texts = mark.split(self._wrapped(prompt))
        if len(texts) != len(runs) + 1:
            raise InputError(
                f"the chat template writes {len(texts) - 1} runs of soft tokens where the prompt has {len(runs)}; "
                "pass chat=False and a prompt template that holds the model's own turn markers"
            )
        parts: Parts = [self._ids(texts[0], first=True)]
        for run, text in zip(runs, texts[1:], strict=True):
            vectors = np.concatenate([piece.embeddings for piece in run]).astype(np.float32, copy=False)
            parts += [torch.from_numpy(vectors), self._ids(text, first=False)]
        return [part for part in parts if len(part)]

    def _wrapped(self, prompt: str) -> str:
        text = model_text(prompt)
        if not self.chat:
            return text
        turns = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str, *, first: bool) -> list[int]:
        # a chat template writes its own special tokens; a second <s> would hurt
        special = first and not self.chat
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids


def check_soft_tokens(contexts: Sequence[Context], *, names: Sequence[str], width: int) -> None:
    """Raises InputError for soft tokens that were trained for another model than one called one of `names`, that are
    not (n, width), or that hold nan or infinity."""
    for place, context in enumerate(contexts):
        for piece in context.pieces:
            if isinstance(piece, SoftTokens):
                _check(piece, f"contexts[{place}], document {piece.index}", names, width)


def _check(piece: SoftTokens, where: str, names: Sequence[str], width: int) -> None:
    if piece.generator not in names:
        raise InputError(
            f"{where}: the soft tokens are for {piece.generator!r}, this generator is {names[0]!r}; use that "
            f"generator, or pass known_as={piece.generator!r} if this is the same model from another place"
        )
    if piece.embeddings.ndim != 2 or piece.embeddings.shape[1] != width:
        raise InputError(
            f"{where}: the soft tokens have the shape {piece.embeddings.shape}, {names[0]!r} reads (n, {width}); "
            "use the bridge that was trained for this model"
        )
    if not np.isfinite(piece.embeddings).all():
        raise InputError(f"{where}: the soft tokens hold nan or infinity; compress the document again")


def _soft_length(piece: Piece) -> int:
    return len(piece.embeddings) if isinstance(piece, SoftTokens) else 0


def _marked(context: Context, template: str) -> tuple[str, list[list[SoftTokens]], re.Pattern[str]]:
    """(the rendered prompt with a marker for each run of soft tokens, the runs, what finds a marker)."""
    visible = [piece for piece in context.pieces if piece_text(piece) or _soft_length(piece)]
    texts = "\n".join([template, context.query, *map(piece_text, visible)])
    # words that no text of this prompt holds, so that a question about markers stays a question
    stem = next(stem for number in count() if (stem := f"[soft-{number}-") not in texts)
    pieces: list[Piece] = []
    runs: list[list[SoftTokens]] = []
    for soft, neighbours in groupby(visible, lambda piece: isinstance(piece, SoftTokens)):
        if soft:
            pieces.append(Summary(f"{stem}{len(runs)}]", ()))
            runs.append([piece for piece in neighbours if isinstance(piece, SoftTokens)])
        else:
            pieces += neighbours
    prompt = render_prompt(replace(context, pieces=tuple(pieces)), template=template)
    return prompt, runs, re.compile(re.escape(stem) + r"\d+\]")
