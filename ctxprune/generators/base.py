"""What a generator is, and the checks that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ctxprune.errors import InputError


@runtime_checkable
class Generator(Protocol):
    """Writes an answer to each prompt."""

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """One answer a prompt, in order, without the prompt and without special tokens."""
        ...


def checked_prompts(prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Raises InputError for a single string in place of a list, and for less than one new token."""
    if isinstance(prompts, str):
        raise InputError(f"prompts must be a sequence of strings, got one string; pass [{prompts!r:.60}]")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    return list(prompts)
