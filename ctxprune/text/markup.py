"""Where the tags of HTML end a unit, and which of its elements hold no text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ctxprune.text.atoms import Offsets, enclosing, merge
from ctxprune.text.html_tables import tables_of
from ctxprune.text.patterns import on_use
from ctxprune.types import Span

_BLOCK_NAMES = (
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption"
    "|figure|footer|form|frameset|h[1-6]|head|header|hgroup|hr|html|legend|li|link|main|menu|meta|nav|noscript|ol"
    "|optgroup|option|p|pre|search|section|select|summary|table|tbody|td|template|tfoot|th|thead|title|tr|ul"
)
_VOID = ["br", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "col", "area", "base", "embed", "param"]
_DRAWN = ["svg", "path", "g", "use", "circle", "rect", "line", "polyline", "polygon"]
#: Elements that hold no text of their own: the void ones, and those of icons, which belong to the text beside them.
_EMPTY = frozenset([*_VOID, *_DRAWN])
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]{0,30})\b[^<>]{0,4000}>|<!(?:doctype|DOCTYPE)[^<>]{0,300}>")
_BLOCK = re.compile(f"(?:{_BLOCK_NAMES})$", re.IGNORECASE)
_CLOSING_BLOCK = re.compile(f"</(?:{_BLOCK_NAMES})\\s{{0,9}}>|<br ?/?>", re.IGNORECASE)
_CLOSING = re.compile(r"\s*</[a-zA-Z]")
_PAGE = re.compile(r"<!doctype html|<html[\s>]|<body[\s>]", re.IGNORECASE)
_LONGEST_TAG = 4000  # characters
_LONGEST_PRE = 1500  # characters
_ELEMENT_LIMIT = 600  # characters; a longer element of XML is divided into those that it holds
_IN_ROW = frozenset({"td", "th", "br", "p", "div", "table", "thead", "tbody", "tfoot", "tr"})
_LIST_TAG = re.compile(r"<(/?)(?:ul|ol|dl|menu)\b", re.IGNORECASE)
_XML = re.compile(r"\s*<(?:\?xml\b|[A-Za-z_][\w:.-]{0,60}(?:\s[^<>]{0,2000})?>\s*<)")
_HTML_TAG = re.compile(r"<(?:html|body|div|p|span|table|ul|ol|dl|h[1-6]|br|a)\b(?![:.-])", re.IGNORECASE)
_ELEMENT = re.compile(r"<(/?)([A-Za-z_][\w:.-]{0,60})(?:\s[^<>]{0,2000}?)?(/?)>")
#: Attributes that a browser shows or reads out.
_SHOWN = re.compile(r"\b(?:alt|title|label|value|placeholder|content|summary)\s*=\s*[\"']?[^\"'>\s]", re.IGNORECASE)
#: What a page is worked with, and its icons, from tag to tag; a drawing with words in it is none.
_CONTROL = re.compile(
    r"<(button|option|svg)\b[^<>]{0,4000}>(?:(?!<(?:/?\1|text)\b).)*</\1\s{0,9}>"
    r"|<(?:input|button|select|option|svg)\b[^<>]{0,4000}>",
    re.IGNORECASE | re.DOTALL,
)
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


def preformatted(text: str) -> list[Offsets]:
    """The `pre` elements of HTML from tag to tag, whose full stops end no sentence; a long one may be a whole text."""
    lowered = text.lower()
    if "<pre" not in lowered or len(lowered) != len(text):
        return []
    spans, position = [], 0
    while (start := lowered.find("<pre", position)) >= 0 and (end := lowered.find("</pre", start)) >= 0:
        if lowered[start + 4 : start + 5] in (">", " ", "\n", "\t") and end - start <= _LONGEST_PRE:
            spans.append((start, end))
        position = end
    return spans


def tag_cuts(text: str) -> list[int]:
    """Where units end in HTML: between two stretches of text with a block's tag between them.

    Closing tags stay with the text before them, opening ones with the text after. The cells of a table's row stay
    together unless the row is long. Script, style and comments are apart from what surrounds them.
    """
    silent = merge(silent_elements(text))
    rows = tables_of(text).rows
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


def xml_records(text: str) -> list[Offsets]:
    """Elements of XML that come again and hold others, the outermost that are no longer than a record: one unit each.

    Empty for HTML, whose blocks say where units end.
    """
    if not _XML.match(text) or _HTML_TAG.search(text):
        return []
    opened: list[tuple[str, int]] = []
    elements: list[tuple[int, int, str]] = []
    holders: set[int] = set()
    for tag in _ELEMENT.finditer(text):
        closing, name, empty = tag[1], tag[2], tag[3]
        if empty:
            holders.update(start for _, start in opened[-1:])
        elif not closing:
            holders.update(start for _, start in opened[-1:])
            opened.append((name, tag.start()))
        elif opened and opened[-1][0] == name:
            elements.append((opened.pop()[1], tag.end(), name))
    names = Counter(name for _, _, name in elements)
    records: list[Offsets] = []
    for start, end, name in sorted(elements):
        again = names[name] > 1 and start in holders and end - start <= _ELEMENT_LIMIT
        if again and (not records or start >= records[-1][1]):
            records.append((start, end))
    return records


def list_depths(text: str) -> tuple[list[int], list[int]]:
    """Where lists of HTML open and close, and how deep the text is in lists after each, from the text's start on."""
    places, depths = [0], [0]
    for tag in _LIST_TAG.finditer(text):
        places.append(tag.start())
        depths.append(max(0, depths[-1] + (-1 if tag[1] else 1)))
    return places, depths


