"""Split a text into sentences and words by character offsets, never through a protected part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ctxprune.errors import InputError
from ctxprune.text.atoms import Offsets, atomic_spans, enclosing, inline_code, merge, names, numbers, spaced_spans, trim
from ctxprune.text.blocks import blocks
from ctxprune.text.language import checked_language, guess_language
from ctxprune.text.normal import normalise
from ctxprune.text.prose import HAN, HAN_CHARACTER, Prose, sentence_ends
from ctxprune.types import Span

__all__ = ["atomic_spans", "model_text", "split_sentences", "split_words"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(rf"[{HAN}][\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*|[^\s{HAN}]+")


def model_text(text: str) -> str:
    """The text with every lone surrogate as U+FFFD: same length, so offsets hold, and safe to encode as UTF-8."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def split_words(text: str) -> list[Span]:
    """Word units of `text`: in order, without overlap, covering every character that is not white space.

    A unit is a run without white space; a Han or kana character is a unit of its own. Inline code, numbers with their
    units, URLs and identifiers stay whole; fenced code does not, it splits like other text.
    """
    runs = [match.span() for match in _WORD.finditer(text)]
    held = [*inline_code(text), *numbers(text)]
    if not text.isascii() and HAN_CHARACTER.search(text):  # elsewhere a name is within one run anyway
        held.extend(names(text))
    return [Span(start, end) for start, end in merge([*runs, *held])]


def split_sentences(
    text: str, *, language: str | None = None, atoms: Sequence[re.Pattern[str]] = (), max_characters: int = 2000
) -> list[Span]:
    """Sentence units of `text`: in order, without overlap, trimmed, covering every character that is not white space.

    A unit is a sentence of running text, a sentence of a list item or speaker turn, a heading, a table row (a header
    with its separator line) or a whole fenced code block. A line break inside wrapped prose ends nothing, a blank
    line does. No unit ends inside an atom: what `atomic_spans` finds, or a match of the caller's `atoms`.
    language: ISO 639 code whose abbreviations, dates and quotes hold; None: guessed from the text (see
    `guess_language`). Where it cannot be told only what is clear in any language holds, and another script than its own
    has its own rules. The text is read as `normalise` reads it; the offsets are those of `text`.

    What is longer than `max_characters` is cut into pieces of at most that size, at a line end or white space where
    there is one, else (scripts without blanks) at exactly that size. An atom is cut only when it is itself longer,
    and then at its line ends if it has any. Linear in the text's length.
    Raises InputError for `max_characters` below 1 and for a language that is not known.
    """
    if max_characters < 1:
        raise InputError(f"max_characters must be at least 1, got {max_characters}; the default is 2000")
    normal = normalise(text)
    language = checked_language(language) or guess_language(normal.text)
    cuts = [0]
    for start, end, divisible in blocks(normal.text):
        cuts.append(start)
        if divisible:
            cuts.extend(sentence_ends(Prose(normal.text, start, end, language)))
    cuts = normal.cuts(cuts)
    if held := spaced_spans(text, extra=atoms):
        cuts = [cut for cut in cuts if enclosing(held, cut) is None]
    units = [unit for start, end in pairwise([*cuts, len(text)]) if (unit := trim(text, start, end))]
    if any(end - start > max_characters for start, end in units):
        held = atomic_spans(text, extra=atoms)
        units = [piece for unit in units for piece in _pieces(text, unit, max_characters, held)]
    return [Span(start, end) for start, end in units]


def _pieces(text: str, unit: Offsets, limit: int, held: Sequence[Offsets]) -> Iterator[Offsets]:
    """`unit` in trimmed pieces of at most `limit` characters."""
    start, end = unit
    while end - start > limit:
        cut = _last_break(text, start, start + limit, held)
        if piece := trim(text, start, cut):
            yield piece
        start = cut
    if piece := trim(text, start, end):
        yield piece


def _last_break(text: str, start: int, limit: int, held: Sequence[Offsets]) -> int:
    """The best place to cut in (start, limit]: a line end in the later half, white space, an atom's edge, `limit`."""
    line_end = text.rfind("\n", start + (limit - start) // 2, limit) + 1
    if line_end > start and enclosing(held, line_end) is None:
        return line_end
    for place in range(limit, start, -1):
        if (text[place - 1].isspace() or text[place].isspace()) and enclosing(held, place) is None:
            return place
    around = enclosing(held, limit)
    if around is None:
        return limit
    return around[0] if around[0] > start else _break_atom(text, start, limit)


def _break_atom(text: str, start: int, limit: int) -> int:
    """Where to cut an atom that is longer than the limit: a line end, white space, or `limit`."""
    line_end = text.rfind("\n", start + 1, limit) + 1
    if line_end:
        return line_end
    return next((place for place in range(limit, start, -1) if text[place - 1].isspace()), limit)
