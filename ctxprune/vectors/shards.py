"""Cut a text into shards of so many tokens, each to get a vector of its own (xRAG, Cheng et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from tokenizers import Tokenizer

from ctxprune.errors import InputError
from ctxprune.text import model_text
from ctxprune.tokens import DEFAULT_TOKENIZER


def shard_text(text: str, shard_tokens: int | None) -> list[str]:
    """The text in order in shards of at most `shard_tokens` tokens of the bundled tokenizer, cut between words.

    A word of more tokens than that is cut within. Nothing but white space at the cuts is lost. None: the whole text.
    Raises InputError for fewer than 1 token.
    """
    if shard_tokens is None:
        return [text]
    if shard_tokens < 1:
        raise InputError(f"shard_tokens must be at least 1, got {shard_tokens}; xRAG uses 180, None does not cut")
    starts = [start for start, _ in _tokenizer().encode(model_text(text), add_special_tokens=False).offsets]
    if len(starts) <= shard_tokens:
        return [text]
    cuts = [0, *_cuts(text, starts, shard_tokens), len(text)]
    shards = (text[start:end].strip() for start, end in pairwise(cuts))
    return [shard for shard in shards if shard]


def _cuts(text: str, starts: Sequence[int], shard_tokens: int) -> list[int]:
    """Where shards after the first begin. starts: (tokens,) offsets at which the tokens begin, ascending."""
    cuts = []
    first = 0
    while first + shard_tokens < len(starts):
        after = first + shard_tokens
        words = (token for token in range(after, first, -1) if text[starts[token] - 1].isspace())
        first = next(words, after)
        cuts.append(starts[first])
    return cuts


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    # set once, before any thread can see it: these settings are the tokenizer's only mutable state
    tokenizer = Tokenizer.from_file(str(DEFAULT_TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
