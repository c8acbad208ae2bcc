"""Markdown that reads well raw too: tables with aligned columns, and names as code."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with padded columns, all but the first right-aligned; "|" in a cell is escaped, a line break a space."""
    lines = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in line] for line in (head, *rows)]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(head))]
    first, *others = widths
    rule = "| " + " | ".join(["-" * first, *("-" * (width - 1) + ":" for width in others)]) + " |"
    padded = ["| " + " | ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]) + " |" for line in lines]
    return "\n".join([padded[0], rule, *padded[1:]])


def compact(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without padding, so that a new figure changes no other row; all but the first column right-aligned."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """The text as inline code, whatever back-ticks it holds (CommonMark, section 6.1)."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def plain(text: str) -> str:
    """The text with every character that Markdown or HTML would read as markup escaped, on one line."""
    return re.sub(r"([\\`*\[\]<>|~&]|_(?![^\W_])|(?<![^\W_])_|^#)", r"\\\1", re.sub(r"\s+", " ", text))
