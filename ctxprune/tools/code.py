"""Source code as a tool's output: whole functions, methods and blocks go; what is left of Python still parses."""

from __future__ import annotations

import io
import re
import tokenize
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ctxprune.tools.elements import Earlier, Element, Line, LineShape, Rows, lines_of, one_line, spelled

_GUTTER = re.compile(r"[ ]{0,8}\d{1,7}(?:\t|→|[ ]?[|│][ ]?|: ?|  )")
_DEFINES = re.compile(r"[ \t]*(?:async[ ]+)?(?:def[ ]+\w+[ ]*\(|class[ ]+\w+[ ]*[(:])")
_IMPORTS = re.compile(r"(?:from[ ]+[\w.]+[ ]+import[ ]|import[ ]+[\w.]+)")
#: Clauses that go on with the statement before them.
_CLAUSES = ("elif", "else", "except", "finally")
_SKIPPED = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
_STATEMENT_END = re.compile(r"[;{}),]\s*(?://.*|/\*.*)?$")
_COMMENT = re.compile(r"\s*(?://|/\*|\*|#)")
_CLOSES = re.compile(r"[ \t]*(?:[})\]]|end\b|else\b|catch\b|finally\b|elsif\b|rescue\b|ensure\b)")
_NAME = re.compile(r"[A-Za-z_]\w{2,}")
#: Names of a block that are spelled out for whoever scores it.
_NAMES = 40


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines [first, last) of a statement with its decorators and the comments above. column: its indentation."""

    first: int
    last: int
    column: int
    word: str


def code(text: str, earlier: Earlier) -> LineShape | None:
    """Python by its tokens, other languages by brackets and blank lines; None where neither finds two blocks."""
    lines = lines_of(text)
    plain, numbered = _without_gutter(lines)
    elements = _python(text, lines, plain)
    python = elements is not None
    if elements is None:
        elements = _other(text, lines, plain)
    if elements is None:
        return None
    comment = "# " if python and not numbered else "// " if not numbered else ""
    return LineShape(text, elements, kind="code", noun="blocks", earlier=earlier, write=lambda note: comment + note)


def _without_gutter(lines: Sequence[Line]) -> tuple[list[str], bool]:
    """The lines without the numbers that some tools put before them, and whether there were any."""
    matches = [_GUTTER.match(line.text) for line in lines]
    full = [at for at, line in enumerate(lines) if not line.blank]
    if len(full) < 3 or not all(matches[at] for at in full):
        return [line.text for line in lines], False
    return [line.text[match.end() :] if match else "" for line, match in zip(lines, matches, strict=True)], True


def _python(text: str, lines: Sequence[Line], plain: Sequence[str]) -> list[Element] | None:
    if not any(_DEFINES.match(line) for line in plain) and sum(_IMPORTS.match(line) is not None for line in plain) < 2:
        return None
    blocks = _blocks(plain)
    if blocks is None:
        return None
    rows, elements = Rows(text, lines), list[Element]()
    for block in (each for each in blocks if each.column == 0):
        # a class's own body, in which each definition can go by itself
        members = _members(block, blocks) if block.word == "class" else []
        inner = [(member.first, member.last) for member in members]
        own = _outside(plain, block, inner)
        elements.append(rows.element(block.first, block.last, reads=_reads(own)))
        parent = len(elements) - 1
        elements.extend(
            rows.element(first, last, parent=parent, reads=_reads(plain[first:last])) for first, last in inner
        )
    return elements if len(elements) > 1 else None


def _members(block: _Block, blocks: Sequence[_Block]) -> list[_Block]:
    """The methods of a class; one of them stays with it where nothing else would be left of its body."""
    first = bisect_left(blocks, block.first + 1, key=attrgetter("first"))
    last = bisect_left(blocks, block.last, key=attrgetter("first"))
    body = [each for each in blocks[first:last] if each.last <= block.last and each.column > 0]
    if not body:
        return []
    column = min(each.column for each in body)
    body = [each for each in body if each.column == column]
    methods = [each for each in body if each.word in ("def", "async", "@", "class")]
    return methods if len(methods) < len(body) else methods[1:]


def _blocks(plain: Sequence[str]) -> list[_Block] | None:
    """The statements, of all depths of classes; None for what is no Python."""
    source = "".join(f"{line}\n" for line in plain)
    starts: list[tuple[int, int, int, str]] = []  # (first line, last line, column, first word)
    begun: tokenize.TokenInfo | None = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.ERRORTOKEN and token.string.strip():
                return None
            if token.type == tokenize.NEWLINE and begun is not None:
                word = begun.string
                starts.append((begun.start[0] - 1, token.end[0], begun.start[1], word))
                begun = None
            elif begun is None and token.type not in (*_SKIPPED, tokenize.NEWLINE):
                begun = token
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return None
    return _joined(starts, plain)


def _joined(starts: Sequence[tuple[int, int, int, str]], plain: Sequence[str]) -> list[_Block]:
    blocks: list[_Block] = []
    columns = sorted({column for _, _, column, _ in starts})[:2]
    for column in columns:
        open_at: int | None = None
        for first, last, depth, word in starts:
            if depth > column:
                if open_at is not None:
                    blocks[open_at] = _stretched(blocks[open_at], last)
                continue
            if depth < column:
                open_at = None
                continue
            before = blocks[open_at] if open_at is not None else None
            if before is not None and open_at is not None and (word in _CLAUSES or _goes_on(before, first, plain)):
                name = word if before.word == "@" and word != "@" else before.word
                blocks[open_at] = _Block(before.first, last, column, name)
                continue
            floor = before.last if before is not None else 0
            blocks.append(_Block(_with_comments(first, floor, plain), last, column, word))
            open_at = len(blocks) - 1
    return sorted(blocks, key=lambda block: (block.first, block.column))


def _goes_on(before: _Block, first: int, plain: Sequence[str]) -> bool:
    """Whether a statement belongs to the one before: below its decorator, on its line, or one of several imports."""
    return before.word == "@" or first < before.last or (before.word in ("import", "from") and _is_import(plain[first]))


def _is_import(line: str) -> bool:
    return _IMPORTS.match(line.lstrip()) is not None


def _stretched(block: _Block, last: int) -> _Block:
    return _Block(block.first, max(block.last, last), block.column, block.word)


def _with_comments(first: int, floor: int, plain: Sequence[str]) -> int:
    """Up from a statement over the comments right above it."""
    while first > floor and plain[first - 1].lstrip().startswith("#"):
        first -= 1
    return first


def _outside(plain: Sequence[str], block: _Block, inner: Sequence[tuple[int, int]]) -> list[str]:
    held = {at for first, last in inner for at in range(first, last)}
    return [plain[at] for at in range(block.first, block.last) if at not in held]


def _reads(lines: Sequence[str]) -> str:
    """The code, with the words that its names are made of."""
    body = one_line(" ".join(lines))
    names = dict.fromkeys(_NAME.findall(lines[0] if lines else "")) | dict.fromkeys(_NAME.findall(body))
    return f"{body} {' '.join(spelled(name).partition(' ')[2] for name in list(names)[:_NAMES])}".strip()


def _other(text: str, lines: Sequence[Line], plain: Sequence[str]) -> list[Element] | None:
    """Blocks of a language with brackets, and one level deeper where one block is most of it, such as a class."""
    full = [line for line in plain if line.strip()]
    ends = sum(_STATEMENT_END.search(line) is not None for line in full)
    opens = sum(line.rstrip().endswith(("{", ";")) for line in full)
    comments = sum(_COMMENT.match(line) is not None for line in full)
    if opens < 3 or 5 * (ends + comments) < 2 * len(full):
        return None
    outer = list(_paragraphs(plain, 0, len(plain), 0))
    rows, elements = Rows(text, lines), list[Element]()
    for first, last in outer:
        inner = []
        if 2 * (last - first) > len(plain):
            deeper = [_indent(plain[at]) for at in range(first + 1, last) if _indent(plain[at]) > 0]
            inner = list(_paragraphs(plain, first + 1, last, min(deeper))) if deeper else []
            inner = [each for each in inner if _balanced(plain[each[0] : each[1]])]
        own = _outside(plain, _Block(first, last, 0, ""), inner)
        elements.append(rows.element(first, last, reads=_reads(own)))
        parent = len(elements) - 1
        elements.extend(rows.element(start, end, parent=parent, reads=_reads(plain[start:end])) for start, end in inner)
    return elements if len(elements) > 1 else None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0


def _balanced(lines: Sequence[str]) -> bool:
    joined = "".join(lines)
    return joined.count("{") == joined.count("}") and any(line.strip() for line in lines)


def _paragraphs(plain: Sequence[str], first: int, last: int, column: int) -> Iterator[tuple[int, int]]:
    """[first, last) of blocks at an indentation: each begins after a blank line or a closing bracket there."""
    start: int | None = None
    for at in range(first, last):
        line = plain[at]
        if not line.strip() or _indent(line) > column:
            continue
        if _indent(line) < column:  # what closes the block around
            if start is not None:
                yield start, at
            start = None
            continue
        before = plain[at - 1] if at > first else ""
        closed = _CLOSES.match(before) is not None and _indent(before) == column
        if start is None or ((not before.strip() or closed) and not _CLOSES.match(line)):
            if start is not None:
                yield start, at
            start = at
    if start is not None:
        yield start, last
