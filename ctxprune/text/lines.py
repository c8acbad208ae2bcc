"""The lines of a text with their offsets, and what one line by itself looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ctxprune.text.atoms import Offsets, enclosing

#: blank: white space. fence, code: a fence that opens a block or stands alone, and the lines in the block.
#: under: underlines a heading or closes a table's header. page: a page break, its number or running title within a
#: paragraph; furniture: the like between paragraphs, or a line to write on. record, more: a record's first line and
#: those that continue it. header, row: of a table. columns: text in two columns, to be read with the lines below.
#: term: an option or term whose description follows. verse: a line of its own among ragged ones. turn: what a speaker
#: says. plain: running text, which line breaks do not divide.
Kind = Literal[
    "blank",
    "code",
    "fence",
    "under",
    "heading",
    "page",
    "furniture",
    "record",
    "more",
    "header",
    "row",
    "columns",
    "term",
    "item",
    "turn",
    "verse",
    "plain",
]

# Form feeds and other controls that `str.splitlines` breaks at end no line here.
_LINE = re.compile(r"[^\n\r\u2028\u2029]*(?:\r\n|[\n\r\u2028\u2029]|\Z)")
# What a line begins with says what it is.
_OPENING = re.compile(
    r"""[ \t>\f]*(?:
    (?P<fence>`{3,}|~{3,})
    |(?P<under>(?:={3,}|-{3,}|\|?[ \t]*:?-{2,}:?[ \t]*[|+][ \t:|+-]*|(?:[=-]{2,}[ \t]+)+[=-]{2,})\s*$)
    |(?P<heading>\#{1,6}[ \t]|={2,6}[^=\n]{1,200}={2,6}\s*$|={3,80}[ ][^=\n]{1,100}[ ]={3,80}\s*$
        |_{3,80}[ ]\S[^\n]{0,100}[ ]_{3,80}\s*$
        |={1,6}[ ][^\W\d_a-z][^=\n]{0,100}$|\\(?:part|chapter|(?:sub){0,2}section|paragraph)\*?[\[{][^\n]{0,200}$
        |\*\*[^*\n]{1,200}\*\*(?:[ ,=:|/]{0,3}(?:\*{1,2}[^*\n]{1,80}\*{1,2}|\[\*?[^*\n]{1,80}\*?\])){0,6}:?\s*$)
    |(?P<row>[|│┃║]|\+(?:[-=]{2,}\+)+\s*$|[┌├└╔╠╚┏┣┗][─═━])
    |(?P<item>[-*+•‣◦▪●·–][ \t]|\#\.[ \t]+(?=\S)|\*{2,5}[ \t]+(?=\S)|\\item\b|[・○◎■□◆]|\d\ufe0f?\u20e3
        |\d{1,2}[．、](?=\D)|[(（]?[一二三四五六七八九十]{1,3}[、）)]
        |第[一二三四五六七八九十百\d]{1,5}[条條章][ \t\u3000]
        |(?:Step|Schritt|[ÉE]tape|Paso|Passo|Stap|Krok|Шаг)[ ]\d{1,2}[.:)][ \t]
        |\(?\d{1,3}[.)][ \t]|\(?(?:[A-Za-z]|[ivx]{1,4})\)[ \t])
    |(?P<term>\.\.[ ][\w:-]{1,60}::)
    |(?P<turn>(?:[\[(]?\d{1,2}:\d\d(?::\d\d)?[\])]?[ \t]+)?(?![a-z])[^\W\d_][\w.'’&/-]*+
        (?:[ \t][\w.'’&()/\#-]++){0,4}+[ \t]?(?::(?=\s)|：))
    )""",
    re.VERBOSE,
)
#: Of a form or an exam, for what is to be written.
_FILL_IN = re.compile(r"[ \t>]*(?:\.{8,}|_{8,}|…{4,}|(?:\. ){8,})[ .]*$")
_CELL = re.compile(r"(?:^|\s)[|│┃](?:\s|$)")
#: A remark in code that is set in; Markdown's titles are no deeper than three blanks.
_REMARK = re.compile(r"(?: {4}| {0,3}\t)[ \t]*#+[ \t]")
_PIPED = re.compile(r"[ \t]*[^\s|│┃].*[^:\s][ \t]*\|\s*$")  # a command of a shell that goes on with the next line
_WIDEST_GAP = 5  # columns between two words of a line that is stretched to the margin
_FEWEST_WORDS = 5  # of such a line
_PROSE = re.compile(r"[a-z]{4}[.!?]\s[A-Z]|\([^()|]{0,80}\|")
_WORDS = re.compile(r"\s*(?:[^\W\d_]{1,20}[,;]?[ \t]{1,2}){5}")  # prose that some program indented with tabs
#: Of a table of contents or a list of prices: dots, then a page or a price.
_LEADERS = re.compile(
    r"(?:(?:\.{4}|(?:\. ){4}|…{2})[ .…]*|[ \t]\.{3}[ \t](?=[ \t$€£¥]{0,3}\d{1,5}[.,]\d\d\b|\d{1,3}\s*$))\s*"
    r"(?:[\dIVXLivxl]{1,6}|(?:[$€£¥]|[A-Z]{2,3})?\s?\d[\d.,–-]{0,11}\s?(?:[$€£¥]|[^\W\d_]{1,4})?)\s*$"
)
#: How a line ends whose sentence goes on with a number: "... added under section" / "7. This requirement ...".
_REFERENCE_WORD = re.compile(
    r"(?:§|\b(?:abschnitt|absatz|and|annex|appendix|article|artikel|articles|bis|chapter|clause|clauses|figure|in|item|"
    r"kapitel|line|no|number|of|oder|or|page|para|paragraph|part|rule|schedule|section|sections|seite|step|table|the|to|"
    r"under|und|version|art\.|abs\.|cl\.|fig\.|nos?\.|nr\.|pp?\.|sec\.|vol\.|et|ou|l'article|alinéa|sección|y|o))$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"[ \t>\f]*(\d{1,3})[.)][ \t]")
LONG_LINE = 45  # characters; prose is seldom wrapped at fewer
SAME_LINE = re.compile(r"\S {2,}\S|\t\S")  # "-v     be verbose"
HALF = re.compile(r"[,;–—-]\s*$")  # of a sentence or a word that goes on
_INDENTATION = re.compile(r"[ \t\f]*")
_QUOTE = re.compile(r"\f?[ \t]{0,3}>[> \t]*")


@dataclass(frozen=True, slots=True)
class Line:
    """`text[start:end]` without its line break is `text`; indent: columns of white space before its first letter.

    quote: how deep a mail quotes it, in ">" marks.
    """

    start: int
    end: int
    text: str
    indent: int
    quote: int = 0


def lines_of(text: str, *, quotes: bool = True) -> list[Line]:
    """The lines of `text`, each up to the next; together they are the whole text.

    quotes: ">" at the beginning of a line says that a mail quotes it; in HTML it ends a tag.
    """
    return [_line(match, quotes) for match in _LINE.finditer(text) if match.end() > match.start()]


def _line(match: re.Match[str], quotes: bool) -> Line:
    start, end = match.span()
    content = match.group().rstrip("\n\r\u2028\u2029")
    quote = _QUOTE.match(content) if quotes and ">" in content[:4] else None
    white = _INDENTATION.match(content, quote.end() if quote else 0)
    indent = len(white.group().expandtabs()) if white else 0
    return Line(start, end, content, indent, quote.group().count(">") if quote else 0)


def kind_of(line: str) -> Kind:
    """What a line is, judged alone; `fence` is one without its partner."""
    if not line or line.isspace() or not line.strip("> \t") or line.strip() in ("#", "."):
        return "blank"
    if _FILL_IN.match(line):
        return "furniture"
    if (match := _OPENING.match(line)) and match.lastgroup:
        if match.lastgroup == "heading" and _REMARK.match(line):
            return "plain"
        return match.lastgroup  # type: ignore[return-value]  # the groups are named after kinds
    if (line.rstrip()[-1].isalnum() or line.rstrip()[-1] in "$€£¥-–") and _LEADERS.search(line[-200:]):
        return "row"
    if ("|" in line or "│" in line or "┃" in line) and _CELL.search(line):
        return "plain" if _PROSE.search(line) or _PIPED.match(line) else "row"
    if line.strip().count("\t") > 1:
        return "plain" if _PROSE.search(line) or _WORDS.match(line) else "row"
    return "plain"


def kinds_of(lines: Sequence[Line], code: Sequence[Offsets]) -> list[Kind]:
    """The kind of each line; those inside one of the `code` spans are its fence and code."""
    if not code:
        return _without_references(lines, _without_stretched(lines, [kind_of(line.text) for line in lines]))
    kinds: list[Kind] = []
    for line in lines:
        inside = enclosing(code, line.start + 1)
        begins = inside is not None and inside[0] >= line.start
        kinds.append("fence" if begins else "code" if inside else kind_of(line.text))
    return _without_references(lines, _without_stretched(lines, kinds))


def _without_stretched(lines: Sequence[Line], kinds: list[Kind]) -> list[Kind]:
    """A line of prose that a program stretched to the margin with blanks and tabs is no row beside lines of prose."""
    for place, line in enumerate(lines):
        if kinds[place] != "row" or "\t" not in line.text.strip() or "|" in line.text:
            continue
        beside = (at for at in (place - 1, place + 1) if 0 <= at < len(lines))
        if any(kinds[at] == "plain" and len(lines[at].text) >= LONG_LINE for at in beside) and _is_stretched(line):
            kinds[place] = "plain"
    return kinds


def _is_stretched(line: Line) -> bool:
    """Whether the gaps of a line are as narrow as those between words."""
    text = line.text.expandtabs().strip()
    gaps = [len(gap) for gap in re.findall(r" +", text)]
    return len(gaps) >= _FEWEST_WORDS - 1 and max(gaps) <= _WIDEST_GAP and sum(map(str.isalpha, text)) * 2 > len(text)


def _without_references(lines: Sequence[Line], kinds: list[Kind]) -> list[Kind]:
    """A number that a line break parted from its "section" or "page" begins no list item."""
    for place in range(1, len(kinds)):
        number, before = _NUMBERED.match(lines[place].text), lines[place - 1].text
        if kinds[place] != "item" or number is None or kinds[place - 1] not in ("plain", "item"):
            continue
        counts_on = (last := _NUMBERED.match(before)) is not None and int(last[1]) + 1 == int(number[1])
        if not counts_on and _REFERENCE_WORD.search(before.rstrip()):
            kinds[place] = "plain"
    return kinds


def paragraphs(kinds: Sequence[Kind]) -> Iterator[range]:
    """Runs of lines that are neither blank nor in a fence."""
    first = None
    for place, kind in enumerate([*kinds, "blank"]):
        if kind in ("blank", "code", "fence"):
            if first is not None:
                yield range(first, place)
            first = None
        elif first is None:
            first = place


def force_records(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Make a record of every line, with the deeper indented ones below it; what is a record by its shape stays so."""
    for paragraph in paragraphs(kinds):
        margin = min(lines[place].indent for place in paragraph)
        for place in paragraph:
            if kinds[place] not in ("record", "more", "header", "row"):
                deeper = lines[place].indent > margin and place > paragraph[0]
                kinds[place] = "more" if deeper else "record"
