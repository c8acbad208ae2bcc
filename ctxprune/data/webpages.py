"""Read an HTML page as the text that a reader sees: a block a line, without scripts, styles and tags."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from html.parser import HTMLParser

#: Nothing in these is read by a visitor.
_UNSEEN = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "datalist"}
#: A blank line stands around these, a line break around the others.
_APART = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "blockquote", "article"}
_BLOCKS = _APART | set(
    re.findall(
        r"\w+",
        "address aside body br caption center dd details dialog div dt fieldset figcaption figure footer form header "
        "hr html legend li main menu nav option section select summary tbody tfoot thead tr",
    )
)
_CELLS = {"td", "th"}
_CELL_MARK = " | "
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
#: A declared charset stands in this many bytes at the beginning, as browsers look for it.
_DECLARED = 1024


@dataclass(frozen=True, slots=True)
class WebPage:
    """text: a block a line, cells of a row joined by " | ". title: of the page, else its first large heading."""

    text: str
    title: str


def read_page(source: str) -> WebPage:
    """The page of an HTML source, however broken. Preformatted text keeps its white space."""
    parser = _Parser()
    parser.feed(source)
    parser.close()
    return WebPage(parser.text(), " ".join((parser.title or parser.heading).split()))


def decode_page(content: bytes) -> str:
    """The source of a page by its byte-order mark, else by the charset that it declares, else UTF-8.

    Raises UnicodeDecodeError for bytes that are none of it, and LookupError for a charset that nobody knows.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding)
    declared = _CHARSET.search(content[:_DECLARED])
    name = declared.group(1).decode("ascii") if declared else "utf-8"
    # a page that browsers read by its bytes can be no UTF-16 whatever it says, and latin-1 means windows-1252 there
    if name.lower().startswith("utf-16"):
        name = "utf-8"
    return content.decode("cp1252" if name.lower() in {"iso-8859-1", "latin1", "us-ascii", "ascii"} else name)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = self.heading = ""
        self._parts: list[str] = []
        self._unseen: list[str] = []
        self._in: list[str] = []  # of title, h1 and pre, which are open
        self._ended = ""  # the tag that has just ended
        self._line_ends = 2  # at the end of what was read

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen.append(tag)
        if self._unseen:
            return
        if tag in _BLOCKS:  # which neither of these holds, so their end was forgotten
            self._in = [each for each in self._in if each == "pre"]
        if tag in {"title", "pre"} or (tag == "h1" and not self.heading):
            self._in.append(tag)
        self._break(tag)
        if tag in _CELLS and not self._line_ends:
            self._add(_CELL_MARK)
        elif tag == self._ended == "a":  # a menu's links are told apart by their looks alone
            self._add(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSEEN:  # <svg/> holds nothing
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag in self._unseen:  # and what was left open in it
                del self._unseen[self._unseen.index(tag) :]
            return
        if tag in self._in:
            self._in.remove(tag)
        self._break(tag)
        self._ended = tag

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if "title" in self._in:
            self.title += data
            return
        if "h1" in self._in:
            self.heading += data
        if "pre" not in self._in:
            data = self._flowing(data)
        if data:
            self._add(data)

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._ended, self._line_ends = "", len(text) - len(text.rstrip("\n"))

    def _flowing(self, data: str) -> str:
        """White space as a browser shows it: a line break in the source is none on the page."""
        data = re.sub(r"[ \t\r\n\f]+", " ", data)
        return data.removeprefix(" ") if self._line_ends or self._parts[-1][-1:] == " " else data

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS and not self._unseen and "title" not in self._in:
            wanted = 2 if tag in _APART else 1 + (tag == "br" and self._line_ends)
            self._parts.append("\n" * max(0, wanted - self._line_ends))
            self._line_ends = max(wanted, self._line_ends)

    def text(self) -> str:
        """What was read, without blanks at line ends and with one blank line in a row at most."""
        text = re.sub(r"[ \t\f\r]+(?=\n|$)", "", "".join(self._parts))
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n")
