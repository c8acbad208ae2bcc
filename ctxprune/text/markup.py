"""Where the tags of HTML end a unit, and which of its elements hold no text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxprune.text.atoms import Offsets, enclosing, merge

_BLOCK_NAMES = (
    "address|article|aside|blockquote|body|br|button|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption"
    "|figure|footer|form|frameset|h[1-6]|head|header|hgroup|hr|html|legend|li|link|main|menu|meta|nav|noscript|ol"
    "|optgroup|option|p|pre|search|section|select|summary|table|tbody|td|template|tfoot|th|thead|title|tr|ul"
)
_VOID = frozenset(
    ["br", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "col", "area", "base", "embed", "param"]
)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]{0,30})\b[^<>]{0,4000}>|<!(?:doctype|DOCTYPE)[^<>]{0,300}>")
_BLOCK = re.compile(f"(?:{_BLOCK_NAMES})$", re.IGNORECASE)
_CLOSING_BLOCK = re.compile(f"</(?:{_BLOCK_NAMES})\\s{{0,9}}>|<br ?/?>", re.IGNORECASE)
_CLOSING = re.compile(r"\s*</[a-zA-Z]")
_PAGE = re.compile(r"<!doctype html|<html[\s>]|<body[\s>]", re.IGNORECASE)
_ROW_LIMIT = 600  # characters; the cells of a longer row are units of their own, as in pages laid out by tables
_ROW = re.compile(r"<tr\b[^<>]{0,2000}>(.*?)(?=</?t(?:r|able|body|head|foot)\b|\Z)", re.IGNORECASE | re.DOTALL)
_SILENT_OPENING = re.compile(r"(?<!`)<(script|style)\b[^<>]{0,4000}>|<!--", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether tags structure the text, rather than being its subject here and there."""
    if "<" not in text or ">" not in text:
        return False
    closings = 0
    for _ in _CLOSING_BLOCK.finditer(text):
        closings += 1
        if closings > 2:
            return True
    return closings > 0 and (_PAGE.search(text) is not None or text.lstrip().startswith("<"))


def silent_elements(text: str) -> list[Offsets]:
    """Scripts, styles, comments and their like from tag to tag: what a browser shows nobody."""
    if "<" not in text or not is_html(text):
        return []
    return list(_silent(text))


def _silent(text: str) -> Iterator[Offsets]:
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter such as "İ" grows
        lowered = text
    position = 0
    while opening := _SILENT_OPENING.search(text, position):
        name = (opening[1] or "").lower()
        closing = f"</{name}" if name else "-->"
        found = lowered.find(closing, opening.end())
        if found < 0:
            return  # what is never closed is spoken of, or cut off: it stays text
        end = found + len(closing)
        if name:
            end = text.find(">", end) + 1 or len(text)
        yield opening.start(), end
        position = end


def tag_cuts(text: str) -> list[int]:
    """Where units end in HTML: between two stretches of text with a block's tag between them.

    Closing tags stay with the text before them, opening ones with the text after. The cells of a table's row stay
    together unless the row is long. Script, style and comments are apart from what surrounds them.
    """
    silent = merge(silent_elements(text))
    rows = [match.span() for match in _ROW.finditer(text) if match.end() - match.start() <= _ROW_LIMIT]
    cuts = [edge for span in silent for edge in span]
    run: list[re.Match[str]] = []
    for match in _TAG.finditer(text):
        if enclosing(silent, match.start() + 1):
            continue
        if run and text[run[-1].end() : match.start()].strip():
            cuts += _cut_of(run, rows)
            run = []
        run.append(match)
    cuts += _cut_of(run, rows)
    return sorted(set(cuts))


def closes(text: str, place: int) -> bool:
    """Whether the next thing after `place` is a closing tag."""
    return _CLOSING.match(text, place) is not None


def _cut_of(run: list[re.Match[str]], rows: list[Offsets]) -> list[int]:
    """The cut within a run of tags that have only white space between them: before the first that opens."""
    blocks = [tag for tag in run if tag[2] is None or _BLOCK.match(tag[2])]
    if not blocks:
        return []
    opening = next((tag for tag in run if tag[2] is not None and not tag[1] and tag[2].lower() not in _VOID), None)
    place = opening.start() if opening is not None else run[-1].end()
    cells = all((tag[2] or "").lower() in ("td", "th", "br", "p", "div") for tag in blocks)
    if cells and enclosing(rows, place):
        return []
    return [place]
