"""What extraction leaves in place of plain characters: other forms of them, controls, references, terminal codes."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

from ctxprune.text.markup import is_html
from ctxprune.text.patterns import on_use

#: A stretch of the text before, [start, end), and what stands in its place.
Edit = tuple[int, int, str]

_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
#: Controls that are no white space.
_CONTROLS = r"\x00-\x08\x0e-\x1b\x7f"
#: Quotes, dashes and letters of Windows' code page 1252 that were read as Latin-1.
_WINDOWS = r"\x80\x82-\x84\x86-\x8c\x8e\x91-\x9c\x9e\x9f"
_INVISIBLE = (
    rf"{_CONTROLS}\x81\x8d\x8f\x90\x9d\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufe00-\ufe0f\ufeff"
)
_LETTER = r"[^\W\d_]"
# Forms of letters and digits that mean the letter or digit; signs (™, ½, №, ！) are left as they are, since the
# splitter knows them and "Apple™" is not "AppleTM".
_COMPATIBLE = (
    "\u0132\u0133\u017f\u2080-\u2089\u2160-\u217f\u2460-\u2473\u2e80-\u2fd5\uf900-\ufaff\ufb00-\ufb06\ufb13-\ufb17"
    "\ufb1d-\ufb4f\ufb50-\ufd3d\ufd50-\ufdf9\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff"
    "\U0002f800-\U0002fa1f"
)
_UNUSUAL_FORMS = (
    rf"(?P<broken>(?<={_LETTER})[\u00ad\u00ac][ \t]*(?:\r\n?|\n)[ \t\f]*(?={_LETTER}))"
    r"|(?P<line>\r\n?|[\u0085\u2028])|(?P<paragraph>\u2029)"
    rf"|(?P<space>[{_SPACES}])"
    rf"|(?P<invisible>[{_INVISIBLE}\U000e0100-\U000e01ef]+|(?<=[A-Za-z\u00c0-\u04ff])[\u200c\u200d]+)"
    rf"|(?P<hyphen>[\u2010\u2011])|(?P<windows>[{_WINDOWS}])"
    rf"|(?P<note>(?<={_LETTER}{{3}})[\u00b9\u00b2\u00b3\u2070\u2074-\u2079]+(?!\w))"
    rf"|(?P<form>[\uff66-\uff9d][\uff9e\uff9f]?|[{_COMPATIBLE}])"
)
_COMPOSING = (
    "\u0300-\u036f\u0653-\u0655\u093c\u09bc\u09be\u09d7\u0a3c\u0b3c\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u0c56\u0cc2\u0cd5\u0cd6"
    "\u0d3e\u0d57\u0dca\u0dcf\u0ddf\u102e\u3099\u309a"
)
# One class first, in which the engine finds most texts to have nothing unusual.
_ANY = (
    "\u0085\u00ac\u00b2\u00b3\u00b9\u200c\u200d\u2010\u2011\u2028\u2029\u2070\u2074-\u2079\r"
    rf"{_WINDOWS}{_SPACES}{_INVISIBLE}\U000e0100-\U000e01ef\uff66-\uff9f{_COMPATIBLE}"
)
_ASCII_SIGNS = re.findall(rf"[\r{_CONTROLS}]", "".join(map(chr, range(128))))
_ASCII_UNUSUAL = re.compile(rf"(\r\n?)|[{_CONTROLS}]+")
_UNUSUAL = on_use(rf"(?=[{_ANY}])(?:{_UNUSUAL_FORMS})")
_UNUSUAL_OR_APART = on_use(
    rf"(?P<apart>[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|[^\s\u00ad\u200b-\u200f][{_COMPOSING}]+"
    rf"|[\u0340\u0341\u0343\u0344\u0374\u0387\u0958-\u095f\u09dc-\u09df\u0a33-\u0a5e\u2126\u212a\u212b])|(?=[{_ANY}])(?:{_UNUSUAL_FORMS})"
)
_FIXED = {"broken": "", "line": "\n", "paragraph": "\n\n", "space": " ", "invisible": "", "hyphen": "-", "note": ""}

# Colours and titles of terminals, and letters printed one over another ("N", back, "N") for bold or underlined.
_TERMINAL = re.compile(
    r"\x1b\[[0-?]{0,40}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|\x1b[()#][0-9A-Z]|\x1b[=>78DEHMc]"
    r"|[^\n\x08]\x08"
)
#: A character reference; a line break of HTML in other text.
_REFERENCE = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,9}|#\d{2,6}|#[xX][0-9A-Fa-f]{1,5});")
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
#: What would be markup if it were written out.
_MEANS_MARKUP = frozenset("<>|`*_#~[]\\")
_QUOTES = frozenset("`'\"“”‘’()")


def terminal_codes(text: str) -> Iterator[Edit]:
    """What tells a terminal to colour or to overstrike."""
    if "\x1b" in text or "\b" in text:
        yield from ((match.start(), match.end(), "") for match in _TERMINAL.finditer(text))


def references(text: str) -> Iterator[Edit]:
    """Character references, and what a browser shows for each: "&nbsp;" is a blank, "&rdquo;" a quotation mark.

    In text that is no page, "<br>" is a blank too. What stands in quotes or brackets is spoken of and stays, as do
    blanks between blanks, and references to signs that would be markup.
    """
    spans = [match.span() for match in _REFERENCE.finditer(text)] if "&" in text else []
    if "<" in text and (tags := [match.span() for match in _BREAK.finditer(text)]) and not is_html(text):
        spans = sorted([*spans, *tags])
    for start, end in spans:
        name, before, after = text[start:end], text[start - 1 : start] or " ", text[end : end + 1] or " "
        shown = " " if name[0] == "<" else html.unescape(name)
        spoken_of = (before in _QUOTES and after in _QUOTES) or (f"{before}{shown}{after}").isspace()
        if shown != name and not spoken_of and not _MEANS_MARKUP & set(shown):
            yield start, end, " " if shown.isspace() else shown


def other_characters(text: str) -> Iterator[Edit]:
    """Characters that stand for others, or for nothing."""
    if text.isascii():
        if not any(sign in text for sign in _ASCII_SIGNS):  # many times as fast as the pattern
            return
        yield from ((match.start(), match.end(), "\n" if match[1] else "") for match in _ASCII_UNUSUAL.finditer(text))
        return
    pattern = _UNUSUAL if unicodedata.is_normalized("NFC", text) else _UNUSUAL_OR_APART
    for match in pattern.finditer(text):
        old, kind = match[0], match.lastgroup or ""
        new = _FIXED.get(kind)
        if kind == "windows":
            new = old.encode("latin-1").decode("cp1252")
        elif new is None:
            new = unicodedata.normalize("NFC" if kind == "apart" else "NFKC", old)
        if new != old:
            yield match.start(), match.end(), new
