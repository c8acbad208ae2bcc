"""Find the rows of tables: CSV and its kin, columns that white space keeps aligned, and tables that markup draws.

The last are the rules of reStructuredText and the tables of wikis, AsciiDoc and LaTeX.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ctxprune.text.column_names import names_columns
from ctxprune.text.lines import Kind, Line, paragraphs

_QUOTED_FIELD_LINES = 20  # lines that one quoted field of a CSV file may run over
_LONG_CELL = 60  # characters; a longer mean cell is prose between commas
_ENTRY = re.compile(r"(?:total \d+$|[-bcdlpsD][-rwxsStT]{9}[.+@]?\s)")  # ls -l
_GAP = re.compile(r"\S(?: {2,}|[ ]*\t)\s*\S")
_WIDE_GAP = re.compile(r"\S(?: {3,}|[ ]*\t)\s*\S")
_WORDS = re.compile(r"\s*(?:[^\W\d_]{1,20}[,;]?[ \t]{1,2}){5}")
_FRAME = re.compile(r"\s*[+|┌├└╔╠╚┏┣┗][-=+─═━┬┴┼┐┤┘╦╩╬╗╣╝┳┻╋┓┫┛|]{3,}\s*$")
_SUM = re.compile(r"[^\W\d][^\t]{0,80}\S(?: {2}|\t)\s*[-+$€£]?\d[\d.,]*(?: ?[€$£%])?\s*$")  # "Total      1,190.00"
_WIDTH = 400  # columns looked at when gutters are sought


def mark_tables(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header", "row" and "more" (a cell's further lines) into `kinds` where lines are rows of a table."""
    for paragraph in list(paragraphs(kinds)):
        free = [place for place in paragraph if kinds[place] in ("plain", "turn", "item", "row")]
        if len(free) < 2 or len(free) < len(paragraph) - 2:
            continue
        mark_rows(lines, kinds, free)
    _mark_bar_headers(lines, kinds)


def mark_rows(lines: Sequence[Line], kinds: list[Kind], free: Sequence[int]) -> bool:
    """Write "header", "row" and "more" for the lines `free` if they are a table; whether they are."""
    return _mark_delimited(lines, kinds, free) or _mark_aligned(lines, kinds, free)