def closes(text: str, place: int) -> bool:
    """Whether the next thing after `place` is a closing tag."""
    return _CLOSING.match(text, place) is not None


def tag_spans(text: str) -> list[Offsets]:
    """Every tag of HTML from its first character to its last."""
    return [tag.span() for tag in _TAG.finditer(text)]


def in_tag(text: str, place: int) -> bool:
    """Whether a cut at `place` would tear a tag, whose attributes stand on lines of their own."""
    start = text.rfind("<", max(0, place - _LONGEST_TAG), place)
    if start < 0 or text.find(">", start, place) >= 0:
        return False
    tag = _TAG.match(text, start)
    return tag is not None and tag.end() > place


def _cut_of(run: list[re.Match[str]], rows: list[Offsets]) -> list[int]:
    """The cut within a run of tags that have only white space between them: before the first that opens."""
    blocks = [tag for tag in run if tag[2] is None or _BLOCK.match(tag[2])]
    if not blocks:
        return []
    opening = next((tag for tag in run if tag[2] is not None and not tag[1] and tag[2].lower() not in _EMPTY), None)
    place = opening.start() if opening is not None else run[-1].end()
    cells = all((tag[2] or "").lower() in _IN_ROW for tag in blocks)
    if cells and enclosing(rows, place):
        return []
    return [place]


#: Characters from which a blob is a unit of its own; a shorter one stays in its sentence.
APART = 200

_LONG_RUN = re.compile(r"[^\s]{32}")
_DATA_URI = re.compile(r"data:[\w.+-]{0,60}/?[\w.+-]{0,60}(?:;[\w=.+-]{1,60}){0,4},[A-Za-z0-9+/=%_.~!$&'*;:@?-]{16,}+")
_B64 = "[A-Za-z0-9+/_-]"
_ENCODED = re.compile(
    rf"(?<![A-Za-z0-9+/_=-])(?:{_B64}{{56,}}+={{0,2}}(?:[ \t]*\r?\n[ \t>]*(?={_B64}{{4}}))?)+"
    rf"(?:{_B64}{{2,}}+={{0,2}}(?=[ \t]*(?:\r?\n|\Z)))?"
)
_TOKEN = re.compile(r"eyJ[\w-]{10,}+\.[\w-]{10,}+(?:\.[\w-]{10,}+)*")
_HEX = re.compile(
    r"(?<![A-Za-z0-9])(?:0[xX])?(?:[0-9a-f]{40,}+|[0-9A-F]{40,}+|(?=[a-f]{0,31}[0-9])[0-9a-f]{32}"
    r"|(?:[0-9A-Fa-f]{2}:){15,}+[0-9A-Fa-f]{2})(?![A-Za-z0-9])"
)
_ARMOUR = re.compile(r"-----BEGIN [A-Z0-9 ]{3,40}-----\s[A-Za-z0-9+/=\s:,.()-]{20,}?-----END [A-Z0-9 ]{3,40}-----")
_WRAPPING = re.compile(r"!\[[^\]\n]{0,300}\]\(\s*$|<img\b[^<>\n]{0,600}$|url\(\s*[\"']?$")
_UNWRAPPING = on_use(r"(?:\s+\"[^\"\n]{0,200}\")?\s*\)|[\"'][^<>\n]{0,600}>|[\"']?\)")
_LINE = re.compile(r"[^\n]{400,}")
_SCRIPT = re.compile(r"function\b|=>|\bvar |\bconst |\breturn\b|\}\)|\);|;\}|\{[\w-]+:[^;{}\n]{1,80}[;}]")
_WORD = re.compile(r"[^\W\d_]{2,}")


