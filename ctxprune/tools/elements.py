"""What a tool's output consists of: elements that stay or go as a whole, often lines, and which a question names."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["json", "json lines", "table", "log", "search", "listing", "diff", "code", "text"]
Offsets = tuple[int, int]

#: An identifier in more elements than these, and in more than half, tells them apart no better than a comma does.
_FEW = 5
#: Identifiers of one question that are looked for.
_MOST_NAMES = 64
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"[^\s\"'`“”‘’„«»()\[\]{}<>,;!?]+")
_QUOTED = re.compile(r"`([^`\n]{2,200})`|\"([^\"\n]{2,200})\"|“([^”\n]{2,200})”")
_CAMEL = re.compile(r"[a-z][A-Z]")
_CODE_WORD = re.compile(r"[A-Z][A-Z0-9_]{3,}")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class Element:
    """`text[start:end]` of the output. Of elements within each other, the inner one goes with the outer one.

    reads: what it says, on one line, for whoever scores it. parent: an element before it that it cannot stand without:
    the array's element around it, the file header of a hunk. counted: whether its loss is told; a header's is not.
    group: what it is told under, of JSON the path of its array.
    """

    start: int
    end: int
    reads: str
    parent: int | None = None
    counted: bool = True
    group: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a note in the text says of elements that were left out before, by group: (left out, of how many)."""

    counts: Mapping[str, tuple[int, int]]

    @classmethod
    def none(cls) -> Earlier:
        return cls({})


class Shape(ABC):
    """A tool's output taken apart.

    context: neighbours of a kept element that are worth keeping with it, on either side.
    """

    kind: Kind
    noun: str = "elements"
    context: int = 0

    def __init__(self, text: str, elements: Sequence[Element], *, earlier: Earlier | None = None) -> None:
        self.text = text
        self.elements = tuple(elements)
        self.earlier = earlier or Earlier.none()

    @property
    def pruned_before(self) -> bool:
        """Whether the text carries the note of an earlier pruning."""
        return bool(self.earlier.counts)

    def tells(self, element: Element, kept: Sequence[bool]) -> bool:
        """Whether an element is one to count: not what went with the element around it."""
        if not element.counted or element.parent is None or kept[element.parent]:
            return element.counted
        return element.end > self.elements[element.parent].end

    @abstractmethod
    def render(self, kept: Sequence[bool], *, note: bool = True) -> str:
        """What stays, with a note of what was left out (or without), in a form that is still of this kind."""

    def counts(self, kept: Sequence[bool]) -> dict[str, tuple[int, int]]:
        """(left out, of how many) by group, those of earlier prunings included; groups that are whole are not named."""
        left: dict[str, int] = {name: before for name, (before, _) in self.earlier.counts.items()}
        total = {name: of for name, (_, of) in self.earlier.counts.items()}
        for element, stays in zip(self.elements, kept, strict=True):
            if not self.tells(element, kept):
                continue
            if element.group not in self.earlier.counts:
                total[element.group] = total.get(element.group, 0) + 1
            left[element.group] = left.get(element.group, 0) + (not stays)
        return {name: (out, max(total[name], out)) for name, out in left.items() if out}


def one_line(text: str) -> str:
    """The text without line breaks, so that a line is an element to whoever scores lines."""
    return _BLANKS.sub(" ", text).strip()


