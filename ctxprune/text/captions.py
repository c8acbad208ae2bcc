"""Find what says in a line what the rows of a table below it are: "Table 2. Fares", "Opening hours"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind
from ctxprune.types import Span

_CAPTION = re.compile(r"[*_]{0,3}(?:Tab(?:le|elle|l[ae]|el[al]?|ella|elka)?\.?|Таблица|表)\s?[\dA-Z]", re.IGNORECASE)
#: "Opening hours", "Saturdays and holidays": a few words that end nothing.
_TITLE = re.compile(r"[^\W\d_a-z][^\n.!?…;|=@/]{2,58}[^\W_)]")


def is_caption(text: str, unit: Span, kinds: Sequence[Kind], place: int) -> bool:
    """Whether a unit, which begins in the line `place`, is the caption or the title of rows that begin below it."""
    named = _CAPTION.match(text, unit.start) or _TITLE.fullmatch(text, unit.start, unit.end)
    return named is not None and _is_over_rows(kinds, place)


def _is_over_rows(kinds: Sequence[Kind], place: int) -> bool:
    """Whether a table begins below the paragraph of a line, perhaps after a blank line."""
    below = next((at for at in range(place + 1, min(place + 5, len(kinds))) if kinds[at] != "plain"), place)
    return any(
        kind in ("header", "row")
        for kind in (kinds[below : below + 2] if kinds[below] == "blank" else kinds[below : below + 1])
    )
