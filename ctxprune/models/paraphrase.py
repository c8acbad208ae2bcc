"""Prompts in which a text follows its own soft token: stage 1 of xRAG (Cheng et al., NeurIPS 2024, section 3)."""

from __future__ import annotations

from typing import Any, Final

from ctxprune.text import model_text

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
