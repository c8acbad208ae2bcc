"""Split a text into units (sentences, records, rows) and words by offsets, never through a protected part."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import get_args

from ctxprune.errors import InputError
from ctxprune.text.atoms import (
    UNMARKED,
    Offsets,
    atomic_spans,
    clauses,
    enclosing,
    inline_code,
    is_spaced,
    is_unmarked,
    merge,
    names,
    numbers,
    pieces,
    spaced_clauses,
    spaced_spans,
    trim,
)
from ctxprune.text.language import checked_language, guess_language
from ctxprune.text.markup import APART, blobs, closes, in_tag, is_html, preformatted, tag_cuts, tag_spans, xml_records
from ctxprune.text.normal import NormalText, normalise
from ctxprune.text.patterns import on_use
from ctxprune.text.sentences import HAN, HAN_CHARACTER, Block, Prose, UnitKind, blocks, sentence_ends
from ctxprune.types import Span

__all__ = ["UnitKind", "atomic_spans", "checked_units", "model_text", "split_sentences", "split_words"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = on_use(rf"[{HAN}][\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*|[^\s{HAN}]+")


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
    text: str,
    *,
    language: str | None = None,
    atoms: Sequence[re.Pattern[str]] = (),
    max_characters: int = 2000,
    units: UnitKind = "auto",
) -> list[Span]:
    """The units of `text`: in order, without overlap, trimmed, covering every character that is not white space.

    A unit is a sentence of running text, a sentence of a list item or speaker turn, a heading, a table row (a header
    with its separator line), a record with the lines that continue it (of a log, a chat, a table of settings, a diff,
    a trace) or a whole fenced code block. A line break inside wrapped prose ends nothing, nor does a page break inside
    a sentence; a blank line does, and a block's tag in HTML. No unit ends inside an atom: what `atomic_spans` finds,
    or a match of the caller's `atoms`. Long blobs (see `ctxprune.text.markup`) are units of their own.
    language: ISO 639 code whose abbreviations, dates and quotes hold; None: guessed from the text (see
    `guess_language`). Where it cannot be told only what is clear in any language holds, and another script than its own
    has its own rules. The text is read as `normalise` reads it; the offsets are those of `text`.
    units: "auto" goes by the shape of the text; "sentences" takes all lines for running text, "lines" makes a unit of
    every line, "records" of every line with the deeper indented ones below it, "paragraphs" of what blank lines part.

    What is longer than `max_characters` is cut into pieces of at most that size, at a line end or white space where
    there is one, else (scripts without blanks) at exactly that size; running text without sentence marks is cut into
    clauses long before. An atom is cut only when it is itself longer, and then at its line ends if it has any; a blob
    never is. Linear in the text's length.
    Raises InputError for `max_characters` below 1, for a language that is not known and for an unknown kind of units.
    """
    if max_characters < 1:
        raise InputError(f"max_characters must be at least 1, got {max_characters}; the default is 2000")
    checked_units(units)
    normal = normalise(text, keep_gaps=True)
    language = checked_language(language) or guess_language(normal.text)
    divided = list(blocks(normal.text, units))
    tags = units in ("auto", "sentences", "paragraphs") and is_html(normal.text)
    cuts = normal.cuts(_cuts(normal.text, divided, language, tags=tags, shapes=units in ("auto", "records")))
    apart = [span for span in blobs(text) if span[1] - span[0] >= APART]
    if held := merge([*spaced_spans(text, extra=atoms), *apart, *(preformatted(text) if tags else [])]):
        cuts = [cut for cut in cuts if enclosing(held, cut) is None]
    edges = (edge for span in apart for edge in span if enclosing(held, edge) is None)
    cuts = sorted({0, len(text), *cuts, *edges})
    found = [unit for start, end in pairwise(cuts) if (unit := trim(text, start, end))]
    prose = _prose(text, normal, divided)
    too_long = {unit for unit in found if _is_long(text, unit, prose, apart, max_characters)}
    if too_long:
        held = merge([*atomic_spans(text, extra=atoms), *normal.joints, *(tag_spans(text) if tags else [])])
        found = [
            piece
            for unit in found
            for piece in (_cut(text, unit, max_characters, held) if unit in too_long else [unit])
        ]
    return [Span(start, end) for start, end in found]


def checked_units(units: UnitKind) -> UnitKind:
    """The kind of units; raises InputError for one that is not known."""
    if units not in get_args(UnitKind):
        raise InputError(f"units must be one of {', '.join(get_args(UnitKind))}, got {units!r}")
    return units


def _cuts(text: str, divided: Sequence[Block], language: str, *, tags: bool, shapes: bool) -> list[int]:
    """Where blocks begin, sentences end and, with `tags`, the blocks of HTML part; none within a record of XML."""
    cuts = [block.start for block in divided]
    for block in divided:
        if block.divisible:
            cuts.extend(sentence_ends(Prose(text, block.start, block.end, language)))
    if tags:  # closing tags stay with what they close, and no tag is torn
        cuts = [*(cut for cut in cuts if not closes(text, cut) and not in_tag(text, cut)), *tag_cuts(text)]
    if records := xml_records(text) if shapes else []:
        edges = [edge for record in records for edge in record]
        cuts = [*(cut for cut in cuts if enclosing(records, cut) is None), *edges]
    return cuts


def _prose(text: str, normal: NormalText, divided: Sequence[Block]) -> list[Offsets]:
    """The stretches of running text, as offsets into the source."""
    starts = normal.cuts([block.start for block in divided])
    edges = pairwise([*starts, len(text)])
    return [edge for edge, block in zip(edges, divided, strict=True) if block.divisible and block.kind != "record"]


def _is_long(text: str, unit: Offsets, prose: Sequence[Offsets], apart: Sequence[Offsets], max_characters: int) -> bool:
    """Whether a unit is to be cut: beyond the limit unless it is a blob, or much running text without marks."""
    start, end = unit
    if end - start > max_characters:
        around = enclosing(apart, start + 1)
        return around is None or around[1] < end
    if end - start < UNMARKED and not is_spaced(text, unit):
        return False
    place = bisect_right(prose, start, key=itemgetter(0)) - 1
    return place >= 0 and end <= prose[place][1] and (is_unmarked(text, unit) or is_spaced(text, unit))


def _cut(text: str, unit: Offsets, limit: int, held: Sequence[Offsets]) -> Iterable[Offsets]:
    if limit >= UNMARKED and is_spaced(text, unit):
        parts: Iterable[Offsets] = spaced_clauses(text, unit, held)
    else:
        parts = clauses(text, unit, held) if limit >= UNMARKED and is_unmarked(text, unit) else [unit]
    return (piece for part in parts for piece in pieces(text, part, limit, held))
