"""Share the documents of a context out among as many prompts as their length needs, so that none is cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ctxprune.compressors.base import narrow, visible_units
from ctxprune.compressors.summarizers import Summarizer
from ctxprune.errors import InputError
from ctxprune.prompt import title_header, title_line
from ctxprune.text import split_sentences
from ctxprune.text.blobs import silent_units
from ctxprune.types import Extract, Span

#: What one prompt shows: extracts in order, each with what is kept of it here.
Window = tuple[Extract, ...]

#: Tokens for documents below which a prompt is not worth asking.
MIN_ROOM = 8


def windowed(
    query: str,
    extracts: Sequence[Extract],
    *,
    summarizer: Summarizer,
    source_tokens: int,
    language: str | None = None,
) -> list[Window]:
    """Windows whose prompts take at most `source_tokens` tokens, together showing all that is kept, once.

    Documents stay whole where they fit; a longer one is split at sentences, a longer sentence at white space.
    language: see `split_sentences`.
    Raises InputError when the question leaves less than MIN_ROOM tokens.
    """
    if not extracts:
        return []
    [asked] = summarizer.count([summarizer.prompt(query, [])])
    room = source_tokens - asked
    while room >= MIN_ROOM:
        windows = _packed(extracts, room, summarizer, language)
        prompts = [prompt_of(query, window, summarizer) for window in windows]
        excess = max(summarizer.count(prompts)) - source_tokens
        if excess <= 0:
            return windows
        room -= excess  # tokens of parts do not quite add up to the tokens of the whole
    raise InputError(
        f"the question takes {asked} of {source_tokens} source tokens, which leaves too few for documents; "
        "shorten it or raise source_tokens"
    )


def prompt_of(query: str, window: Window, summarizer: Summarizer) -> str:
    return summarizer.prompt(query, [_passage(extract, summarizer) for extract in window])


def _passage(extract: Extract, summarizer: Summarizer) -> str:
    return (title_header(extract) if summarizer.titles else "") + extract.text


def _packed(extracts: Sequence[Extract], room: int, summarizer: Summarizer, language: str | None) -> list[Window]:
    parts: list[Extract] = []
    for extract, cost in zip(
        extracts, _costs([_passage(each, summarizer) for each in extracts], summarizer), strict=True
    ):
        parts += [extract] if cost <= room else _split(extract, room, summarizer, language)
    costs = _costs([_passage(part, summarizer) for part in parts], summarizer)
    return [tuple(parts[run]) for run in _runs(costs, room)]


def _split(extract: Extract, room: int, summarizer: Summarizer, language: str | None) -> list[Extract]:
    """The extract in parts of about `room` tokens, each with the rest of its units marked as removed."""
    [header] = summarizer.count([title_line(extract)]) if summarizer.titles else [0]
    room = max(room - header, 1)
    units, costs = _sentences(extract, room, summarizer, language)
    marked = narrow(extract, units)
    parts = []
    for run in _runs(costs, room):
        mine = set(units[run])
        kept = tuple(kept and unit in mine for unit, kept in zip(marked.units, marked.kept, strict=True))
        parts.append(replace(marked, kept=kept))
    return parts


def _sentences(
    extract: Extract, room: int, summarizer: Summarizer, language: str | None
) -> tuple[list[Span], list[int]]:
    """(kept sentences of at most `room` tokens where they can be cut so short, tokens of each)."""
    text, longest = extract.source.text, 2000
    while True:
        units = visible_units(extract, partial(split_sentences, language=language, max_characters=longest))
        silent = silent_units(text, units)  # an image in base64 would take whole windows and says nothing
        units = [unit for unit, quiet in zip(units, silent, strict=True) if not quiet] or units[:1]
        costs = _costs([text[unit.start : unit.end] for unit in units], summarizer)
        if longest == 1 or max(costs) <= room:
            return units, costs
        longest //= 2


def _costs(passages: Sequence[str], summarizer: Summarizer) -> list[int]:
    """Tokens of each passage and the line break before it."""
    return [tokens + 1 for tokens in summarizer.count(passages)]


def _runs(costs: Sequence[int], room: int) -> list[slice]:
    """Consecutive stretches, each as long as `room` allows and of one item at least."""
    runs, start, spent = [], 0, 0
    for place, cost in enumerate(costs):
        if place > start and spent + cost > room:
            runs.append(slice(start, place))
            start, spent = place, 0
        spent += cost
    return [*runs, slice(start, len(costs))]
