"""Word units of a document with a probability each, from the model or from a cache of earlier readings, and the choices
that only words need: nested budgets, whole documents first, forced strings that repeat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from ctxprune.compressors.base import with_extracts
from ctxprune.compressors.readings import DocumentCache, cache_key, from_bytes, to_bytes
from ctxprune.errors import InputError
from ctxprune.models.formats import token_spans
from ctxprune.prompt import count_contexts
from ctxprune.runtime import IntArray
from ctxprune.select import EMPTY, Policy, select
from ctxprune.select.budget import Mask, Units
from ctxprune.text import atomic_spans, split_words
from ctxprune.text.atoms import merge
from ctxprune.text.normal import normalise
from ctxprune.timing import stage
from ctxprune.types import Context, Extract, Span, TokenCounter

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class TokenReading:
    """offsets: (n_tokens, 2) characters of the text. keep: (n_tokens,) P(keep) of each token, in [0, 1]."""

    offsets: IntArray
    keep: Array


TokenToWord = Literal["mean", "first"]

_MONTH = (
    "(?:Jan(?:uary|\\.)?|Feb(?:ruary|\\.)?|Mar(?:ch|\\.)?|Apr(?:il|\\.)?|May|June?|July?|Aug(?:ust|\\.)?|"
    "Sept?(?:ember|\\.)?|Oct(?:ober|\\.)?|Nov(?:ember|\\.)?|Dec(?:ember|\\.)?)"
)
_DAY = "[0-9]{1,2}(?:st|nd|rd|th)?"
_BLANK = "[ \u00a0\n]"
#: Dates in words, which numbers alone do not hold together: "5 May 2020", "May 5, 2020", "May 2020".
DATES = (
    re.compile(
        rf"(?<![A-Za-z0-9])(?:{_DAY}{_BLANK}(?:of{_BLANK})?{_MONTH}(?:,?{_BLANK}[0-9]{{4}})?"
        rf"|{_MONTH}{_BLANK}(?:{_DAY}(?:,?{_BLANK}[0-9]{{4}})?|[0-9]{{4}}))(?![A-Za-z0-9])"
    ),
)
#: Calls with blanks between their arguments, "os.path.join(a, b)"; sentences may end in them, so they are no atoms.
CALLS = (re.compile(r"(?<!\w)[A-Za-z_]\w{0,40}(?:(?:\.|::|->)\w{1,40}){1,8}\([ !-'*-~]{0,80}\)", re.ASCII),)
#: Changes when the units change, so that a cache never hands out scores of other units.
UNITS_VERSION = "words-1"


@dataclass(frozen=True, slots=True)
class Words:
    """The units of one whole document. starts, ends: (n,) characters, in order, apart. scores: (n,) in [0, 1]."""

    starts: IntArray
    ends: IntArray
    scores: Array


class Reader(Protocol):
    """What scores need from a model; see `WordModel`."""

    @property
    def fingerprint(self) -> str: ...

    def read(self, texts: Sequence[str]) -> list[TokenReading]: ...


def _version(text: str) -> str:
    """The version of a text's scores; texts that are read unchanged keep theirs when the reading of others changes."""
    return UNITS_VERSION if normalise(text).text == text else f"{UNITS_VERSION} normal-1"


def word_offsets(text: str) -> tuple[IntArray, IntArray]:
    """Starts and ends of the units of `text`, which cover all but white space.

    A unit is a run without white space (in scripts without blanks a character), or what must stay whole: a number with
    its unit, a date, an identifier, a URL, an e-mail address, a call, code, a fenced block included; and a word that a
    line end has cut in two.
    """
    runs = [(span.start, span.end) for span in split_words(text)]
    atoms = atomic_spans(text, extra=DATES + CALLS)
    held = [(start, end) for start, end in merge([*atoms, *normalise(text).joints]) if end - start > 1]
    return _joined(np.array(runs, np.int64).reshape(-1, 2), np.array(held, np.int64).reshape(-1, 2))


