"""Say what each unit of a text is, and which other unit it cannot be read without."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ctxprune.text.captions import is_caption
from ctxprune.text.html_tables import UNIT_TAG, TableHeaders, tables_of
from ctxprune.text.layout import layout
from ctxprune.text.leaning import Leaning
from ctxprune.text.letters import closes_letter
from ctxprune.text.levels import HEADED, UNDERLINE, heading_levels, tag_level, unfold
from ctxprune.text.lines import Kind, Line
from ctxprune.text.marks import Marks
from ctxprune.text.markup import is_html, list_depths, silent_units
from ctxprune.text.normal import normalise
from ctxprune.text.pages import SENTENCE_END
from ctxprune.text.spaced_tables import has_columns
from ctxprune.text.speakers import answers, asks, names_in_turn
from ctxprune.types import Span

RoleKind = Literal[
    "heading",
    "table header",
    "table row",
    "list intro",
    "list item",
    "term",
    "definition",
    "code",
    "record",
    "blob",
    "prose",
]
Strength = Literal["needed", "helpful"]

_STARS = re.compile(r"[ \t>]*\*(\*{1,4})[ \t]")
_NAME = re.compile(r"<th\b", re.IGNORECASE)
_CELL = re.compile(r"<t[dh]\b", re.IGNORECASE)
#: A title in bold or italics at the beginning of its paragraph, which goes on behind it: "**Saver.** The cheapest."
_RUN_IN = re.compile(r"(\*{1,3}|_{1,3})[^\s*_][^*_\n]{0,40}\1[.:]?(?=[ \t]+\S)")
#: "[server]" of a file of settings, perhaps below its comment; the settings below are its own.
_SECTION = re.compile(r"(?:[#;][^\n]{0,200}\n)*\[{1,2}[^\W\d][\w .:/\"'@-]{0,100}\]{1,2}")
#: The words of a subtitle that begin in small letters.
_CUE_TEXT = re.compile(r"-->[^\n]{0,80}\n[a-zß-öø-ÿ]")
_LONGEST_TURN = 160  # characters of what is brought along to say who speaks
_BOXES = ("tr", "td", "li")  # what may hold a heading
_TAG_KINDS: dict[str, RoleKind] = {
    **{f"h{level}": "heading" for level in range(1, 7)},
    "summary": "heading",
    "tr": "table row",
    "td": "table row",
    "th": "table header",
    "li": "list item",
    "pre": "code",
    "dt": "term",
    "dd": "definition",
    "caption": "list intro",
    "script": "blob",
    "style": "blob",
}


@dataclass(frozen=True, slots=True)
class Role:
    """What a unit is, and the nearest unit it leans on.

    leans_on: an index below its own, or None: it stands alone. Followed again it gives the next one: a row leans on
    its header row and that on the section's heading, an item on its parent item and that on the line which introduces
    the list, "However, it ..." on the sentence before.
    strength: "needed" when it cannot be read without (a row without its header, a definition without its term), or
    "helpful" (a heading, the sentence before).
    level: depth from 1 of a heading, list item or record; 0 for all else.
    """

    kind: RoleKind
    leans_on: int | None = None
    strength: Strength = "helpful"
    level: int = 0


@dataclass(slots=True)
class _Open:
    """What is open at a place of the text: indices of units, None for none."""

    leaning: Leaning
    headings: list[tuple[int, int]]  # (level, unit), outermost first
    items: list[tuple[int, int]]  # (indent, unit) of the items and records above
    intro: int | None = None
    introduced_at: int = 0  # the column of the intro
    outer_intro: int | None = None  # what introduces the list in one of whose items the intro stands
    header: int | None = None
    term: int | None = None
    defined_at: int = 0  # the column of its definition
    section: int | None = None
    sentence: int | None = None
    question: int | None = None
    answering: bool = False  # what stands here answers the question
    turn: int | None = None  # the unit that says who speaks
    marks: Marks = field(default_factory=Marks)
    voices: list[tuple[int, int]] = field(default_factory=list)  # (depth, unit that says who is quoted so deep)

    def quote(self, depth: int, above: int, introduced: bool) -> None:
        """Go to a line that is quoted so deep; `above` is the unit before, which may introduce the quotation."""
        while self.voices and self.voices[-1][0] > depth:
            self.voices.pop()
        if introduced and depth > (self.voices[-1][0] if self.voices else 0):
            self.voices.append((depth, above))

    def close_items(self) -> None:
        self.items.clear()
        self.marks.opened.clear()


def structure(text: str, units: Sequence[Span]) -> tuple[Role, ...]:
    """One role a unit. `units` in order and without overlap, as `split_sentences` gives them; other cuts do too.

    Linear in the text's length, and in the depth of its lists.
    """
    silent = silent_units(text, units)
    normal = normalise(text, keep_gaps=True)
    places = normal.places([(unit.start, unit.end) for unit in units])
    text, units = normal.text, [_without_blanks(normal.text, start, end) for start, end in places]
    lines, kinds = layout(text)
    if not lines:  # nothing but control characters
        return (Role("prose"),) * len(units)
    starts = [line.start for line in lines]
    html = is_html(text)
    depths = list_depths(text) if html else ([0], [0])
    tables = TableHeaders(tables_of(text)) if html else None
    levels, speakers = heading_levels(text, lines, kinds), names_in_turn(lines, kinds)
    state, roles, last_line = _Open(Leaning(text), [], []), list[Role](), -1
    for index, unit in enumerate(units):
        place = bisect_right(starts, unit.start) - 1
        line = lines[place]
        first = not text[line.start : unit.start].strip("> \t\f") or (html and text[unit.start] == "<")
        kind = _kind(text, unit, kinds[place], first=first, html=html)
        if silent[index]:
            kind = "blob"
        elif kind == "prose" and first and is_caption(text, unit, kinds, place):
            kind = "list intro"
        if last_line >= 0 and any(kinds[at] == "blank" for at in range(last_line + 1, place)):
            header = state.header
            if kind == "list item" and not html and state.marks.other_bullet(text, unit.start, line.indent):
                state.close_items()
                state.intro = None
            _close_paragraph(state, line.indent)
            below = kind == "table row" and roles[-1].kind in ("table header", "table row")
            if below and header is not None and has_columns(text, units[header], unit):
                state.header = header
        if kinds[place] == "furniture" and first:  # nothing leans on the title of a page
            roles.append(Role(kind))
            last_line = place
            continue
        if line.quote or state.voices:
            state.quote(line.quote, index - 1, introduced=bool(roles) and roles[-1].kind == "list intro")
        column = _column(line) if first else line.indent
        if html:
            column = _nesting(text, unit, kind, depths)
        elif kind in ("list item", "term"):
            column = state.marks.aligned_column(line.text, column) if first else column
            column = state.marks.column(text, unit.start, column)
        if tables is not None and kind in ("table row", "table header"):
            state.header = tables.header(text, unit, index, is_header=kind == "table header")
        if first and kinds[place] == "turn" and line.text.split(":")[0] in speakers:
            state.turn = index if unit.end - unit.start <= _LONGEST_TURN else None
        if kind == "list item" and _introduces(state, roles, text, units, index):
            state.intro, state.introduced_at = index - 1, line.indent
        role = _role(state, kind, index, column, levels.get(place, 0), first=first, text=text, unit=unit)
        if index and kind == "record" and _goes_on(text, units, roles[-1], index):
            role = replace(role, leans_on=index - 1)
        roles.append(role)
        if html:
            unfold(state.headings, text, unit)
        last_line = bisect_right(starts, max(unit.start, unit.end - 1)) - 1
    return tuple(roles)


def _introduces(state: _Open, roles: Sequence[Role], text: str, units: Sequence[Span], index: int) -> bool:
    """Whether the unit before an item, right above it, ends no sentence: "Do not take it" over "- if you are ill"."""
    if state.items or state.intro is not None or not roles or roles[-1].kind != "prose":
        return False
    above = units[index - 1]
    between = text[above.end : units[index].start]
    return between.strip(" \t>") == "\n" and SENTENCE_END.search(text, above.start, above.end) is None


def _goes_on(text: str, units: Sequence[Span], above: Role, index: int) -> bool:
    """Whether a record goes on with the one above: a subtitle within a sentence, a block after AsciiDoc's "+", the name
    below a letter's closing, the address below that name."""
    before, unit = units[index - 1], units[index]
    if text.endswith("\n+", before.start, before.end) or closes_letter(text, before.start, before.end):
        return True
    if above.leans_on is not None and text[before.end : unit.start].strip(" \t>") == "\n":
        closing = units[above.leans_on]
        if closes_letter(text, closing.start, closing.end):
            return True
    cue = _CUE_TEXT.search(text, unit.start, unit.end)
    return (
        cue is not None
        and "-->" in text[before.start : before.end]
        and not SENTENCE_END.search(text, before.start, before.end)
    )


