"""What overlapping documents share: chunks of one text that were cut with an overlap, and passages retrieved twice.

Two documents of one title overlap where the end of one is the beginning of the other, or where one of them holds all of
the other, white space aside. What stands in both is worth its tokens once. The same sentence in two documents that do
not overlap stays in both: two manuals may say it, each of its own machine.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from ctxprune.select.budget import Mask, Units, extracts
from ctxprune.text.atoms import trim
from ctxprune.text.structure import structure
from ctxprune.types import Context, Extract

_WORD = re.compile(r"\S+")
_SHORTEST = 20  # characters of a unit that tells of an overlap
_GLANCE = 64  # characters that are compared before all of an overlap is
_NAMED = 10  # documents that a warning names
_EDGE = 30  # characters at the beginning of a document that tell of an overlap where its units are shorter
_REACH = 600  # characters at the end of a document in which they are looked for; longer overlaps hold a sentence
_HOLDERS = 8  # documents with the same sentence that another one is compared with


@dataclass(frozen=True, slots=True)
class _Plain:
    """A document's text with single spaces, and where in it each of its units starts and ends."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def of(cls, extract: Extract) -> _Plain:
        source = extract.source.text
        words = [match.start() for match in _WORD.finditer(source)]
        lengths = [len(word) + 1 for word in source.split()]
        places = [0, *accumulate(lengths)]

        def place(offset: int) -> int:
            word = bisect_right(words, offset) - 1
            return places[word] + min(offset - words[word], lengths[word]) if word >= 0 else 0

        spans = [trim(source, unit.start, unit.end) or (unit.start, unit.start) for unit in extract.units]
        return cls(
            " ".join(source.split()),
            [place(start) for start, _ in spans],
            [place(end - 1) + 1 if start < end else place(start) for start, end in spans],
        )


@dataclass(frozen=True, slots=True)
class _Overlap:
    """Two documents; what stands at `at` in the plain text of the second is at `at + shift` in that of the first."""

    first: int
    second: int
    shift: int

    def turned(self) -> _Overlap:
        return _Overlap(self.second, self.first, -self.shift)


@dataclass(frozen=True, slots=True)
class Repeats:
    """again: (n_units,) bool, the chosen units that say what others do. copies: documents that another one holds.

    score: (n_units,) float64, of each unit the best of its own score and those of the units that it stands for. said:
    how many chosen units are left. instead: for those that are the same as one other, that one.
    """

    again: Mask
    copies: frozenset[int]
    score: npt.NDArray[np.float64]
    said: int
    instead: Mapping[int, int] = field(default_factory=dict)

    def note(self, after: Context) -> Context:
        """`after`, with a warning when a document was left out because another one holds all of it."""
        gone = [
            str(extract.index + 1)
            for piece, extract in extracts(after.pieces)
            if piece in self.copies and not any(extract.kept)
        ]
        if not gone:
            return after
        if len(gone) == 1:
            return after.warn(f"document {gone[0]} is left out: all of it stands in another document too")
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        named = ", ".join(gone[:_NAMED])
        return after.warn(f"documents {named}{more} are left out: all of each stands in another document too")


def repeats_of(context: Context, units: Units, chosen: Mask) -> Repeats:
    """The chosen units that say nothing which other chosen units, of an overlapping document, do not.

    Of two documents the one that holds all of the other keeps what they share, else the one with the better score in
    that, among equals the one with the better score anywhere, then the earlier. Half a sentence at the cut of a chunk
    gives way to the whole one, and a heading there to the one that stands over its text.
    """
    search = _Search(context, units, chosen)
    if len(search.documents) > 1:
        search.run()
    copies = frozenset(search.copies.intersection(units.piece[search.again].tolist()))
    return Repeats(search.again, copies, search.score, int((chosen & ~search.again).sum()), search.instead)


