"""Prompts in segments: `<llmlingua, rate=0.5, compress=False>text</llmlingua>`, as llmlingua spells them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ctxprune.errors import InputError

_TAG = re.compile(r"<llmlingua\b([^<>]*)>|</llmlingua>")
_OPTION = re.compile(r"\s*,\s*(rate|compress)\s*=\s*([^,\s]+)\s*")


@dataclass(frozen=True, slots=True)
class Segment:
    """start, end: characters of the prompt without its tags. rate: None for the rate of the call."""

    start: int
    end: int
    rate: float | None = None
    compress: bool = True


def segments(prompt: str) -> tuple[str, list[Segment]]:
    """The prompt without tags, and its segments, which cover all of it; text outside of tags is a segment too.

    A "<" that opens no tag is text. Raises InputError for a tag without its partner, a tag within another, and an
    option that is neither `rate` in [0, 1] nor `compress` True or False.
    """
    parts: list[str] = []
    found: list[Segment] = []
    position = 0
    for text, options in _stretches(prompt):
        if text:
            rate, compress = _options(options)
            parts.append(text)
            found.append(Segment(position, position + len(text), rate, compress))
            position += len(text)
    return "".join(parts), found


def _stretches(prompt: str) -> Iterator[tuple[str, str]]:
    """(text, options of the tag around it) in order."""
    opened: re.Match[str] | None = None
    end = 0
    for tag in _TAG.finditer(prompt):
        closes = tag[1] is None
        if closes == (opened is None):
            kind = "</llmlingua> closes nothing" if closes else "a <llmlingua> tag stands within another"
            raise InputError(f"{kind} at character {tag.start()}; give every <llmlingua> its </llmlingua>")
        yield prompt[end : tag.start()], opened[1] if opened else ""
        opened, end = (None if closes else tag), tag.end()
    if opened is not None:
        raise InputError(
            f"<llmlingua> at character {opened.start()} is never closed; give every <llmlingua> its </llmlingua>"
        )
    yield prompt[end:], ""


def _options(text: str) -> tuple[float | None, bool]:
    rate, compress, end = None, True, 0
    while end < len(text.rstrip()):
        option = _OPTION.match(text, end)
        if option is None:
            raise InputError(f"cannot read {text!r} in a <llmlingua> tag; write e.g. <llmlingua, rate=0.5>")
        end, value = option.end(), option[2]
        if option[1] == "compress":
            if value not in ("True", "False"):
                raise InputError(f"compress must be True or False in a <llmlingua> tag, got {value!r}")
            compress = value == "True"
        else:
            rate = _rate(value)
    return rate, compress


def _rate(value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise InputError(f"rate must be in [0, 1] in a <llmlingua> tag, got {value!r}")
    return rate