def _without_blanks(text: str, start: int, end: int) -> Span:
    """The span without white space at its beginning, where something was that is not read."""
    while start < end and text[start].isspace():
        start += 1
    return Span(start, end)


def companions(roles: Sequence[Role], unit: int, *, needed_only: bool = False, depth: int = 4) -> list[int]:
    """Indices of what `unit` leans on, nearest first, at most `depth` steps away."""
    chain: list[int] = []
    role = roles[unit]
    while role.leans_on is not None and len(chain) < depth and not (needed_only and role.strength != "needed"):
        chain.append(role.leans_on)
        role = roles[role.leans_on]
    return chain


def _kind(text: str, unit: Span, kind: Kind, *, first: bool, html: bool) -> RoleKind:
    """What a unit is by the line it begins in, and in HTML by its tag."""
    if html and (tag := UNIT_TAG.match(text, unit.start, min(unit.end, unit.start + 2000))):
        name = tag[1].lower()
        titled = HEADED.match(text, unit.start, min(unit.end, unit.start + 2000)) if name in _BOXES else None
        cells = _CELL.findall(text, unit.start, unit.end)
        if titled and len(cells) < 2:  # of a page that is laid out by a table
            return "heading"
        head = name == "tr" and 2 * len(_NAME.findall(text, unit.start, unit.end)) > len(cells)  # else it names a row
        return "table header" if head else _TAG_KINDS[name]
    if kind in ("fence", "code"):
        return "code"
    if not first:
        return "record" if kind in ("record", "more") else "prose"
    if kind == "heading" or (kind in ("plain", "verse") and UNDERLINE.search(text, unit.start, unit.end)):
        return "heading"
    if html and kind == "row" and text[unit.start] != "|":
        return "prose"  # bars in a line of HTML part no cells
    if kind in ("header", "row"):
        return "table header" if kind == "header" else "table row"
    if kind == "verse" and text[unit.start] == ":" and text[unit.start + 1 : unit.start + 2].isspace():
        return "definition"
    if kind == "plain" and (title := _RUN_IN.match(text, unit.start)) and title.end() == unit.end:
        return "term"
    names: dict[Kind, RoleKind] = {"term": "term", "item": "list item", "record": "record", "more": "record"}
    return names.get(kind, "prose")


