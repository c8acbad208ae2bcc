"""Say what kind of output a text is, and take it apart."""

from __future__ import annotations

import re

from ctxprune.tools.code import code
from ctxprune.tools.elements import Shape
from ctxprune.tools.json_shape import JsonShape
from ctxprune.tools.lines import lines_of, split_note
from ctxprune.tools.shapes import diff, json_lines, listing, log, search, table

_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^\n`]*\n(?P<inner>.*\n)\1[ \t]*\s*", re.DOTALL)
#: Lines of a status or an address that may stand above a JSON body.
_PREAMBLE = 20


def frame(text: str) -> tuple[str, str, str]:
    """(before, inner, after): a fence around the whole, or a few lines above a JSON body; most texts are inner."""
    if match := _FENCE.fullmatch(text):
        return text[: match.start("inner")], match["inner"], text[match.end("inner") :]
    at = 0
    for _ in range(_PREAMBLE):
        if text[at : at + 1] in ("{", "[") and at:
            if JsonShape.of(text[at:]) is not None:
                return text[:at], text[at:], ""
            break
        following = text.find("\n", at) + 1
        if not following:
            break
        at = following
    return "", text, ""


def shape_of(text: str) -> Shape | None:
    """The first shape that fits; None for running text, web pages and whatever else the compressors split themselves.

    Linear in the text's length.
    """
    if json := JsonShape.of(text):
        return json
    body, earlier = split_note(text)
    lines = lines_of(body)
    for line_shape in (json_lines, diff, search, listing):
        if found := line_shape(body, lines, earlier):
            return found
    return code(body, earlier) or table(body, lines, earlier) or log(body, lines, earlier)
