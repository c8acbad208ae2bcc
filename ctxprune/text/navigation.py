"""Find the menus of web pages: what leads to other pages and says nothing of this one's subject."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ctxprune.text.atoms import Offsets, merge
from ctxprune.types import Span

#: Elements that may hold a menu; the others only to know where those end.
_HOLDER = re.compile(r"<(/?)(nav|footer|menu|div|ul|ol|section|aside|header|table)\b([^<>]{0,2000})>", re.IGNORECASE)
_ROLE = re.compile(r"\brole\s{0,9}=\s{0,9}[\"']?(navigation|menubar|contentinfo)\b", re.IGNORECASE)
_CLASS = re.compile(
    r"\bclass\s{0,9}=\s{0,9}[\"']?[^\"'<>]{0,200}?\b(?:(?:site|page|main)-?(footer)|breadcrumbs?|navbar|navigation|pagination"
    r"|(?:nav|main|site|top)-?menu)\b",
    re.IGNORECASE,
)
#: What asks readers to agree to cookies.
_CONSENT = re.compile(
    r"\b(?:class|id)\s{0,9}=\s{0,9}[\"']?[^\"'<>]{0,200}?\b(?:cookies?|gdpr|consent)[-_]?(?:banner|bar|notice|popup"
    r"|consent|overlay|dialog|message|modal)\b",
    re.IGNORECASE,
)
_SOME = re.compile(r"<nav\b|<footer\b|\b(?:role|class|id)\s{0,9}=", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,20})\b([^<>]{0,2000})>|<[!?][^<>]{0,2000}>")
#: A telephone number or an address is an answer, though one may click on it.
_ADDRESS = re.compile(r"href\s{0,9}=\s{0,9}[\"']?\s{0,9}(?:tel|mailto):", re.IGNORECASE)
#: "Home > Garden > Spades" as text: what stands between its parts, and where such a line begins.
_BETWEEN = re.compile(r"\s[|›»>/·•→]\s")
_FIRST = frozenset(["strona główna", "anasayfa", "ana sayfa", "hem", "hjem", "forside", "etusivu", "domů", "홈"]).union(
    ["home", "homepage", "home page", "start", "startseite", "accueil", "inicio", "início", "главная", "首页", "ホーム"]
)
#: "- [Usage](#usage)" of a table of contents, and "[![build](badge.svg)](https://ci)".
_POINTER = re.compile(
    r"(?:[-*+]|\d{1,3}[.)])?\s*(?:(?:\[[^\[\]\n]{1,200}\]\(#[^()\s]{0,200}\)|\[!\[[^\[\]\n]{0,200}\]\([^()\s]{0,500}\)\]"
    r"\([^()\s]{0,500}\))[\s|·•]*)+"
)
#: "[[Category:Mills]]" and "{{Reflist}}" of a wiki.
_FILED = re.compile(
    r"(?:\[\[(?:Category|Kategorie|Catégorie|Categor[íi]a|Categoria|Kategoria|File|Datei|Fichier|Archivo|Image):"
    r"[^\[\]\n]{1,200}\]\]\s*|\{\{[A-Za-z ]{1,40}\}\}\s*)+",
    re.IGNORECASE,
)
_TRAIL_PARTS, _TRAIL_CHARACTERS = 3, 200
_FIRST_LETTERS = frozenset(name[0] for name in _FIRST)
_NO_NAME = re.compile(r"[\d.!?]")
_BLANK_BELOW = re.compile(r"\s*\Z|[ \t\r]*\n[ \t\r]*\n")
_NEAR = 80  # characters of white space that are looked at
_LETTER = re.compile(r"[^\W_]")
#: What ends a line on the page, so that links on both sides are not of one menu.
_LINES = re.compile(r"p|div|[uod]l|li|d[td]|[bh]r|h[1-6]|table|tr|section|address|nav|footer|aside")


def menus(text: str) -> list[Offsets]:
    """Spans of HTML, merged and in order, that say nothing of the page's subject: `nav` elements that are links for the
    greater part, links side by side, or alone on their line, in a footer, and banners that ask to agree to cookies.
    Links to call or to write to somebody are no menu.
    Linear in the text's length.
    """
    if not _SOME.search(text):
        return []
    spans: list[Offsets] = []
    for start, end, part in _holders(text):
        pieces = list(_pieces(text, start, end))
        if part == "footer":
            spans += _link_runs(pieces)
        elif part == "consent" or sum(each.letters if each.kind == "link" else -each.letters for each in pieces) > 0:
            spans.append((start, end))
    return merge(spans)


def _holders(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, what it is) of the outermost elements that may hold menus and are closed."""
    opened: dict[str, list[tuple[int, str]]] = {}
    found: list[tuple[int, int, str]] = []
    for tag in _HOLDER.finditer(text):
        name = tag[2].lower()
        if not tag[1]:
            opened.setdefault(name, []).append((tag.start(), _part(name, tag[3])))
        elif opened.get(name):
            start, part = opened[name].pop()
            if part:
                found.append((start, tag.end(), part))
    last = 0
    for start, end, part in sorted(found, key=lambda each: (each[0], -each[1])):
        if start >= last:
            yield start, end, part
            last = end


