"""Find what somebody typed at a prompt: a command with what it printed is one record, and so are those in a pipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line

_PROMPT = re.compile(
    r"[ \t]*(?:\([\w.-]{1,30}\)[ ])?(?:\$|[\w.-]{1,32}@[\w.-]{1,64}[: ][^\s$#%]{0,80}[$#%])[ ]{1,4}"
    r"(?=[A-Za-z./~_(\"'-])"
)
_PIPED = re.compile(r"[ \t]*[\w./$~(-][^\n]*[^|:\s][ \t]*\|[ \t]*$")  # goes on with the next line; no "key: |"
_FEWEST = 2  # prompts in a text
_LONGEST = 8  # lines of output that stay with their command; each further one is a record of its own
_FREE = frozenset({"plain", "turn", "item", "row", "term", "under"})


def mark_sessions(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" into `kinds` for the commands of a session and their output, up to a blank line."""
    _join_piped(lines, kinds)
    prompts = {at for at, line in enumerate(lines) if kinds[at] in _FREE and _PROMPT.match(line.text)}
    if len(prompts) < _FEWEST:
        return
    printed: int | None = None
    for at in range(min(prompts), len(lines)):
        if at in prompts:
            kinds[at], printed = "record", 0
        elif kinds[at] not in _FREE:
            printed = None
        elif printed is not None:
            printed += not lines[at - 1].text.endswith("\\")
            kinds[at] = "more" if printed <= _LONGEST else "record"


def _join_piped(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Commands that end in a bar are one record with the command that ends without; rows of a table all have bars."""
    first: int | None = None
    for at, line in enumerate(lines):
        free = kinds[at] in _FREE
        if free and _PIPED.match(line.text):
            first = at if first is None else first
            continue
        if free and first is not None and "|" not in line.text[-2:]:
            kinds[first : at + 1] = ["record", *["more"] * (at - first)]  # type: ignore[list-item]
        first = None