def _joined(runs: IntArray, held: IntArray) -> tuple[IntArray, IntArray]:
    """Runs that the same held span touches become one; `held` lies within the runs and the gaps between them."""
    first = np.searchsorted(runs[:, 1], held[:, 0], side="right")
    last = np.searchsorted(runs[:, 0], held[:, 1], side="left")
    open_gap = np.zeros(len(runs) + 1, np.int64)  # how many held spans reach over the gap before a run
    np.add.at(open_gap, first + 1, (last - first > 1).astype(np.int64))
    np.add.at(open_gap, last, -(last - first > 1).astype(np.int64))
    begins = np.cumsum(open_gap)[: len(runs)] == 0
    places = np.flatnonzero(begins)
    if not len(places):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ends = np.append(places[1:], len(runs)) - 1
    return runs[places, 0], runs[ends, 1]


def word_probabilities(starts: IntArray, ends: IntArray, reading: TokenReading, how: TokenToWord) -> Array:
    """(n,) in [0, 1]: the mean of a word's tokens, or its first token; 0 for a word without tokens."""
    first, last = token_spans(reading.offsets, starts, ends)
    if not len(reading.keep):
        return np.zeros(len(starts))
    if how == "first":
        return np.where(last > first, reading.keep[np.minimum(first, len(reading.keep) - 1)], 0.0)
    sums = np.concatenate([np.zeros(1), np.cumsum(reading.keep)])
    means: Array = np.clip((sums[last] - sums[first]) / np.maximum(last - first, 1), 0.0, 1.0)
    return means


def score_words(
    texts: Sequence[str], model: Reader, *, how: TokenToWord = "mean", cache: DocumentCache | None = None
) -> list[Words]:
    """The words of each text with their scores, in order; equal texts are read once.

    With a cache, known texts are not read, and every score is what a byte can hold, whether it was known or not.
    """
    distinct = list(dict.fromkeys(texts))
    with stage("tokenize"):
        offsets = {text: word_offsets(text) for text in distinct}
    scores: dict[str, Array] = {}
    keys: dict[str, bytes] = {}
    if cache is not None:
        keys = {text: cache_key(f"{_version(text)} {how} {model.fingerprint}", text) for text in distinct}
        found = cache.get(list(keys.values()))
        for text, entry in zip(distinct, found, strict=True):
            if entry is not None and len(entry) == len(offsets[text][0]):
                scores[text] = from_bytes(entry)
    fresh = [text for text in distinct if text not in scores and len(offsets[text][0])]
    for text, reading in zip(fresh, model.read(fresh) if fresh else (), strict=True):
        scores[text] = word_probabilities(*offsets[text], reading, how)
    if cache is not None and fresh:
        stored = {keys[text]: to_bytes(scores[text]) for text in fresh}
        cache.put(stored)
        scores |= {text: from_bytes(stored[keys[text]]) for text in fresh}
    return [Words(*offsets[text], scores.get(text, np.zeros(0))) for text in texts]


#: Headings, whole, and the markers of list items.
STRUCTURE = (r"(?m)^[ \t]*#{1,6}[ \t].*$", r"(?m)^[ \t]*(?:[-*+•‣]|[0-9]{1,3}[.)])(?=[ \t])")
DIGIT = "[0-9]"


def checked_strings(strings: Sequence[str]) -> tuple[str, ...]:
    """Each once; InputError for a plain string, an empty one, or what is no string."""
    listed = isinstance(strings, Iterable) and not isinstance(strings, str)
    if not listed or not all(isinstance(each, str) and each for each in strings):
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


DocumentScore = Literal["words", "given"]