def _part(name: str, attributes: str) -> str:
    """What an element is to its page: "nav", "footer", "consent" or nothing of the kind."""
    if _CONSENT.search(attributes):
        return "consent"
    if name in ("nav", "footer"):
        return name
    if role := _ROLE.search(attributes):
        return "footer" if role[1].lower() == "contentinfo" else "nav"
    named = _CLASS.search(attributes)
    return "" if named is None else "footer" if named[1] else "nav"


class _Piece(NamedTuple):
    """text[start:end] with so many letters and digits, in a link or not, or the end of a line."""

    kind: Literal["link", "other", "line end"]
    start: int
    end: int
    letters: int = 0


def _pieces(text: str, start: int, end: int) -> Iterator[_Piece]:
    """What a reader sees of text[start:end], in order."""
    place, inside = start, False
    for tag in _TAG.finditer(text, start, end):
        if letters := len(_LETTER.findall(text, place, tag.start())):
            yield _Piece("link" if inside else "other", place, tag.start(), letters)
        place, name = tag.end(), (tag[2] or "").lower()
        if name in ("a", "button"):
            inside = not tag[1] and not _ADDRESS.search(tag[3])
        elif _LINES.fullmatch(name):
            yield _Piece("line end", tag.start(), tag.end())
    if letters := len(_LETTER.findall(text, place, end)):
        yield _Piece("other", place, end, letters)


def _link_runs(pieces: Sequence[_Piece]) -> Iterator[Offsets]:
    """Links with no word between them, two or more, or one that is alone on its line."""
    run: list[_Piece] = []
    alone = True
    for piece in [*pieces, _Piece("line end", 0, 0)]:
        if piece.kind == "link":
            run.append(piece)
            continue
        alone = alone and piece.kind == "line end"
        if run and (alone or len(run) > 1):
            yield run[0].start, run[-1].end
        run, alone = [], piece.kind == "line end"


def leads_elsewhere(text: str, units: Sequence[Span], *, tags: bool) -> list[bool]:
    """For each unit, whether a reader sees nothing of it but menus. tags: the text is HTML."""
    spans = menus(text) if tags else []
    return [
        _is_menu(text, unit.start, unit.end, spans)
        if spans
        else _is_trail(text, unit.start, unit.end) or _is_pointer(text, unit.start, unit.end)
        for unit in units
    ]


def _is_pointer(text: str, start: int, end: int) -> bool:
    """Whether a unit is nothing but links to places on its own page, pictures that are links, or what files it."""
    if text.startswith(("[[", "{{"), start):
        return _FILED.fullmatch(text, start, end) is not None
    return "](" in text[start:end] and _POINTER.fullmatch(text, start, end) is not None


def _is_trail(text: str, start: int, end: int) -> bool:
    """Whether a unit is a paragraph of short names that begins with the site's first page."""
    if not _TRAIL_PARTS < end - start < _TRAIL_CHARACTERS or text[start].lower() not in _FIRST_LETTERS:
        return False
    parts = [part.strip() for part in _BETWEEN.split(text[start:end])]
    if len(parts) < _TRAIL_PARTS or parts[0].lower() not in _FIRST or _NO_NAME.search(text, start, end):
        return False
    above, below = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
    begins = not above.strip() or above.count("\n", len(above.rstrip())) > 1
    return begins and _BLANK_BELOW.match(below) is not None


def _is_menu(text: str, start: int, end: int, spans: Sequence[Offsets]) -> bool:
    place = max(0, bisect_left(spans, (start,)) - 1)
    rest, position, inside = [], start, False
    while place < len(spans) and spans[place][0] < end:
        first, last = spans[place]
        if last > start:
            inside = True
            rest.append(text[position : max(first, start)])
            position = min(last, end)
        place += 1
    rest.append(text[position:end])
    return inside and not any(_LETTER.search(_TAG.sub(" ", part)) for part in rest)