def spelled(name: str) -> str:
    """A path or name, and the words in it, which a question may hold where it does not hold the name."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^\w]+|_+", " ", name)
    return one_line(f"{name} {words}") if one_line(words) != one_line(name) else one_line(name)


def identifiers(question: str) -> list[re.Pattern[str]]:
    """Patterns of what the question names exactly: ids, numbers, versions, paths, hashes, codes, what it quotes.

    A number stands for itself and not for a part of a longer one, nor a name for a part of another.
    """
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(question):
        found.setdefault(next(filter(None, match.groups())).strip())
    for match in _WORD.finditer(question):
        word = match.group().rstrip(".:").lstrip(".:") if not match.group().startswith("./") else match.group()
        if _is_identifier(word):
            found.setdefault(word)
    return [_exactly(each) for each in list(filter(None, found))[:_MOST_NAMES]]


def _is_identifier(word: str) -> bool:
    digits = sum(map(str.isdigit, word))
    if _NUMBER.fullmatch(word):
        return digits >= 3 or "." in word
    if digits and len(word) >= 2:
        return any(map(str.isalpha, word)) and not re.fullmatch(r"\d{1,4}(?:st|nd|rd|th|s)", word)
    if "_" in word.strip("_") or _CAMEL.search(word) or _CODE_WORD.fullmatch(word):
        return True
    return len(word) > 3 and any(mark in word.strip("./:@#\\") for mark in "./:@#\\") and "..." not in word


def _exactly(word: str) -> re.Pattern[str]:
    if _NUMBER.fullmatch(word):
        return re.compile(rf"(?<!\d)(?<!\d[.,:/]){re.escape(word)}(?!\d)(?![.,:/-]\d)")
    left = r"(?<![^\W_])" if word[0].isalnum() else ""
    right = r"(?![^\W_])" if word[-1].isalnum() else ""
    return re.compile(f"{left}{re.escape(word)}{right}")


def telling(question: str, texts: Sequence[str]) -> dict[re.Pattern[str], list[int]]:
    """The identifiers of the question that tell the texts apart, each with the places of the texts that hold it."""
    holding = {
        pattern: [at for at, text in enumerate(texts) if pattern.search(text)] for pattern in identifiers(question)
    }
    return {pattern: places for pattern, places in holding.items() if 0 < len(places) <= max(_FEW, len(texts) // 2)}


def named(question: str, elements: Sequence[Element]) -> list[bool]:
    """For each element, whether it holds an identifier of the question that tells elements apart."""
    flags = [False] * len(elements)
    for places in telling(question, [element.reads for element in elements]).values():
        for at in places:
            flags[at] = True
    return flags


def descendants(elements: Sequence[Element], flags: Sequence[bool]) -> list[bool]:
    """Whether an element or one that it hangs on is flagged."""
    result = list(flags)
    for at, element in enumerate(elements):
        if element.parent is not None and result[element.parent]:
            result[at] = True
    return result


def with_parents(elements: Sequence[Element], flags: Sequence[bool]) -> list[bool]:
    """Whether an element, or one that hangs on it, is flagged."""
    result = list(flags)
    for at in range(len(elements) - 1, -1, -1):
        parent = elements[at].parent
        if result[at] and parent is not None:
            result[parent] = True
    return result


def kept_stretches(length: int, removed: Sequence[Offsets]) -> Iterator[Offsets]:
    """What is left of `[0, length)`; `removed` may overlap."""
    position = 0
    for start, end in sorted(removed):
        if start > position:
            yield position, start
        position = max(position, end)
    if position < length:
        yield position, length


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
#: In the note of a JSON text, the key of the original's name.
ORIGINAL = "(original)"
#: A note, the third group being what it says of the original: "" or its hash.
_NOTE = re.compile(
    r"[#/| ]*\[ctxprune: (\d{1,12}) of (\d{1,12}) [a-z ]{2,20} left out((?:: the whole by hash=[0-9a-f]{24})?)\]"
    r"[|,;\t ]*\n?"
)
_JSON_NOTE = re.compile(
    r'\{"ctxprune_left_out": \{"lines": "(\d{1,12}) of (\d{1,12})"'
    rf'((?:, "{re.escape(ORIGINAL)}": "hash=[0-9a-f]{{24}}")?)\}}\}}\n?'
)
#: Characters at the end of a text in which a note is looked for.
_NOTE_WITHIN = 2000
#: Characters of a line that tell what it is.
_HEAD = 500


@dataclass(frozen=True, slots=True)
class Line:
    """`text[start:end]` with its line break is the line; text: without it."""

    start: int
    end: int
    text: str

    @property
    def head(self) -> str:
        """What patterns are tried on: its beginning, with a letter that ends no path where more follows."""
        return self.text if len(self.text) <= _HEAD else self.text[:_HEAD] + "\0"

    @property
    def blank(self) -> bool:
        return not self.text.strip()


def lines_of(text: str) -> list[Line]:
    """The lines, together the whole text; only a line feed ends one."""
    return [Line(match.start(), match.end(), match.group().rstrip("\r\n")) for match in _LINE.finditer(text)]


def note_line(out: int, of: int, noun: str) -> str:
    return f"[ctxprune: {out} of {of} {noun} left out]"


def split_note(text: str) -> tuple[str, Earlier]:
    """The text without the note that an earlier pruning put below it, and what that note says."""
    cut, match = _last_note(text)
    if match is None or not cut:
        return text, Earlier.none()
    return text[:cut], Earlier({"": (int(match[1]), int(match[2]))})


def name_original(text: str, hash_value: str) -> str | None:
    """The text with its original named in the note below it; None where there is no such note, or it names one."""
    cut, match = _last_note(text)
    if match is None or match[3]:
        return None
    is_json = match.re is _JSON_NOTE
    named = f', "{ORIGINAL}": "hash={hash_value}"' if is_json else f": the whole by hash={hash_value}"
    place = cut + match.start(3)
    return f"{text[:place]}{named}{text[place:]}"


def _last_note(text: str) -> tuple[int, re.Match[str] | None]:
    """Where the last line begins, and the note that it is."""
    tail = max(0, len(text) - _NOTE_WITHIN)
    cut = text.rstrip("\n").rfind("\n", tail) + 1
    last = text[cut:]
    return cut, _NOTE.fullmatch(last) or _JSON_NOTE.fullmatch(last)


class LineShape(Shape):
    """Text whose elements are whole lines.

    write: the note, from what it says in words. Lines that no element holds stay.
    """

    def __init__(
        self,
        text: str,
        elements: Sequence[Element],
        *,
        kind: Kind,
        noun: str,
        earlier: Earlier,
        write: Callable[[str], str] = str,
        context: int = 0,
    ) -> None:
        super().__init__(text, elements, earlier=earlier)
        self.kind, self.noun, self.context, self.write = kind, noun, context, write

    def render(self, kept: Sequence[bool], *, note: bool = True) -> str:
        if all(kept) and not self.pruned_before:
            return self.text
        removed = [(each.start, each.end) for each, stays in zip(self.elements, kept, strict=True) if not stays]
        body = "".join(self.text[start:end] for start, end in kept_stretches(len(self.text), removed))
        out, of = self.counts(kept).get("", (0, 0))
        if not out:
            return body
        if not note:
            return body if self.text.endswith("\n") else body.rstrip("\r\n")
        ended = "\n" if self.text.endswith("\n") else ""
        return f"{body}{'' if not body or body.endswith(chr(10)) else chr(10)}{self._note(out, of)}{ended}"

    def _note(self, out: int, of: int) -> str:
        if self.kind == "json lines":
            return json.dumps({"ctxprune_left_out": {"lines": f"{out} of {of}"}})
        return self.write(note_line(out, of, self.noun))


@dataclass(slots=True)
class Rows:
    """Elements under construction: runs of lines."""

    text: str
    lines: Sequence[Line]

    def element(
        self, first: int, last: int, *, parent: int | None = None, counted: bool = True, reads: str | None = None
    ) -> Element:
        """Lines `first` up to `last`, which is not in it."""
        start, end = self.lines[first].start, self.lines[last - 1].end
        return Element(start, end, one_line(self.text[start:end] if reads is None else reads), parent, counted)


def runs(opens: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """[first, last) of the stretches that begin where `opens` is true; what comes before the first is in none."""
    return pairwise([*(at for at, flag in enumerate(opens) if flag), len(opens)])