def _found(text: str, beginnings: Mapping[str, list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Where beginnings of documents stand in the last part of a text, in order, with those documents."""
    first = max(0, len(text) - _REACH)
    last = text[first:]
    places = []
    for beginning, pieces in beginnings.items():
        at = last.find(beginning) if len(beginning) == _EDGE else -1
        while at >= 0:
            places.append((first + at, pieces))
            at = last.find(beginning, at + 1)
    return iter(sorted(places, key=lambda place: place[0]))


class _Search:
    """One search for repeats, document by document."""

    def __init__(self, context: Context, units: Units, chosen: Mask) -> None:
        self.units, self.chosen = units, chosen
        self.documents: dict[int, Extract] = {}
        self.places: dict[int, range] = {}
        for piece, extract, mine in units.by_extract(context):
            self.documents[piece], self.places[piece] = extract, range(mine.start, mine.stop)
        self.again = np.zeros(len(units), np.bool_)
        self.score = units.score.copy()
        self.copies = set[int]()
        self.instead: dict[int, int] = {}
        self._tried = set[_Overlap]()
        self._plain: dict[int, _Plain] = {}
        self._heads: dict[int, Collection[int]] = {}

    def run(self) -> None:
        self._compare_edges()
        holders: dict[tuple[str, str, int], list[int]] = {}
        for piece, extract in self.documents.items():
            met: dict[str, int] = {}
            for at in self._chosen_of(piece):
                unit = extract.units[int(self.units.unit[at])]
                words = " ".join(extract.source.text[unit.start : unit.end].split())
                if len(words) < _SHORTEST:
                    continue
                met[words] = met.get(words, 0) + 1
                holding = holders.setdefault((extract.source.title, words, met[words]), [])
                for other in holding:
                    self._compare(self._aligned(other, at))
                holding[:] = [each for each in (*holding, at) if not self.again[each]][-_HOLDERS:]

    def _compare_edges(self) -> None:
        """Compare documents of one title where one may end as another begins, however short their units are."""
        named = Counter(extract.source.title for extract in self.documents.values())
        several = [piece for piece, extract in self.documents.items() if named[extract.source.title] > 1]
        texts = {piece: " ".join(self.documents[piece].source.text.split()) for piece in several}
        beginnings: dict[str, dict[str, list[int]]] = {}
        for piece, text in texts.items():
            mine = beginnings.setdefault(self.documents[piece].source.title, {})
            mine.setdefault(text[:_EDGE], []).append(piece)
        for piece, text in texts.items():
            met = {piece}  # the first is the longest; a text that is all alike has hundreds
            for at, others in _found(text, beginnings[self.documents[piece].source.title]):
                if self._gave_way(piece):
                    break
                for other in others[:_HOLDERS]:
                    fresh = other not in met and not self._gave_way(other)
                    if fresh and self._compare(_Overlap(piece, other, at)):
                        met.add(other)

    def _gave_way(self, piece: int) -> bool:
        """Whether a document is a copy that another one stands for, which meets the others in its place."""
        places = self.places[piece]
        return piece in self.copies and bool(self.again[places.start : places.stop].any())

    def _compare(self, overlap: _Overlap) -> bool:
        """Note what the two repeat of each other; False where they do not overlap, or were compared before."""
        if overlap in self._tried:
            return False
        self._tried.add(overlap)
        if not self._holds(overlap):
            return False
        for at, covering in self._pairs(overlap):
            if all(self.chosen[each] and not self.again[each] for each in covering):
                self.again[at] = True
                self.score[covering] = np.maximum(self.score[covering], self.score[at])
                if len(covering) == 1 and self._said(at) == self._said(covering[0]):
                    self.instead[at] = covering[0]
                    self.score[at] = self.score[covering[0]]
        self.copies.update(way.first for way in (overlap, overlap.turned()) if self._is_held(way))
        return True

    def _pairs(self, overlap: _Overlap) -> Iterator[tuple[int, Sequence[int]]]:
        """Chosen units that stand in both documents, with those that cover them: of the lesser document first, and
        before these what a cut has parted from the text that it heads.
        """
        turned = overlap.turned()
        ways = [(self._common(overlap), overlap), (self._common(turned), turned)]
        heads = [
            ([at for at in common if at in self._cut_off(way.first)], way) for common, way in ways if self._ends(way)
        ]
        for common, way in (*heads, *sorted(ways, key=lambda each: self._rank(each[1], each[0]))):
            for at in common:
                if covering := self._covering(at, way):
                    yield at, covering

    def _ends(self, overlap: _Overlap) -> bool:
        """Whether the first document ends before the second does."""
        return len(self._text(overlap.first).text) < len(self._text(overlap.second).text) + overlap.shift

    def _cut_off(self, piece: int) -> Collection[int]:
        """The headings and the like at the end of a document, whose text is another one's."""
        if piece not in self._heads:
            extract = self.documents[piece]
            roles = structure(extract.source.text, extract.units)
            last = len(roles)
            while last and roles[last - 1].kind in ("heading", "list intro", "table header"):
                last -= 1
            self._heads[piece] = {at for at in self.places[piece] if last and self.units.unit[at] >= last}
        return self._heads[piece]

    def _chosen_of(self, piece: int) -> Iterator[int]:
        return (at for at in self.places[piece] if self.chosen[at])

    def _text(self, piece: int) -> _Plain:
        if piece not in self._plain:
            self._plain[piece] = _Plain.of(self.documents[piece])
        return self._plain[piece]

    def _start(self, at: int) -> int:
        return self._text(int(self.units.piece[at])).starts[int(self.units.unit[at])]

    def _end(self, at: int) -> int:
        return self._text(int(self.units.piece[at])).ends[int(self.units.unit[at])]

    def _said(self, at: int) -> str:
        return self._text(int(self.units.piece[at])).text[self._start(at) : self._end(at)]

    def _aligned(self, first: int, second: int) -> _Overlap:
        pieces = int(self.units.piece[first]), int(self.units.piece[second])
        return _Overlap(*pieces, self._start(first) - self._start(second))

    def _stretch(self, overlap: _Overlap) -> tuple[int, int]:
        """Where in the plain text of the first document both have text."""
        first, second = self._text(overlap.first).text, self._text(overlap.second).text
        return max(0, overlap.shift), min(len(first), len(second) + overlap.shift)

    def _holds(self, overlap: _Overlap) -> bool:
        """Whether the texts are the same wherever, so shifted, both have any."""
        start, end = self._stretch(overlap)
        first, second, there = self._text(overlap.first).text, self._text(overlap.second).text, start - overlap.shift
        # most that share a sentence differ at once, and each sentence of theirs may be at another shift
        if not first.startswith(second[there : there + min(_GLANCE, end - start)], start):
            return False
        return first[start:end] == second[there : end - overlap.shift]

    def _common(self, overlap: _Overlap) -> list[int]:
        """The chosen units of the first document that lie in what both have."""
        start, end = self._stretch(overlap)
        return [at for at in self._chosen_of(overlap.first) if start <= self._start(at) and self._end(at) <= end]

    def _is_held(self, overlap: _Overlap) -> bool:
        """Whether the second document holds all of the first."""
        return self._stretch(overlap) == (0, len(self._text(overlap.first).text))

    def _rank(self, overlap: _Overlap, common: Sequence[int]) -> tuple[bool, float, float, int]:
        """By which the first document keeps what both have: that it is not held by the other, then by its scores."""
        score, piece = self.score, overlap.first
        best, everywhere = score[common].max(initial=-np.inf), score[[*self._chosen_of(piece)]].max(initial=-np.inf)
        return not self._is_held(overlap), float(best), float(everywhere), -piece

    def _covering(self, at: int, overlap: _Overlap) -> list[int]:
        """The second document's units where a unit of the first stands; none where some were removed earlier."""
        start, end = self._start(at) - overlap.shift, self._end(at) - overlap.shift
        other, places = self._text(overlap.second), self.places[overlap.second]
        touched = range(bisect_right(other.ends, start), bisect_left(other.starts, end))
        alive = self.units.unit[places.start : places.stop]
        found = np.searchsorted(alive, touched)
        if not (found < len(alive)).all() or not (alive[found] == np.array(touched)).all():
            return []
        return [places.start + each for each in found.tolist()]
