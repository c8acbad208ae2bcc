"""Find the notes below a text that its units point at: "Child*" and "* Up to 15 years", "rise.(2)" and "(2) In May"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.types import Span

_TAGS = r"(?:<(?!/)[^<>]{0,200}>\s*)"
#: What a note begins with; groups are named after the kinds of marks.
_NOTE = re.compile(
    rf"""(?:
    (?P<star>\*{{1,4}}|[†‡]{{1,2}})[ \t]?(?=[^\s*])
    |(?P<raised>[¹²³⁴-⁹]{{1,2}})\)?[ \t]?(?=\S)
    |{_TAGS}{{0,5}}<sup>(?P<tagged>[\w*†‡]{{1,3}})</sup>
    |\[\^(?P<named>[\w-]{{1,40}})\]:
    |\[(?P<square>\d{{1,3}}|[a-z*])\]:?[ \t]
    |\((?P<round>\d{{1,2}}|[A-Za-z]|\*{{1,3}})\)[ \t]
    |(?P<bare>\d{{1,2}})[ \t]+(?=[^\W\d_a-z])
    )""",
    re.VERBOSE,
)
#: What points at a note, behind the word or the number that it is about.
_POINTER = re.compile(
    r"""(?<=[\w)\].,;:%°€$£!?])(?P<star>\*{1,4}|[†‡]{1,2})(?![\w*†‡])
    |(?<=[\w)\].,;:%€$£!?])(?P<raised>[¹²³⁴-⁹]{1,2})(?!\w)
    |<sup>(?P<tagged>[\w*†‡]{1,3})</sup>
    |\[\^(?P<named>[\w-]{1,40})\](?!:)
    |(?<=[^\s\[])[ ]?\[(?P<square>\d{1,3}|[a-z*])\](?!:)
    |(?:(?<=[.,;:%)!?])|(?<=\S)[ ](?=\(\w{1,2}\)\s*(?:\||$)))\((?P<round>\d{1,2}|[A-Za-z]|\*{1,3})\)
    |(?<=[a-z)%][.,])(?P<bare>\d{1,2})(?=\s|$)
    """,
    re.VERBOSE,
)
_EMPHASIS = re.compile(r"(?<![\w*)\].,])\*{1,4}(?=[^\s*])")  # opens "*so*"
_LONGEST = 3  # units of a note that are brought
_Mark = tuple[str, str]


def footnotes(text: str, units: Sequence[Span], entries: Sequence[bool] = ()) -> dict[int, tuple[int, ...]]:
    """For each unit that points at a note further down, the first units of its notes, in order.

    entries: for each unit, whether it is an entry of a list of references, which is no note. Linear in the text's
    length.
    """
    notes = _notes(text, units, entries)
    if not notes:
        return {}
    pointing: dict[int, tuple[int, ...]] = {}
    below: dict[_Mark, tuple[int, ...]] = {}
    for index in range(len(units) - 1, -1, -1):
        own = notes.get(index)
        if own is None and below and (brought := _brought(text, units[index], below)):
            pointing[index] = brought
        elif own is not None:
            below[own[0]] = own[1]
    return pointing


def _brought(text: str, unit: Span, below: dict[_Mark, tuple[int, ...]]) -> tuple[int, ...]:
    marks = dict.fromkeys(_mark(pointer) for pointer in _POINTER.finditer(text, unit.start, unit.end))
    if any(kind == "star" for kind, _ in marks) and _EMPHASIS.search(text, unit.start, unit.end):
        marks = {mark: None for mark in marks if mark[0] != "star"}
    return tuple(each for mark in marks for each in below.get(mark, ()))


def _notes(text: str, units: Sequence[Span], entries: Sequence[bool]) -> dict[int, tuple[_Mark, tuple[int, ...]]]:
    """The mark and the units of each note, by its first unit; the items of a list have one mark in common."""
    starts = [index for index, unit in enumerate(units) if _begins_line(text, unit)]
    found: dict[int, tuple[_Mark, tuple[int, ...]]] = {}
    before: _Mark | None = None
    for place, index in enumerate(starts):
        match = _NOTE.match(text, units[index].start, units[index].end)
        mark = None if match is None or (entries and entries[index]) else _mark(match)
        if mark is not None and mark == before:  # "* boots", "* a coat"
            found = {first: note for first, note in found.items() if note[0] != mark}
        elif mark is not None:
            stop = starts[place + 1] if place + 1 < len(starts) else len(units)
            found[index] = (mark, tuple(range(index, min(stop, index + _LONGEST))))
        before = mark
    return found


def _begins_line(text: str, unit: Span) -> bool:
    start = text.rfind("\n", max(0, unit.start - 80), unit.start) + 1
    return not text[start : unit.start].strip() or text[unit.start] == "<"


def _mark(match: re.Match[str]) -> _Mark:
    kind = match.lastgroup or ""
    return ("star" if match[kind][0] in "*†‡" and kind != "round" else kind), match[kind]
