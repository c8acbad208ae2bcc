"""Strings and line structure that a word compressor keeps whatever their scores, as patterns for `select`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ctxprune.errors import InputError
from ctxprune.runtime.base import IntArray
from ctxprune.select import Policy
from ctxprune.text import atomic_spans
from ctxprune.types import Span

#: Headings, whole, and the markers of list items.
STRUCTURE = (r"(?m)^[ \t]*#{1,6}[ \t].*$", r"(?m)^[ \t]*(?:[-*+•‣]|[0-9]{1,3}[.)])(?=[ \t])")
DIGIT = "[0-9]"


def checked_strings(strings: Sequence[str]) -> tuple[str, ...]:
    """Each once; InputError for a plain string, an empty one, or what is no string."""
    if isinstance(strings, str) or not all(isinstance(each, str) and each for each in strings):
        raise InputError(f"force_tokens must be a list of strings that are not empty, got {strings!r:.80}")
    return tuple(dict.fromkeys(strings))


def forced_pattern(strings: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for all strings that hold text, the longest first; None when none does.

    Letters and digits at an end match as whole words; a string of punctuation does not match between two of them, so
    that a forced "." spares "3.14". Line breaks need no pattern: one always stands where a line of kept text ended.
    """
    visible = sorted({each.strip() for each in strings if each.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(_whole, visible))) if visible else None


def _whole(string: str) -> str:
    escaped = re.escape(string)
    before = "(?<![A-Za-z0-9])" if string[0].isascii() and string[0].isalnum() else ""
    after = "(?![A-Za-z0-9])" if string[-1].isascii() and string[-1].isalnum() else ""
    if before or after:
        return f"{before}{escaped}{after}"
    return f"(?:(?<![A-Za-z0-9]){escaped}|{escaped}(?![A-Za-z0-9]))"


def protecting(policy: Policy, forced: re.Pattern[str] | None, *, digits: bool, structure: bool) -> Policy:
    """The policy with forced strings, words with digits, headings and list markers protected as well."""
    added = ((forced.pattern,) if forced else ()) + ((DIGIT,) if digits else ()) + (STRUCTURE if structure else ())
    return replace(policy, protect=(*policy.protect, *added))


def forced_edges(text: str, forced: re.Pattern[str] | None) -> IntArray:
    """(n,) sorted: where matches begin and end, outside of what must stay whole; words are cut there."""
    if forced is None:
        return np.zeros(0, np.int64)
    edges = np.array(sorted({edge for match in forced.finditer(text) for edge in match.span()}), np.int64)
    held = np.array(atomic_spans(text), np.int64).reshape(-1, 2)
    if not len(edges) or not len(held):
        return edges
    before = np.searchsorted(held[:, 0], edges, side="left") - 1
    outside: IntArray = edges[(before < 0) | (edges >= held[before, 1])]
    return outside


def cut_at(span: Span, edges: IntArray) -> list[Span]:
    """The span in pieces that end at the edges inside it, each with its score."""
    inside = edges[np.searchsorted(edges, span.start, "right") : np.searchsorted(edges, span.end, "left")]
    return [Span(start, end, span.score) for start, end in pairwise([span.start, *inside.tolist(), span.end])]
