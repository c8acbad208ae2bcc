"""Where a text is cut into pieces, each of which gets a vector of its own.

xRAG (Cheng et al., NeurIPS 2024) cuts at 180 tokens, REFRAG (Lin et al., 2025) at 16 to 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ctxprune.errors import InputError, check_choice
from ctxprune.text import model_text, split_sentences
from ctxprune.tokens import DEFAULT_TOKENIZER

#: "tokens": runs of so many tokens, cut between words; "sentences": a sentence each, cut only where it is longer.
PieceKind: TypeAlias = Literal["tokens", "sentences"]
PIECE_KINDS: tuple[str, ...] = get_args(PieceKind)
#: Half-open character offsets.
Offsets: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text's vectors, (pieces, dimension), and the offsets in that text of what each stands for; () if not known."""

    vectors: npt.NDArray[np.float32]
    offsets: tuple[Offsets, ...] = ()


def shard_text(text: str, shard_tokens: int | None, kind: PieceKind = "tokens") -> list[str]:
    """The texts of `shard_offsets`."""
    return [text[start:end] for start, end in shard_offsets(text, shard_tokens, kind)]


def shard_offsets(text: str, shard_tokens: int | None, kind: PieceKind = "tokens") -> list[Offsets]:
    """`piece_offsets`, but a text that is not cut stays as it is, blanks at its ends included."""
    offsets = piece_offsets(text, shard_tokens, kind)
    return offsets if len(offsets) > 1 else [(0, len(text))]


def piece_offsets(text: str, shard_tokens: int | None, kind: PieceKind = "tokens") -> list[Offsets]:
    """Offsets of the pieces in order, of at most `shard_tokens` tokens of the bundled tokenizer, cut between words.

    A word of more tokens than that is cut within. Nothing but white space lies outside; no piece is empty, so a text
    without any other character has none. shard_tokens None: the whole text, or its whole sentences. Raises InputError
    for fewer than 1 token and for another kind.
    """
    if shard_tokens is not None and shard_tokens < 1:
        raise InputError(f"shard_tokens must be at least 1, got {shard_tokens}; xRAG uses 180, None does not cut")
    if checked_piece_kind(kind) == "tokens":
        return _runs(text, 0, len(text), shard_tokens)
    sentences = split_sentences(text)
    return [run for each in sentences for run in _runs(text, each.start, each.end, shard_tokens)]


def checked_piece_kind(kind: str) -> PieceKind:
    """Raises InputError for a kind of pieces that is not known."""
    check_choice("pieces", kind, PIECE_KINDS)
    return cast("PieceKind", kind)


def _runs(text: str, first: int, last: int, shard_tokens: int | None) -> list[Offsets]:
    """The runs of `text[first:last]`, trimmed."""
    part = text[first:last]
    cuts = [0, *([] if shard_tokens is None else _cuts(part, shard_tokens)), len(part)]
    return [run for start, end in pairwise(cuts) if (run := _trimmed(text, first + start, first + end))]


def _trimmed(text: str, start: int, end: int) -> Offsets | None:
    part = text[start:end]
    if not part.strip():
        return None
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


def _cuts(text: str, shard_tokens: int) -> list[int]:
    """Where pieces after the first begin."""
    starts = [start for start, _ in _tokenizer().encode(model_text(text), add_special_tokens=False).offsets]
    return _breaks(text, starts, shard_tokens) if len(starts) > shard_tokens else []


def _breaks(text: str, starts: Sequence[int], shard_tokens: int) -> list[int]:
    """starts: (tokens,) offsets at which the tokens begin, ascending."""
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
