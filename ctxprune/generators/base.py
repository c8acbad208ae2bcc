"""What a generator is, and the checks that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ctxprune.errors import InputError
from ctxprune.prompt import DEFAULT_TEMPLATE
from ctxprune.types import Context


@runtime_checkable
class Generator(Protocol):
    """Writes an answer to each prompt."""

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """One answer a prompt, in order, without the prompt and without special tokens."""
        ...


@runtime_checkable
class ContextGenerator(Protocol):
    """Writes an answer to each context; whether it can read soft tokens is its own business."""

    @property
    def name(self) -> str: ...

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context, in order; `template` as in `ctxprune.prompt.render_prompt`."""
        ...


def checked_prompts(prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Raises InputError for a single string in place of a list, and for less than one new token."""
    if isinstance(prompts, str):
        raise InputError(f"prompts must be a sequence of strings, got one string; pass [{prompts!r:.60}]")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    return list(prompts)


def checked_contexts(contexts: Sequence[Context], max_new_tokens: int) -> list[Context]:
    """Raises InputError for anything but contexts (text goes to `generate`), and for less than one new token."""
    if isinstance(contexts, Context):
        raise InputError("contexts must be a sequence, got one Context; pass [context]")
    for place, context in enumerate(contexts):
        if not isinstance(context, Context):
            raise InputError(
                f"contexts[{place}] must be a Context, got {type(context).__name__}; pass result.after, or a prompt's "
                "text to generate()"
            )
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    return list(contexts)