def blobs(text: str) -> list[Offsets]:
    """Spans of `text` that are no words, merged and in order: data URIs with the image tag around them, base64,
    hashes of 32 hexadecimal digits and more, keys in armour, minified script or style, HTML's script elements.

    Linear in the text's length; a text without a run of 32 characters is done at once.
    """
    if not _LONG_RUN.search(text):
        return merge(silent_elements(text)) if "<" in text else []
    spans = [*_encoded(text), *_minified(text), *silent_elements(text)]
    return merge(spans)


def _encoded(text: str) -> Iterator[Offsets]:
    if "data:" in text:
        yield from (_with_image(text, match.span()) for match in _DATA_URI.finditer(text))
    if "-----BEGIN" in text:
        yield from (match.span() for match in _ARMOUR.finditer(text))
    if "eyJ" in text:
        yield from (match.span() for match in _TOKEN.finditer(text))
    yield from (match.span() for match in _HEX.finditer(text) if len(set(match.group()[:200])) > 5)
    for match in _ENCODED.finditer(text):
        if _is_encoded(match.group()):
            yield match.start(), match.start() + len(match.group().rstrip())


def _is_encoded(run: str) -> bool:
    """Base64 mixes cases and digits; paths, slugs and ruled lines do not."""
    sample = run[:4000]
    upper, lower = sum(map(str.isupper, sample)), sum(map(str.islower, sample))
    digits = sum(map(str.isdigit, sample))
    turns = sum(left.isupper() and right.islower() for left, right in pairwise(sample))
    return min(upper, lower) * 6 > len(sample) and digits * 50 > len(sample) and turns * 12 > len(sample)


def _with_image(text: str, span: Offsets) -> Offsets:
    """The span with the Markdown image or the tag that holds it, so that no torn image stays."""
    before = _WRAPPING.search(text[max(0, span[0] - 700) : span[0]])
    after = _UNWRAPPING.match(text, span[1])
    if before is None or after is None:
        return span
    return max(0, span[0] - 700) + before.start(), after.end()


def _minified(text: str) -> Iterator[Offsets]:
    for match in _LINE.finditer(text):
        line = match.group()
        if line.lstrip()[:1] in ("{", "[", "<") or len(_SCRIPT.findall(line)) * 120 < len(line):
            continue
        if line.count(" ") * 10 < len(line):
            yield match.span()


def silent_units(text: str, units: Sequence[Span]) -> list[bool]:
    """For each unit, whether it is nothing but blobs or bare tags: no word of it can be read.

    Buttons, fields and icons of a page count as bare tags; elsewhere they are what the text is about.
    """
    held, tags = blobs(text), is_html(text)
    if not held and not tags:
        return [False] * len(units)
    page = tags and text.lstrip("\ufeff \t\r\n").startswith("<")
    return [
        (tags and _is_bare(text, unit.start, unit.end, page=page))
        or (bool(held) and _is_silent(text, unit.start, unit.end, held))
        for unit in units
    ]


def _is_bare(text: str, start: int, end: int, *, page: bool) -> bool:
    """Whether a stretch of HTML is tags alone, none of which has words of its own for readers."""
    if text[start] != "<" or text[end - 1] != ">":
        return False
    unit = _CONTROL.sub("", text[start:end]) if page else text[start:end]
    return not any(map(str.isalnum, _TAG.sub("", unit))) and _SHOWN.search(unit) is None


def _is_silent(text: str, start: int, end: int, held: Sequence[Offsets]) -> bool:
    around = enclosing(held, start + 1)
    if around is not None and around[1] >= end:
        return end - start >= 24 or around[1] - around[0] >= APART
    rest, covered, position = [], 0, start
    for first, last in _within(held, start, end):
        rest.append(text[position : max(first, start)])
        covered += min(last, end) - max(first, start)
        position = min(last, end)
    rest.append(text[position:end])
    if not covered:
        return False
    words = len(_WORD.findall(" ".join(rest)))
    return words == 0 or (covered >= APART and words <= 3 and covered * 10 >= (end - start) * 8)


def _within(held: Sequence[Offsets], start: int, end: int) -> Iterator[Offsets]:
    place = max(0, bisect_left(held, (start,)) - 1)
    while place < len(held) and held[place][0] < end:
        if held[place][1] > start:
            yield held[place]
        place += 1