def _column(line: Line) -> int:
    stars = _STARS.match(line.text)  # of a wiki's nested items
    return line.indent + 100 * line.quote + (len(stars[1]) if stars else 0)


def _nesting(text: str, unit: Span, kind: RoleKind, depths: tuple[list[int], list[int]]) -> int:
    """How deep a unit of HTML stands in lists; what is no item stands deeper than the item it is in."""
    tag = UNIT_TAG.match(text, unit.start, min(unit.end, unit.start + 2000))
    depth = depths[1][bisect_right(depths[0], tag.start(1) if tag else unit.start) - 1]
    return 2 * depth + (depth > 0 and kind not in ("list item", "term"))


def _close_paragraph(state: _Open, indent: int) -> None:
    """A blank line ends a table, and the list above when the text goes on further left."""
    state.header = None
    state.sentence = state.turn = None
    if state.term is not None and indent < state.defined_at:
        state.items = [item for item in state.items if item[1] < state.term]
        state.term = None
    while state.items and state.items[-1][0] > indent:
        state.items.pop()


def _role(
    state: _Open, kind: RoleKind, index: int, indent: int, level: int, *, first: bool, text: str, unit: Span
) -> Role:
    heading = state.headings[-1][1] if state.headings else None
    heading = state.voices[-1][1] if state.voices else heading
    if kind == "prose" and first and asks(text, unit.start, unit.end):
        state.question, state.answering = index, False
        state.close_items()
        state.intro = state.outer_intro = state.term = None
        state.sentence = index
        return Role(kind, heading)
    if kind == "prose" and first and state.question is not None and answers(text, unit.start, unit.end):
        state.answering, state.sentence = True, index
        return Role(kind, state.question)
    heading = state.question if state.question is not None and (state.answering or kind == "prose") else heading
    if kind != "record":
        state.section = None
    elif _SECTION.fullmatch(text, unit.start, unit.end):
        state.section = None
        role = _item_role(state, kind, index, indent, heading)
        state.section = index
        return role
    if kind == "heading":
        return _heading_role(state, index, level or tag_level(text, unit))
    if kind == "list intro":  # the caption of a table
        state.intro = index
        return Role(kind, heading)
    if kind == "table header":
        state.header, state.sentence = index, None
        return Role(kind, state.intro if state.intro is not None else heading)
    if kind == "table row":
        state.sentence = None
        if state.header is not None:
            return Role(kind, state.header, "needed")
        above = [*(item for at, item in state.items if at < indent), *([] if state.intro is None else [state.intro])]
        return Role(kind, max(above, default=heading))
    if kind in ("list item", "record", "term"):
        return _item_role(state, kind, index, indent, heading)
    if kind in ("code", "blob"):
        inside = kind == "code" and state.items and indent > state.items[-1][0]
        leans, state.sentence = state.sentence if state.intro is None else state.intro, None
        leans = state.items[-1][1] if inside else leans
        return Role(kind, heading if leans is None else leans)
    return _prose_role(state, kind, index, indent, heading, first=first, text=text, unit=unit)


