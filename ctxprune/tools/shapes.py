"""Say what kind of output a text is, by its shape, and take it apart: tables, logs, hits, listings, diffs, JSON."""

from __future__ import annotations

import csv
import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.layout import layout
from ctxprune.tools.code import code
from ctxprune.tools.elements import (
    Earlier,
    Element,
    Line,
    LineShape,
    Rows,
    Shape,
    lines_of,
    name_original,
    one_line,
    runs,
    spelled,
    split_note,
)
from ctxprune.tools.json_shape import JsonShape

_HIT = re.compile(r"(?P<path>(?=[^:\n]*[A-Za-z])[^\s:][^:\n]{0,400}?):\d{1,9}(?::\d{1,9})?:")
_AROUND = re.compile(r"(?=[^\n]*[A-Za-z])[^\s:][^:\n]{0,400}?-\d{1,9}-")
_BARE_HIT = re.compile(r"[\w.@+-]*[\w./@+-]*(?:/[\w.@+-]+|\.[A-Za-z]\w{0,7}):(?!//)")
_NUMBERED_HIT = re.compile(r"(\d{1,9})[:-]")
_PATH = re.compile(
    r"(?:[ MADRCUT?!]{2} |\d[\d.,]{0,12}[KMGTB]?\s{1,9})?(?:\./|~/|/|[A-Za-z]:\\)?"
    r"[\w@.+~$%()\[\]#=,-]+(?:[/\\][\w@.+~$%()\[\]#=, -]+)*[/\\*@|=]?"
)
_LONG_ENTRY = re.compile(r"\s*[-bcdlpsD][-rwxsStT]{9}[.+@]?\s")
_FOLDER = re.compile(r"\S[^\n]{0,400}:$")
_TREE = re.compile(
    r"(?P<depth>(?:[│|][\s\u00a0]{1,3}|[\s\u00a0]{4})*)(?:├|└|\|--|`--|\+--)[─-]{0,3}[\s\u00a0]?(?P<name>.+)"
)
_HUNK = re.compile(r"@@+ -\d+(?:,\d+)? .{0,200}@@")
_COMMIT = re.compile(r"commit [0-9a-f]{7,64}\b")
_STAMP = re.compile(
    r"[\[(<\"']?(?:\d{4}[-/.]\d\d[-/.]\d\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    r"|(?:[A-Z][a-z]{2},? )?[A-Z][a-z]{2} [ \d]?\d,? [\d:]{4}|\d{1,2}:\d\d:\d\d|\[ *\d+\.\d+\]|[IWEF]\d{4} |\d{10}"
    r"|(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b)"
    r"|\S+ \S+ \S+ \[\d{1,2}/[A-Z][a-z]{2}/\d{4}:|\w[\w.-]* *\| |(?:time|ts|level|severity)="
)
_RULE = re.compile(r"[\s|+:=-]+$")
#: Shares of the lines that must look so.
_MOST, _MANY = 0.8, 0.6


def json_lines(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Two and more JSON objects or arrays, one a line."""
    if len(lines) < 2 or any(not line.blank and line.text.lstrip()[0] not in "{[" for line in lines):
        return None
    full = [at for at, line in enumerate(lines) if not line.blank]
    try:
        for at in full:
            json.loads(lines[at].text)
    except (ValueError, RecursionError):
        return None
    rows = Rows(text, lines)
    elements = [rows.element(at, at + 1, reads=re.sub(r'["{}]+', " ", lines[at].text)) for at in full]
    return LineShape(text, elements, kind="json lines", noun="lines", earlier=earlier) if len(full) > 1 else None


def diff(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Unified diffs: whole hunks, each with the header of its file. What stands above the first file stays."""
    hunks = [at for at, line in enumerate(lines) if _HUNK.match(line.text)]
    if not hunks:
        return None
    opens = [False] * len(lines)
    for at, line in enumerate(lines):
        git = line.text.startswith(("diff ", "Index: "))
        plain = line.text.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].text.startswith("+++ ")
        opens[at] = git or _COMMIT.match(line.text) is not None or (plain and not _in_header(lines, at))
    rows, elements = Rows(text, lines), list[Element]()
    heads = [at for at, flag in enumerate(opens) if flag]
    if not heads or heads[0] > hunks[0]:
        opens[hunks[0]] = True
    commit: int | None = None
    for first, last in runs(opens):
        inside = hunks[bisect_left(hunks, first) : bisect_left(hunks, last)]
        bounds = [*inside, last]
        parent = commit
        if _COMMIT.match(lines[first].text):
            elements.append(rows.element(first, last, counted=False))
            commit = len(elements) - 1
            continue
        if not inside:  # renamed, binary, only a mode
            elements.append(rows.element(first, last, parent=commit))
            continue
        if inside[0] > first:
            reads = _file_name(lines[first : inside[0]])
            elements.append(rows.element(first, inside[0], parent=commit, counted=False, reads=reads))
            parent = len(elements) - 1
        elements.extend(rows.element(start, end, parent=parent) for start, end in zip(inside, bounds[1:], strict=True))
    return LineShape(text, elements, kind="diff", noun="hunks", earlier=earlier)


