"""Contexts for a generator that reads only text: soft tokens are refused, or their documents compressed to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctxprune.errors import InputError
from ctxprune.generators.base import Generator, checked_contexts
from ctxprune.generators.replies import Reply, generated
from ctxprune.prompt import DEFAULT_TEMPLATE, render_prompt
from ctxprune.types import Compressor, Context, SoftTokens, whole


class TextOnly:
    """generator: any `Generator`, such as one behind a chat endpoint.

    fallback: a text compressor for contexts that hold soft tokens. It reads them with each soft document whole again,
    beside the text that was kept of the others, and its budget is for all of that; None: soft tokens raise InputError.
    Raises InputError for a fallback that gives soft tokens itself.
    """

    def __init__(self, generator: Generator, *, fallback: Compressor | None = None) -> None:
        if getattr(fallback, "gives_soft_tokens", False):
            raise InputError(f"the fallback must return text, got {getattr(fallback, 'name', fallback)!r}")
        self.generator = generator
        self.fallback = fallback

    @property
    def name(self) -> str:
        return self.generator.name

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        return generated(self.generator, prompts, max_new_tokens=max_new_tokens)

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context. Raises InputError for soft tokens without a fallback, before anything is generated."""
        texts = self._as_text(checked_contexts(contexts, max_new_tokens))
        prompts = [render_prompt(context, template=template) for context in texts]
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def _as_text(self, contexts: list[Context]) -> list[Context]:
        soft = [place for place, context in enumerate(contexts) if _is_soft(context)]
        if self.fallback is None or not soft:
            return contexts
        restored = self.fallback.compress([_restored(contexts[place]) for place in soft])
        for place, context in zip(soft, restored, strict=True):
            contexts[place] = context
        return contexts


def _is_soft(context: Context) -> bool:
    return any(isinstance(piece, SoftTokens) for piece in context.pieces)


def _restored(context: Context) -> Context:
    """The context with the whole document where its soft tokens were."""
    pieces = (
        whole(piece.source, index=piece.index) if isinstance(piece, SoftTokens) else piece for piece in context.pieces
    )
    return replace(context, pieces=tuple(pieces))