def keep_best(
    context: Context, *, budget: int, threshold: float | None, counter: TokenCounter, policy: Policy
) -> Context:
    """The best units whose rendered text takes at most `budget` tokens, `policy.fill` and `length_exponent` aside.

    Units are taken by score, earlier ones first among equals, none skipped. How many is found by halving at places that
    depend on the number of units alone, so a larger budget never takes fewer, even where one more word makes the text a
    token shorter; about log2(units) exact counts. Only what must stay can exceed the budget; `select` then says so.
    """
    limit = max(policy.floor, threshold or 0.0) if policy.floor else threshold
    draft = select(context, threshold=limit, budget=None, counter=counter, policy=policy)
    sparse = replace(policy, on_empty="drop")
    least = select(context, threshold=math.inf, budget=None, counter=counter, policy=sparse)
    least = replace(least, warnings=draft.warnings)  # no threshold of infinity was asked for
    if count_contexts([least], counter)[0] > budget:
        if budget < 1:
            return least.warn(f"the budget of {budget} tokens is exceeded by what must stay (protected units, titles)")
        return select(context, threshold=threshold, budget=budget, counter=counter, policy=policy)
    units = Units.of(draft)
    forced = _forced(draft, least)
    order = np.argsort(-units.score, kind="stable")
    order = order[~forced[order]]
    best, low, high = least, 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        chosen = forced.copy()
        chosen[order[:middle]] = True
        trial = units.keep(draft, chosen)
        if count_contexts([trial], counter)[0] <= budget:
            best, low = trial, middle
        else:
            high = middle - 1
    if len(order) and all(extract.dropped for extract in best.extracts):
        return best.warn(f"no text fits the budget of {budget} tokens, title included; raise it: {EMPTY}")
    return best


def _forced(draft: Context, least: Context) -> Mask:
    """(n,) which units of the draft are also among the least that must stay."""
    pairs = zip(draft.extracts, least.extracts, strict=True)
    flags = [np.array(low.kept, np.bool_)[np.array(high.kept, np.bool_)] for high, low in pairs]
    return np.concatenate([np.zeros(0, np.bool_), *flags])


def keep_documents(context: Context, *, rate: float, by: DocumentScore) -> Context:
    """Drop whole documents until the best share `rate` of them is left, at least one; nothing is read again.

    by: "words", the mean score of a document's words, or "given", the score that the retriever or an earlier compressor
    left on the document. Raises InputError when a document has no given score.
    """
    extracts = [extract for extract in context.extracts if not extract.dropped]
    wanted = max(1, math.ceil(rate * len(extracts) - 1e-9))
    if wanted >= len(extracts):
        return context
    scores = [_document_score(extract, by) for extract in extracts]
    best = {extracts[place].index for place in np.argsort(-np.array(scores), kind="stable")[:wanted]}
    return with_extracts(
        context,
        [
            extract if extract.index in best else replace(extract, kept=(False,) * len(extract.kept))
            for extract in context.extracts
        ],
    )


def _document_score(extract: Extract, by: DocumentScore) -> float:
    if by == "words":
        return float(np.mean([unit.score for unit in extract.kept_units()]))
    if extract.score is None:
        raise InputError(f"document {extract.index} has no score; give Document.score or use document_score='words'")
    return extract.score


def drop_repeats(extract: Extract, strings: Collection[str]) -> Extract:
    """Drop kept units of `strings` that repeat the kept unit before them."""
    kept, last = list(extract.kept), None
    for place, unit in enumerate(extract.units):
        if not kept[place]:
            continue
        text = extract.source.text[unit.start : unit.end]
        kept[place] = text != last or text not in strings
        last = text
    return extract if tuple(kept) == extract.kept else replace(extract, kept=tuple(kept))


def by_document(contexts: Sequence[Context], whole: Context) -> Context:
    """Contexts of one document each, put together again."""
    warnings = [message for context in contexts for message in context.warnings]
    result = with_extracts(whole, [extract for context in contexts for extract in context.extracts])
    for message in warnings:
        result = result.warn(message)
    return result