def _in_header(lines: Sequence[Line], at: int) -> bool:
    """Whether the `---` line belongs to a header that a `diff` line above has opened."""
    for before in range(at - 1, max(-1, at - 8), -1):
        if lines[before].text.startswith(("diff ", "Index: ")):
            return True
        if _HUNK.match(lines[before].text):
            return False
    return False


def _file_name(lines: Sequence[Line]) -> str:
    names = [re.sub(r"^[ab]/", "", word) for line in lines for word in line.text.split() if "/" in word or "." in word]
    return " ".join(spelled(name) for name in dict.fromkeys(names)) or one_line(" ".join(line.text for line in lines))


def search(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Hits of grep and its kin, compilers' complaints: whole hits with the file's name and the lines around them."""
    full = [line for line in lines if not line.blank]
    hits = sum(_HIT.match(line.head) is not None for line in full)
    around = sum(_AROUND.match(line.head) is not None or line.text == "--" for line in full)
    if len(full) < 3:
        return None
    if hits and hits + around >= _MOST * len(full):
        return LineShape(text, _hits(text, lines), kind="search", noun="hits", earlier=earlier)
    if elements := _hits_by_file(text, lines):
        return LineShape(text, elements, kind="search", noun="hits", earlier=earlier)
    bare = [match.group() for line in full if (match := _BARE_HIT.match(line.head))]
    if len(bare) >= _MOST * len(full) and len(set(bare)) < len(bare):
        rows = Rows(text, lines)
        elements = [rows.element(at, at + 1) for at, line in enumerate(lines) if not line.blank]
        return LineShape(text, elements, kind="search", noun="hits", earlier=earlier)
    return None


def _hits(text: str, lines: Sequence[Line]) -> list[Element]:
    """A hit with the lines around it; hits with nothing between them are apart."""
    is_hit = [_HIT.match(line.head) is not None for line in lines]
    opens = [
        line.text == "--" or (is_hit[at] and (at == 0 or (is_hit[at - 1] or lines[at - 1].blank)))
        for at, line in enumerate(lines)
    ]
    if lines and not opens[0]:  # what stands before the first hit belongs to it, where nothing else opens one
        opens[0] = not any(opens) or (not is_hit[0] and _AROUND.match(lines[0].head) is not None)
    rows = Rows(text, lines)
    return [rows.element(first, last, reads=_hit_reads(text, lines, first, last)) for first, last in runs(opens)]


def _hit_reads(text: str, lines: Sequence[Line], first: int, last: int) -> str:
    match = next(filter(None, (_HIT.match(line.head) for line in lines[first:last])), None)
    words = spelled(match["path"]) if match else ""
    return f"{text[lines[first].start : lines[last - 1].end]} {words}"


def _hits_by_file(text: str, lines: Sequence[Line]) -> list[Element] | None:
    """A file's name on a line of its own, and numbered lines below it; of a single file the numbered lines alone."""
    full = [at for at, line in enumerate(lines) if not line.blank]
    numbered = {at for at in full if _NUMBERED_HIT.match(lines[at].head)}
    others = [at for at in full if at not in numbered and lines[at].text != "--"]
    named = all(_PATH.fullmatch(lines[at].head) and at + 1 in numbered for at in others)
    if not numbered or not named or (others and others[0] != full[0]):
        return None
    counts = [int(match[1]) for at in full if (match := _NUMBERED_HIT.match(lines[at].head))]
    if not others and any(right <= left for left, right in pairwise(counts)):
        return None
    if not others and counts[-1] - counts[0] < len(counts):  # every line of a file, so code or prose
        return None
    rows, elements = Rows(text, lines), list[Element]()
    parent: int | None = None
    for at in range(full[0], len(lines)):
        if at in numbered:
            elements.append(rows.element(at, at + 1, parent=parent))
        elif lines[at].blank or lines[at].text == "--":
            last = elements[-1]
            elements[-1] = Element(last.start, lines[at].end, last.reads, last.parent, last.counted)
        else:
            elements.append(rows.element(at, at + 1, counted=False, reads=spelled(lines[at].text)))
            parent = len(elements) - 1
    return elements


def listing(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Files: of `ls -l`, of `find`, of `tree`, one a line."""
    full = [at for at, line in enumerate(lines) if not line.blank]
    if len(full) < 3:
        return None
    if sum(_TREE.match(lines[at].head) is not None for at in full) >= _MANY * len(full):
        return LineShape(text, _tree(text, lines), kind="listing", noun="entries", earlier=earlier)
    entries = {at for at in full if _LONG_ENTRY.match(lines[at].text)}
    if len(entries) < _MANY * len(full):
        paths = {at for at in full if _PATH.fullmatch(lines[at].head.strip())}
        rich = sum(any(mark in lines[at].text for mark in "/\\._-") for at in paths)
        if len(paths) < _MOST * len(full) or rich < _MANY * len(full):
            return None
        entries = paths
    return LineShape(text, _entries(text, lines, entries), kind="listing", noun="entries", earlier=earlier)


def _entries(text: str, lines: Sequence[Line], entries: set[int]) -> list[Element]:
    rows, elements = Rows(text, lines), list[Element]()
    parent: int | None = None
    for at, line in enumerate(lines):
        if _FOLDER.fullmatch(line.head) and at + 1 < len(lines) and not _LONG_ENTRY.match(line.text):
            elements.append(rows.element(at, at + 1, counted=False, reads=spelled(line.text)))
            parent = len(elements) - 1
        elif at in entries:
            elements.append(rows.element(at, at + 1, parent=parent, reads=spelled(line.text)))
        elif parent is not None:  # "total 12", the blank line between two folders
            elements.append(rows.element(at, at + 1, parent=parent, counted=False))
    return elements


def _tree(text: str, lines: Sequence[Line]) -> list[Element]:
    rows, elements = Rows(text, lines), list[Element]()
    above: list[tuple[int, int]] = []  # (depth, element) of the folders around
    for at, line in enumerate(lines):
        match = _TREE.match(line.head)
        if match is None:
            continue
        depth = len(match["depth"])
        while above and above[-1][0] >= depth:
            above.pop()
        parent = above[-1][1] if above else None
        elements.append(rows.element(at, at + 1, parent=parent, reads=spelled(match["name"])))
        above.append((depth, len(elements) - 1))
    return elements


def table(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Rows below a header: CSV and its kin, tables of Markdown, aligned columns. The first row always stays."""
    shapes, kinds = layout(text)
    full = [at for at, kind in enumerate(kinds) if kind != "blank"]
    rows = [at for at in full if kinds[at] in ("header", "row")]
    others = [at for at in full if kinds[at] not in ("header", "row", "more", "under")]
    if len(rows) < 3 or len(others) > (1 - _MOST) * len(full):
        return None
    if (delimiter := _delimiter(lines)) is not None:
        return _delimited(text, lines, delimiter, earlier)
    starts = {shapes[at].start for at in rows}
    opens = [line.start in starts and not _RULE.match(line.text) for line in lines]
    # a table whose first row is no header still is not told apart from one
    header = next(at for at, flag in enumerate(opens) if flag)
    opens[header] = False
    bars = "|" in lines[header].text
    names = [one_line(cell) for cell in lines[header].text.strip().strip("|").split("|")] if bars else []
    builder = Rows(text, lines)
    elements = []
    for first, last in runs(opens):
        while last > first + 1 and (lines[last - 1].blank or _RULE.match(lines[last - 1].text)):
            last -= 1  # a rule or a blank line below stays
        cells = lines[first].text.strip().strip("|").split("|") if bars else []
        elements.append(builder.element(first, last, reads=_named_cells(names, cells) if bars else None))
    write = (lambda note: "| " + note + " |" + " |" * (len(names) - 1)) if bars else str
    return LineShape(text, elements, kind="table", noun="rows", earlier=earlier, write=write)


def _named_cells(names: Sequence[str], cells: Sequence[str]) -> str | None:
    if len(names) != len(cells):
        return "; ".join(cells)
    return "; ".join(f"{name}: {cell.strip()}" for name, cell in zip(names, cells, strict=True))


def _delimiter(lines: Sequence[Line]) -> str | None:
    """What stands between the cells when all logical rows have as many of them."""
    for delimiter in ("\t", ",", ";"):
        rows = [cells for row in _logical(lines) if (cells := _cells(row, delimiter))]
        if len(rows) >= 3 and len(rows[0]) > 1 and all(len(cells) == len(rows[0]) for cells in rows):
            return delimiter
    return None


def _logical(lines: Sequence[Line]) -> list[str]:
    return ["\n".join(line.text for line in lines[first:last]) for first, last in runs(_row_starts(lines))]


def _row_starts(lines: Sequence[Line]) -> list[bool]:
    """Where rows begin; a line break within quotes begins none."""
    opens, inside = [], False
    for line in lines:
        opens.append(not inside and not line.blank)
        inside ^= line.text.count('"') % 2 == 1
    return opens


def _cells(row: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(row.split("\n"), delimiter=delimiter), [])
    except csv.Error:
        return []


def _delimited(text: str, lines: Sequence[Line], delimiter: str, earlier: Earlier) -> LineShape:
    opens = _row_starts(lines)
    header = opens.index(True)
    opens[header] = False
    rows = Rows(text, lines)
    end = next((at for at in range(header + 1, len(lines)) if opens[at]), len(lines))
    names = _cells("\n".join(line.text for line in lines[header:end]), delimiter)
    elements = []
    for first, last in runs(opens):
        cells = _cells("\n".join(line.text for line in lines[first:last]), delimiter)
        elements.append(rows.element(first, last, reads=_named_cells(names, cells)))
    blank = delimiter * (len(names) - 1)
    return LineShape(text, elements, kind="table", noun="rows", earlier=earlier, write=lambda note: note + blank)


def log(text: str, lines: Sequence[Line], earlier: Earlier) -> LineShape | None:
    """Records, each with the lines that continue it, such as a stack trace."""
    shapes, kinds = layout(text)
    full = [at for at, kind in enumerate(kinds) if kind != "blank"]
    records = [at for at in full if kinds[at] == "record"]
    inside = sum(kinds[at] in ("record", "more") for at in full)
    stamped = sum(_STAMP.match(shapes[at].text.lstrip()) is not None for at in records)
    if len(records) < 3 or inside < _MANY * len(full) or 2 * stamped < len(records):
        return None
    # what is neither a record nor a part of one is an element of its own
    starts = {shapes[at].start for at in full if kinds[at] != "more"}
    rows = Rows(text, lines)
    elements = [rows.element(first, last) for first, last in runs([line.start in starts for line in lines])]
    return LineShape(text, elements, kind="log", noun="records", earlier=earlier, context=1)


_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^\n`]*\n(?P<inner>.*\n)\1[ \t]*\s*", re.DOTALL)
#: Lines of a status or an address that may stand above a JSON body.
_PREAMBLE = 20


def frame(text: str) -> tuple[str, str, str]:
    """(before, inner, after): a fence around the whole, or a few lines above a JSON body; most texts are inner.

    A byte order mark, as files read without care begin with, stands before.
    """
    if text.startswith("\ufeff"):
        before, inner, after = frame(text[1:])
        return "\ufeff" + before, inner, after
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


def with_original(text: str, hash_value: str) -> str | None:
    """A pruned text that names its original in its note, of the same form; None for one that has no note."""
    head, inner, tail = frame(text)
    shape = JsonShape.of(inner)
    named = name_original(inner, hash_value) if shape is None else shape.named(hash_value)
    return None if named is None else f"{head}{named}{tail}"


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
