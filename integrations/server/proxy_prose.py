"""What of the text between tags is prose: not the lines that name a source, not labels such as `[3]`, not data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ctxprune.integrations.server.proxy_quoting import Region

#: A line such as "Source: guide.pdf, page 3", anywhere.
_SOURCE = (
    r"(?:[*_#>\- \t]{0,6}(?:source|sources|src|url|uri|link|file|file ?name|file ?path|document|doc|passage|chunk|"
    r"document[ _]id|doc[ _]id|reference|quelle|quellen|datei|dokument|fuente|documento|fonte|fichier|bron|kilde)"
    r"[*_]{0,3}(?:[ \t]?#?\d{1,6})?[ \t]?[:=][^\n]{0,400})"
)
#: A label before the text of one of several passages: "[3]", "[Document 2]", "Passage 4:", "### Source 1".
_KINDS = r"(?:document|doc|passage|source|chunk|excerpt|snippet|result|context|dokument|quelle|auszug|abschnitt)"
_LABEL = (
    rf"(?:[*_# \t]{{0,6}}(?:\[(?:{_KINDS}[ \t]?#?)?\d{{1,6}}\]|{_KINDS}[ \t]?#?\d{{1,6}}(?:[ \t]?\([^()\n]{{0,200}}\))?"
    r"[*_]{0,3}(?=[ \t]*(?:[:.)\-|]|\n|$)))[*_]{0,3}[:.)]?)"
)
_STRUCTURE = re.compile(rf"^(?:{_SOURCE}[ \t]*$|{_LABEL})", re.IGNORECASE | re.MULTILINE)
#: More lines that head a passage, before its text alone.
_HEADER = re.compile(
    r"\s*+[*_ \t]{0,6}(?:title|titel|titre|id|index|page|pages|seite|author|authors|autor|date|datum|published|updated|"
    r"section|chapter|section[ _]title|category|tags|language|score|relevance|type)"
    r"[*_]{0,3}[ \t]?[:=][^\n]{0,400}(?:\n|$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…](?=[\s\"'”’»)\]]|$)|[。！？｡।۔؟]")
#: A stretch without any sentence is prose from this length on.
LONG = 100


def prose_runs(text: str, run: Region, *, is_certain: bool) -> Iterator[Region]:
    """The prose within `[start, end)` of a text, without white space around it.

    is_certain: the place says that it is prose, so that it need not read like prose.
    """
    start, inner = run[0], text[slice(*run)]
    edges = [0, *(edge for label in _STRUCTURE.finditer(inner) for edge in label.span()), len(inner)]
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        while header := _HEADER.match(inner, first, last):
            first = header.end()
        part = inner[first:last]
        body = part.strip()
        if body and (is_certain or reads_like_prose(body)) and not is_data(body):
            first += len(part) - len(part.lstrip())
            yield start + first, start + first + len(body)


def reads_like_prose(text: str) -> bool:
    """Whether there is more than a word or a value: a sentence with its end, several lines, or much text."""
    return _SENTENCE_END.search(text) is not None or "\n" in text or len(text) >= LONG


def is_data(text: str) -> bool:
    """Whether a text is one JSON value or one expression in braces, which must not be cut."""
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("{}", "[]"):
        return False
    if inner[0] == "{" and "{" not in inner[1:]:
        return True
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True