def _heading_role(state: _Open, index: int, level: int) -> Role:
    while state.headings and state.headings[-1][0] >= level:
        state.headings.pop()
    parent = state.headings[-1][1] if state.headings else None
    state.headings.append((level, index))
    state.close_items()
    state.intro = state.outer_intro = state.header = state.term = state.sentence = state.question = None
    state.answering = False
    return Role("heading", parent, "helpful", level)


def _item_role(state: _Open, kind: RoleKind, index: int, indent: int, heading: int | None) -> Role:
    """An item below a deeper-set one leans on it; one at the top on the line that introduces the list."""
    while state.items and state.items[-1][0] >= indent:
        _, closed = state.items.pop()
        if state.intro is not None and state.intro > closed:  # it introduced something within that item
            state.intro, state.outer_intro = state.outer_intro, None
    parent = state.items[-1][1] if state.items else None
    state.items.append((indent, index))
    state.sentence = index if kind == "list item" else None
    state.term, state.defined_at = (index if kind == "term" else None), 0
    level = len(state.items)
    if parent is not None:
        within = state.intro is not None and state.intro > parent and kind == "list item"
        return Role(kind, state.intro if within else parent, "needed", level)
    if state.section is not None:
        return Role(kind, state.section, "needed", level)
    if state.intro is not None and kind == "list item":
        return Role(kind, state.intro, "needed", level)
    return Role(kind, state.intro if state.intro is not None else heading, "helpful", level)


def _prose_role(
    state: _Open, kind: RoleKind, index: int, indent: int, heading: int | None, *, first: bool, text: str, unit: Span
) -> Role:
    before, state.sentence = state.sentence, index
    if state.term is not None and state.items and (not first or indent > state.items[-1][0]):
        state.defined_at = state.defined_at or indent
        return Role("definition", state.term, "needed")
    if kind == "definition":
        return Role(kind, state.term, "needed" if state.term is not None else "helpful")
    if first and not (state.items and indent > state.items[-1][0]):
        state.close_items()
        state.term = None
    if text[unit.start : unit.end].rstrip("*_ \t").endswith((":", "：")) and text[unit.start : unit.start + 2] != "..":
        if state.items and state.intro is not None and state.intro < state.items[0][1]:
            state.outer_intro = state.intro
        state.intro, state.introduced_at = index, indent
        below = state.items[-1][1] if state.items else heading
        return Role("list intro", before if before is not None and state.leaning.begins(unit.start) else below)
    if first and state.intro is not None and state.intro == index - 1 and indent > state.introduced_at + 1:
        return Role("prose", state.intro)  # what "run this:" speaks of, set in below
    if first and not state.items:
        state.intro = state.outer_intro = None
    if before is not None and (state.leaning.begins(unit.start) or state.leaning.refers(unit.start, unit.end)):
        return Role("prose", before)
    if state.items:
        return Role("prose", state.items[-1][1])
    if state.turn is not None and state.turn != index:
        return Role("prose", state.turn)
    return Role("prose", heading)
