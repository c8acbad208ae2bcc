"""Compress, sense, expand (REFRAG, Lin et al., 2025): which pieces go as text, which as a vector, which not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ctxprune.calibration import DEFAULT_POINT
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import BudgetError, InputError
from ctxprune.prompt import DOCUMENT_SEPARATOR, title_line
from ctxprune.types import Compressor, Context, Extract, Piece, SoftTokens, Span, TokenCounter, indentation, joiner
from ctxprune.vectors.pieces import Offsets

#: Offsets in a source, in order.
Stretches: TypeAlias = "tuple[Offsets, ...]"


class Form(Enum):
    """What stands for a piece in the prompt."""

    TEXT = "text"
    VECTOR = "vector"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Part:
    """What one vector of a document stands for. document: the place of the document among those that are chosen from.

    stretches: offsets in the source, in order; several where an earlier compressor removed what lies between. score:
    how much the piece helps, by the policy. cost: in tokens, as text.
    """

    document: int
    stretches: Stretches
    score: float
    cost: int = 0

    @property
    def span(self) -> Span:
        return Span(self.stretches[0][0], self.stretches[-1][1], self.score)


def chosen(
    parts: Sequence[Part], *, opening: Sequence[int], room: int | None, threshold: float | None
) -> tuple[Form, ...]:
    """The form of each part under one budget of input embeddings, `room`: a vector takes 1, text its tokens.

    The parts that score at least `threshold` become text, the best first, where they fit; without a threshold the best
    one. The others get a vector each, the best first, while there is room. Without a threshold what is left then turns
    vectors into text, the best first. A part that does not fit is passed over; of equal scores the earlier is the
    better. opening: what the first part of a document that becomes text takes besides, for its title; (documents,).
    room: None for no limit.
    """
    ledger = _Ledger(parts, opening, math.inf if room is None else room)
    order = sorted(range(len(parts)), key=lambda at: -parts[at].score)
    relevant = order[:1] if threshold is None else [at for at in order if parts[at].score >= threshold]
    for at in relevant:
        ledger.turn(at, Form.TEXT)
    for at in order:
        if ledger.forms[at] is Form.NOTHING:
            ledger.turn(at, Form.VECTOR)
    for at in order if threshold is None else ():
        if ledger.forms[at] is Form.VECTOR:
            ledger.turn(at, Form.TEXT)
    return tuple(ledger.forms)


class _Ledger:
    """The forms so far, and what is left of the room."""

    def __init__(self, parts: Sequence[Part], opening: Sequence[int], room: float) -> None:
        self.forms = [Form.NOTHING] * len(parts)
        self._parts, self._opening, self._room = parts, opening, room
        self._opened: set[int] = set()

    def turn(self, at: int, form: Form) -> None:
        """Give a part this form if there is room for it."""
        part, cost = self._parts[at], 1
        if form is Form.TEXT:
            cost = part.cost + (0 if part.document in self._opened else self._opening[part.document])
        cost -= self.forms[at] is Form.VECTOR
        if cost > self._room:
            return
        self._room -= cost
        self.forms[at] = form
        if form is Form.TEXT:
            self._opened.add(part.document)


@dataclass(frozen=True, slots=True)
class Softened:
    """A document with the soft tokens of its pieces. embeddings: (pieces, d_model). stretches: what each stands for, as
    `stretches_of` gives it; () where that cannot be told."""

    extract: Extract
    embeddings: npt.NDArray[np.float32]
    stretches: tuple[Stretches, ...]

    def whole(self, generator: str) -> SoftTokens:
        """All of its soft tokens, and no text."""
        spans = tuple(Span(some[0][0], some[-1][1]) for some in self.stretches)
        return SoftTokens(self.embeddings, self.extract.source, generator, self.extract.index, spans)


def stretches_of(extract: Extract, offsets: Sequence[Offsets]) -> tuple[Stretches, ...]:
    """For each piece, offsets in `extract.text`, what it holds of the source: one stretch, or several where an earlier
    compressor removed what lies between. A piece of nothing but a title stands at the document's beginning."""
    kept = _kept_stretches(extract)
    return tuple(
        tuple(
            (source + max(start - first, 0), source + min(end - first, length))
            for first, source, length in kept
            if first < end and first + length > start
        )
        or ((0, 0),)
        for start, end in offsets
    )


def _kept_stretches(extract: Extract) -> list[tuple[int, int, int]]:
    """Of each kept stretch where it begins in `extract.text` and in the source, and its length."""
    text, found, place = extract.source.text, [], 0
    last: int | None = None
    for start, end in extract.slices():
        between = indentation(text, 0, start) if last is None else joiner(text, last, start, extract.elision)
        place += len(between)
        found.append((place, start, end - start))
        place, last = place + end - start, end
    return found


