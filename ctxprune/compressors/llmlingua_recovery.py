"""Put an original's words back into a response that quotes its compressed form (LLMLingua, section 4.4, by words)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict

#: Words that may have been removed between two that stayed, at most, for them to belong together.
GAP = 9
_WORD = re.compile(r"\S+")
_EDGES = ".,;:!?\"'()[]{}"


def recovered(original: str, compressed: str, response: str) -> str:
    """The response with each run of words that it quotes from `compressed` as it stands in `original`.

    A run of one word, and one that the original has nowhere in that order, stays as it is, as do all words of the
    response's own and the white space around runs.
    """
    words = list(_WORD.finditer(response))
    known = f" {' '.join(compressed.split())} "
    originals = list(_WORD.finditer(original))
    places: dict[str, list[int]] = defaultdict(list)
    for place, match in enumerate(originals):
        places[_bare(match.group())].append(place)
    parts, end, at = [], 0, 0
    while at < len(words):
        run = _run(words, at, known)
        if run > 1:
            first, last = words[at], words[at + run - 1]
            parts += [response[end : first.start()], _restored(original, originals, places, words[at : at + run])]
            end = last.end()
        at += max(run, 1)
    return "".join([*parts, response[end:]])


def _run(words: list[re.Match[str]], at: int, known: str) -> int:
    """How many words from `at` stand in the compressed text one after the other."""
    length, text = 0, ""
    while at + length < len(words):
        text += " " + words[at + length].group()
        # the last word of an answer brings a full stop of its own
        if f"{text} " not in known and f"{text.rstrip(_EDGES)} " not in known:
            break
        length += 1
    return length


def _restored(
    original: str, originals: list[re.Match[str]], places: dict[str, list[int]], run: list[re.Match[str]]
) -> str:
    """The shortest stretch of the original with all words of the run in their order; the run where there is none."""
    best: tuple[int, int] | None = None
    wanted = [_bare(word.group()) for word in run]
    for first in places.get(wanted[0], []):
        last = first
        for word in wanted[1:]:
            later = places.get(word, [])
            at = bisect_right(later, last)
            if at == len(later) or later[at] - last > GAP + 1:
                break
            last = later[at]
        else:
            if best is None or last - first < best[1] - best[0]:
                best = (first, last)
    if best is None:
        return run[0].string[run[0].start() : run[-1].end()]
    text = original[originals[best[0]].start() : originals[best[1]].end()]
    ending = run[-1].group()[len(run[-1].group().rstrip(_EDGES)) :]
    return text.rstrip(_EDGES) + ending


def _bare(word: str) -> str:
    return word.strip(_EDGES) or word