def _mark_bar_headers(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """The row above a table's line is its header; the lines of a frame belong to the rows beside them."""
    for place in range(1, len(kinds)):
        before = kinds[place - 1]
        if kinds[place] == "under" and before == "row":
            kinds[place - 1] = "header"
        elif kinds[place] == "row" and _FRAME.match(lines[place].text) and before in ("row", "more", "header"):
            kinds[place] = "more"
        elif kinds[place] == "row" and before in ("row", "header") and _FRAME.match(lines[place - 1].text):
            kinds[place - 1], kinds[place] = "header", "more"


def _mark_delimited(lines: Sequence[Line], kinds: list[Kind], free: Sequence[int]) -> bool:
    """Rows with the same number of delimiters; in a table found so, rows that differ count too."""
    for skip in (0, 1):  # a title may stand above the table
        for delimiter in ("\t", ",", ";", "|"):
            rows = _rows(lines, free[skip:], delimiter)
            if len(rows) >= 2 and _is_delimited([text for _, text in rows], delimiter):
                _write(kinds, [places for places, _ in rows], [_cells(text, delimiter) for _, text in rows])
                return True
    return False


def _rows(lines: Sequence[Line], free: Sequence[int], delimiter: str) -> list[tuple[list[int], str]]:
    """(places of its lines, text) of each logical row: a quoted field may hold line breaks."""
    rows: list[tuple[list[int], str]] = []
    opened = False
    for place in free:
        text = lines[place].text
        odd = delimiter != "\t" and text.count('"') % 2 == 1
        if opened and len(rows[-1][0]) < _QUOTED_FIELD_LINES:
            rows[-1] = ([*rows[-1][0], place], f"{rows[-1][1]}\n{text}")
            opened = not odd
        else:
            rows.append(([place], text))
            opened = odd
    return rows


def _cells(row: str, delimiter: str) -> list[str]:
    """The cells of a row, without bars at its edges; delimiters between quotes divide nothing."""
    cells, quoted = [""], False
    for part in re.split(f'(["{re.escape(delimiter)}])', row):
        if part == delimiter and not quoted:
            cells.append("")
        else:
            quoted = quoted != (part == '"')
            cells[-1] += part
    if delimiter == "|" and len(cells) > 2:
        cells = cells[not cells[0].strip() : len(cells) - (not cells[-1].strip())]
    return cells


def _is_delimited(rows: Sequence[str], delimiter: str) -> bool:
    """Whether nearly all rows have the same number of cells, and the cells do not read like clauses."""
    if rows[0].count(delimiter) == 0 or (len(rows) > 1 and rows[1].count(delimiter) == 0):
        return False  # most texts are decided here
    widths = [len(_cells(row, delimiter)) for row in rows]
    usual = max(set(widths[:50]), key=widths[:50].count)
    same = sum(width == usual for width in widths)
    if usual < 2 or same < 0.8 * len(rows) or len(rows) < (3 if usual < 4 else 2):
        return False
    if delimiter == "|" and all(row.lstrip().startswith("|") for row in rows):
        return True
    if delimiter == "\t":  # also what some programs put for blanks
        indented = all(row.startswith("\t") for row in rows)
        return not indented and 3 * sum(_WORDS.match(row) is not None for row in rows) <= len(rows)
    joined = "\n".join(rows)
    if usual < 6 and 2 * joined.count(f'"{delimiter}"') >= len(rows) and joined.count('"') % 2 == 0:
        return True  # cells in quotes may be sentences
    delimiters = joined.count(delimiter)
    spaced = joined.count(delimiter + " ")
    if sum(map(len, rows)) > _LONG_CELL * (delimiters + len(rows)):
        return False
    if delimiter == "|" or 5 * spaced <= delimiters:
        return usual > 2 or not any(row.endswith((".", delimiter)) for row in rows)
    # "a, b, c" may be a sentence: only short cells of the same number in at least four rows are a table
    short = sum(map(len, rows)) <= 22 * (delimiters + len(rows))
    return (
        usual > 2
        and len(rows) > 3
        and same == len(rows)
        and short
        and not any(row.endswith((".", ",")) for row in rows)
    )


def _mark_aligned(lines: Sequence[Line], kinds: list[Kind], free: Sequence[int]) -> bool:
    """Rows of a listing: `ls -l`, or lines that leave the same columns blank, with an introduction above perhaps."""
    if sum(_ENTRY.match(lines[place].text.lstrip()) is not None for place in free) > len(free) // 2:
        for place in free:
            kinds[place] = "row"
        return True
    gapped = [place for place in free if _GAP.search(lines[place].text[:_WIDTH])]
    free = free[free.index(gapped[0]) :] if gapped else free  # without what introduces the table
    if len(gapped) >= max(3, 0.7 * len(free)) and _mark_columns(lines, kinds, free, gapped):
        return True
    marked = False
    for run in _runs(lines, free):
        marked |= _mark_columns(lines, kinds, run, [at for at in run if _WIDE_GAP.search(lines[at].text[:_WIDTH])])
    return marked


def _runs(lines: Sequence[Line], free: Sequence[int]) -> Iterator[list[int]]:
    """Stretches of lines with a wide gap at one margin, and the deeper ones that continue them."""
    run: list[int] = []
    margin = column = 0
    for place in free:
        line = lines[place]
        gap = _WIDE_GAP.search(line.text[:_WIDTH])
        wrapped = line.indent > margin and (gap is None or line.indent >= column)
        if run and (wrapped or (line.indent == margin and (gap or len(line.text) < 40))):
            run.append(place)
        else:
            yield run
            run, margin, column = ([place], line.indent, gap.end() - 1) if gap else ([], 0, 0)
    yield run


def _mark_columns(lines: Sequence[Line], kinds: list[Kind], free: Sequence[int], gapped: Sequence[int]) -> bool:
    """Mark `free` as rows if the lines with a gap among them, a third at least, leave the same columns blank."""
    if len(gapped) < 3 or 3 * len(gapped) < len(free):
        return False
    left = min(lines[place].indent for place in free)
    gutters = blank_columns([lines[place].text for place in gapped if lines[place].indent < left + 8])
    if not (len(gutters) > 1 or any(end - start > 2 for start, end in gutters)):
        return False
    if not any(end - start > 3 for start, end in gutters) and not _are_cells(
        [lines[place].text for place in gapped], gutters
    ):
        return False
    rows: list[list[int]] = []
    for place in free:
        if rows and lines[place].indent >= gutters[0][1] and not _SUM.search(lines[place].text[:_WIDTH]):
            rows[-1].append(place)  # the last cell, wrapped
        else:
            rows.append([place])
    cells = [re.split(r" {2,}|\t", lines[places[0]].text.strip()) for places in rows]
    _write(kinds, rows, cells)
    return True


def blank_columns(rows: Sequence[str]) -> list[tuple[int, int]]:
    """Stretches of two or more columns, blank in every row, with letters before them and, in two rows, behind them."""
    expanded = [row.expandtabs()[:_WIDTH].rstrip() for row in rows]
    if len(expanded) < 3:
        return []
    width = min(max(map(len, expanded)), _WIDTH)
    filled = bytearray(width + 1)
    for row in expanded:
        for match in re.finditer(r"\S+", row):
            filled[match.start() : match.end()] = b"\1" * (match.end() - match.start())
    first, last = filled.find(b"\1"), sorted(map(len, expanded))[-2]
    return [match.span() for match in re.finditer(rb"\0{2,}", bytes(filled)) if first < match.start() < last]


def _are_cells(rows: Sequence[str], gutters: Sequence[tuple[int, int]]) -> bool:
    """Whether the wide gaps of the rows are mostly the shared ones; those of justified prose are anywhere."""
    shared = total = 0
    for row in rows:
        for gap in re.finditer(r"(?<=\S) {2,}(?=\S)", row.expandtabs()[:_WIDTH]):
            total += 1
            shared += any(gap.start() <= start and end <= gap.end() for start, end in gutters)
    return 3 * shared >= 2 * total


def _write(kinds: list[Kind], rows: Sequence[Sequence[int]], cells: Sequence[Sequence[str]]) -> None:
    for number, places in enumerate(rows):
        kinds[places[0]] = "header" if number == 0 and names_columns(cells) else "row"
        for place in places[1:]:
            kinds[place] = "more"


_RULE = re.compile(r"[ \t]*(?:={2,}[ \t]+)+={2,}\s*$")
_GRID = re.compile(r"[ \t]*(?:\+(?:[-=]{2,}\+)+|[┌├└╔╠╚┏┣┗╒╞╘╟┡][─═━┬┴┼┐┤┘╦╩╬╗╣╝┳┻╋┓┫┛╤╪╧╡╕╛╫╢╇┩]{3,})\s*$")
_GRID_ROW = re.compile(r"[ \t]*[|│┃║]")
_GRID_HEADED = re.compile(r"=|[╞┡]")
_WIKI_OPENS, _WIKI_ROW, _WIKI_ENDS = re.compile(r"\s*\{\|"), re.compile(r"\s*\|-"), re.compile(r"\s*\|\}")
_ADOC = re.compile(r"\|={3,}\s*$")
_ADOC_CELL = re.compile(r"(?:^|\s)(?:[\d.+*^<>a-z]{1,6})?\|")
_TEX_ROW_END = re.compile(r"\\\\(?:\[[^\]]{0,20}\])?\s*(?:\\hline\s*)?(?:%.{0,60})?$")
_TEX_RULE = re.compile(
    r"\s*\\(?:hline|cline\b.*|toprule|midrule|bottomrule|(?:begin|end)\{(?:tabular|tabularx|longtable|array)\*?\}.*)\s*$"
)
_TEX_EDGE = re.compile(r"\s*\\(begin|end)\{(\w{1,30}\*?)\}")
_DISPLAYED = re.compile(
    r"(?:equation|align|gather|multline|eqnarray|displaymath|verbatim|lstlisting|minted|tikzpicture)\*?"
)
_TEX_COMMENT = re.compile(r"\s*%")
_LISTING, _LISTING_EDGE = re.compile(r"\[[\w,=\"%+. -]{1,100}\]\s*$"), re.compile(r"(-{4,40}|\.{4,40})\s*$")
_LONGEST = 2000  # lines of one table; one that is never closed does not take the rest of a book


def mark_grids(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header", "row" and "more" into `kinds` where markup says where rows begin."""
    place, places = 0, _Places(lines)
    while place < len(lines):
        text = lines[place].text
        if kinds[place] in ("code", "fence"):
            place += 1
        elif _RULE.match(text):
            place = _mark_simple(lines, kinds, place, places)
        elif _GRID.match(text):
            place = _mark_grid(lines, kinds, place)
        elif _WIKI_OPENS.match(text):
            place = _mark_wiki(lines, kinds, place, places)
        elif _ADOC.match(text):
            place = _mark_asciidoc(lines, kinds, place, places)
        elif _is_tex_row(text):
            place = _mark_tex(lines, kinds, place)
        else:
            place += 1
    mark_environments(lines, kinds, places)


class _Places:
    """Where lines match a pattern: each pattern looks at each line once, however many tables are never closed."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._places: dict[re.Pattern[str], list[int]] = {}

    def after(self, first: int, pattern: re.Pattern[str]) -> int | None:
        """The next line from `first` on that matches; None where there is none near enough."""
        if pattern not in self._places:
            self._places[pattern] = [at for at, line in enumerate(self._lines) if pattern.match(line.text)]
        places = self._places[pattern]
        at = bisect_left(places, first)
        return places[at] if at < len(places) and places[at] < first + _LONGEST else None


def _mark_simple(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """Rules of "=" above and below the header and below the last row; a blank first cell continues the row."""
    second = places.after(first + 1, _RULE)
    third = None if second is None else places.after(second + 1, _RULE)
    if second is None or second > first + 4 or any(not line.text.strip() for line in lines[first:second]):
        return first + 1
    end = second if third is None else third
    body = first + 1 if third is None else second + 1
    if third is not None:
        kinds[first], kinds[first + 1 : second + 1] = "header", ["more"] * (second - first)
    margin = lines[first].indent
    for at in range(body, end):
        if lines[at].text.strip() and kinds[at] not in ("code", "fence"):
            kinds[at] = "row" if lines[at].indent <= margin or at == body else "more"
    kinds[end] = "more"
    if third is None:
        kinds[first], kinds[body] = "row", "more"
    return end + 1


def _mark_grid(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Between two rules with "+", or of a frame, stands one row, however many lines its cells take."""
    rules, end = [first], first + 1
    while end < len(lines) and (_GRID.match(lines[end].text) or _GRID_ROW.match(lines[end].text)):
        if _GRID.match(lines[end].text):
            rules.append(end)
        end += 1
    doubled = any(_GRID_HEADED.search(lines[at].text) for at in rules)
    if len(rules) < 3 or (len(rules) == 3 and not doubled) or all(b - a < 3 for a, b in pairwise(rules)):
        return end  # one line a row, or no rule between the rows: what the bars say holds
    for number, (left, right) in enumerate(pairwise(rules)):
        opening = left if number == 0 else left + 1
        header = number == 0 and (_GRID_HEADED.search(lines[right].text) is not None or not doubled)
        kinds[opening] = "header" if header else "row"
        kinds[opening + 1 : right + 1] = ["more"] * (right - opening)
    return end


def _mark_wiki(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """{| ... |}: a row begins at "|-", and is the header if its cells begin with "!"."""
    end = places.after(first + 1, _WIKI_ENDS)
    if end is None:
        return first + 1
    opened = first
    kinds[first : end + 1] = ["more"] * (end + 1 - first)
    for at in range(first, end):
        begins = at == first or _WIKI_ROW.match(lines[at].text)
        if begins and lines[at + 1].text.strip()[:2] not in ("|-", "|}"):
            opened = at
            cell = next(
                (lines[below].text.strip() for below in range(at + 1, end) if lines[below].text.strip()[:2] != "|+"), ""
            )
            kinds[opened] = "header" if cell.startswith("!") and cell.count("|") < 2 else "row"
    return end + 1


def _mark_asciidoc(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """|=== ... |===: as many cells a row as the first line has, be they on one line or on several."""
    end = places.after(first + 1, _ADOC)
    if end is None:
        return first + 1
    content = [at for at in range(first + 1, end) if lines[at].text.strip()]
    kinds[first : end + 1] = ["more"] * (end + 1 - first)
    width = len(_ADOC_CELL.findall(lines[content[0]].text)) if content else 0
    cells = 0
    for at in content:
        here = len(_ADOC_CELL.findall(lines[at].text))
        if here and cells >= width * (at != content[0]):
            kinds[at], cells = "row", 0
        cells += here
    if content:
        kinds[first] = "header" if content[0] + 1 < end and not lines[content[0] + 1].text.strip() else "row"
        kinds[content[0]] = "more"
    return end + 1


def _is_tex_row(text: str) -> bool:
    return "&" in text and _TEX_ROW_END.search(text[-160:]) is not None


def _mark_tex(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Rows that end in two back-slashes; one with a rule below is the header."""
    opened = first
    while opened and _TEX_RULE.match(lines[opened - 1].text):
        opened -= 1
    end = first
    while end < len(lines) and (_is_tex_row(lines[end].text) or _TEX_RULE.match(lines[end].text)):
        end += 1
    kinds[opened:end] = ["more"] * (end - opened)
    rows = [at for at in range(first, end) if _is_tex_row(lines[at].text)]
    for at in rows[1:]:
        kinds[at] = "row"
    ruled = first + 1 < end and _TEX_RULE.match(lines[first + 1].text) is not None
    kinds[opened] = "header" if ruled and len(rows) > 1 else "row"
    return end


def mark_environments(lines: Sequence[Line], kinds: list[Kind], places: _Places) -> None:
    """What LaTeX displays and AsciiDoc lists is one record; other environments' edges and comments are apart."""
    place, tex = 0, any(_TEX_EDGE.match(line.text) for line in lines)
    while place < len(lines):
        text, end = lines[place].text, None
        edge = _TEX_EDGE.match(text) if tex and kinds[place] in ("plain", "item", "turn") else None
        if edge and edge[1] == "begin" and _DISPLAYED.fullmatch(edge[2]):
            end = places.after(place + 1, re.compile(rf"\s*\\end\{{{re.escape(edge[2])}\}}"))
        elif _LISTING.match(text) and place + 1 < len(lines) and (rule := _LISTING_EDGE.match(lines[place + 1].text)):
            end = places.after(place + 2, re.compile(rf"{re.escape(rule[1])}\s*$"))
        elif edge or (tex and kinds[place] == "plain" and _TEX_COMMENT.match(text)):
            end = place
        if end is not None:
            kinds[place], kinds[place + 1 : end + 1] = "record", ["more"] * (end - place)
        place = place + 1 if end is None else end + 1
