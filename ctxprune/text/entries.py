"""Find the entries of dictionaries, glossaries and indexes: lines that stand in the order of the alphabet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.lines import Kind, Line, paragraphs

#: A headword of up to three words, and what parts it from what is said of it.
_HEADWORD = re.compile(r"\s*([^\W\d_][\w'’·|-]{0,40}(?: [\w'’-]{1,30}){0,2}?)[ \t]{0,2}[,(\[/;–—=]")
_FEWEST = 3


def mark_entries(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Make items of the lines of a paragraph whose headwords are in order; what is set in deeper goes on with one."""
    for paragraph in paragraphs(kinds):
        margin = lines[paragraph.start].indent
        places = [place for place in paragraph if lines[place].indent <= margin]
        if len(places) < _FEWEST or any(kinds[place] not in ("plain", "turn") for place in paragraph):
            continue
        words = [match[1].casefold() for place in places if (match := _HEADWORD.match(lines[place].text))]
        if len(words) == len(places) and all(above < below for above, below in pairwise(words)):
            for place in places:
                kinds[place] = "item"