def parts_of(number: int, document: Softened, scored: Piece) -> list[Part]:
    """The document's pieces with the policy's scores. number: of the document. scored: what the policy made of it.

    A piece has the best score of the units that it touches, minus infinity without any. Raises InputError for vectors
    that do not say what they stand for, and for a score that is not a number.
    """
    index = document.extract.index
    if len(document.stretches) != len(document.embeddings):
        raise InputError(
            f"the vectors of document {index} do not say which part of it each stands for, so none can be expanded; "
            "build the store with VectorStore, or pass encoder= in its place"
        )
    units = list(scored.kept_units()) if isinstance(scored, Extract) else []
    if odd := [unit for unit in units if math.isnan(unit.score)]:
        raise InputError(
            f"document {index} has a score that is not a number at {odd[0].start}:{odd[0].end}; look at the compressor "
            "given as expand="
        )
    return [Part(number, some, _best(units, some)) for some in document.stretches]


def _best(units: Sequence[Span], stretches: Stretches) -> float:
    touched = (unit.score for unit in units for start, end in stretches if unit.start < end and unit.end > start)
    return max(touched, default=-math.inf)


class Choice:
    """The forms of a context's pieces within any room. parts: of all documents, in order. threshold: see `chosen`."""

    def __init__(
        self,
        parts: Sequence[Part],
        documents: Sequence[Softened],
        counter: TokenCounter,
        *,
        threshold: float | None,
    ) -> None:
        self._documents, self._threshold = documents, threshold
        texts = [
            " ".join(documents[part.document].extract.source.text[a:b] for a, b in part.stretches) for part in parts
        ]
        titles = [DOCUMENT_SEPARATOR + title_line(each.extract) for each in documents]
        # with the space before it: byte-pair tokenizers make it part of the word
        counts = counter.count([*(f" {text}" for text in texts), *titles])
        self._parts = [replace(part, cost=cost) for part, cost in zip(parts, counts, strict=False)]
        self._opening = counts[len(parts) :]

    def pieces(self, room: int | None, generator: str) -> list[Piece]:
        """One a document. Raises BudgetError without room where nothing says which score is worth a text."""
        if room is None and self._threshold is None:
            raise BudgetError("the compressor given as expand= only ranks, so a budget must say how much goes as text")
        forms = iter(chosen(self._parts, opening=self._opening, room=room, threshold=self._threshold))
        parts = [[part for part in self._parts if part.document == number] for number in range(len(self._documents))]
        return [
            assembled(document, some, [next(forms) for _ in some], generator=generator)
            for document, some in zip(self._documents, parts, strict=True)
        ]


def assembled(document: Softened, parts: Sequence[Part], forms: Sequence[Form], *, generator: str) -> Piece:
    """The document with each part in its form."""
    extract, soft = document.extract, [at for at, form in enumerate(forms) if form is Form.VECTOR]
    units = [
        (Span(start, end, part.score), form is Form.TEXT)
        for part, form in zip(parts, forms, strict=True)
        for start, end in part.stretches
        if end > start
    ]
    units += [(unit, False) for unit in extract.removed_units()]
    units.sort(key=lambda pair: (pair[0].start, pair[0].end))
    text = replace(extract, units=tuple(unit for unit, _ in units), kept=tuple(kept for _, kept in units))
    if not soft:
        return text
    spans = tuple(parts[at].span for at in soft)
    return SoftTokens(document.embeddings[soft], extract.source, generator, extract.index, spans, text)


def checked_policy(expand: Compressor) -> ScoringCompressor:
    """Raises InputError for a compressor whose scores cannot be read, as it writes or makes soft tokens."""
    if not isinstance(expand, ScoringCompressor):
        raise InputError(
            f"expand={getattr(expand, 'name', expand)!r:.80} gives no scores to choose by; pass a compressor that "
            "scores, such as 'provence' or 'bm25-sentences'"
        )
    return expand


def relevant_score(policy: ScoringCompressor, scored: Context, threshold: float | None) -> float | None:
    """From which score a unit is worth its text: `threshold`, or the policy's own; None where scores only rank."""
    rules, threshold = policy.rules(scored), policy.threshold if threshold is None else threshold
    if threshold is not None or rules.operating_points is None:
        return rules.default_threshold if threshold is None else threshold
    scores = [unit.score for extract in scored.extracts for unit in extract.kept_units()]
    point = policy.operating_point or DEFAULT_POINT
    return rules.operating_points.threshold(point, len(scores), best=max(scores, default=0.0))
