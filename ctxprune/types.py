"""The values that travel between retriever, compressors and generator: immutable, with offsets into the source text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.documents import Document as Document
from ctxprune.documents import listed
from ctxprune.errors import InputError


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open character offsets `[start, end)` into a document's text, and the unit's score (higher = keep)."""

    start: int
    end: int
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Extract:
    """What is kept of one document, word for word: every kept text is `source.text[start:end]`.

    units: sentences or words, in order and without overlap. kept: one flag a unit. score: the document's relevance as
    the last compressor saw it (None: not judged). index: the document's place in the input. titled: whether the title
    goes into the prompt when any of the text does. elision: what marks a gap between kept stretches; "" for nothing.
    Raises InputError when units overlap, leave the text, or differ in number from `kept`.
    """

    source: Document
    units: tuple[Span, ...]
    kept: tuple[bool, ...]
    score: float | None = None
    index: int = 0
    titled: bool = True
    elision: str = ""

    def __post_init__(self) -> None:
        if len(self.units) != len(self.kept):
            raise InputError(
                f"Extract needs one kept flag a unit, got {len(self.units)} units and {len(self.kept)} flags"
            )
        if any(left.end > right.start for left, right in pairwise(self.units)):
            raise InputError("Extract.units must be in order and must not overlap")
        if any(not 0 <= unit.start <= unit.end <= len(self.source.text) for unit in self.units):
            raise InputError(f"Extract.units must lie within the text of {len(self.source.text)} characters")

    @property
    def dropped(self) -> bool:
        """True when nothing of the document is kept."""
        return not any(self.kept)

    def kept_units(self) -> Iterator[Span]:
        return (unit for unit, kept in zip(self.units, self.kept, strict=True) if kept)

    def removed_units(self) -> Iterator[Span]:
        return (unit for unit, kept in zip(self.units, self.kept, strict=True) if not kept)

    def slices(self) -> list[tuple[int, int]]:
        """Kept stretches as (start, end): kept units with no removed unit between them make one stretch."""
        stretches: list[tuple[int, int]] = []
        previous_kept = False
        for unit, kept in zip(self.units, self.kept, strict=True):
            if kept and previous_kept:
                stretches[-1] = (stretches[-1][0], unit.end)
            elif kept:
                stretches.append((unit.start, unit.end))
            previous_kept = kept
        return stretches

    @property
    def text(self) -> str:
        """Kept stretches joined by what they lost: a line break with its indentation, a space or nothing (`joiner`).

        The first stretch keeps the indentation of its line too.
        """
        text, parts, last = self.source.text, [], None
        for start, end in self.slices():
            parts.append(indentation(text, 0, start) if last is None else joiner(text, last, start, self.elision))
            parts.append(text[start:end])
            last = end
        return "".join(parts)


def joiner(text: str, start: int, end: int, elision: str = "") -> str:
    """What stands for the removed `text[start:end]` between two kept stretches.

    If a line ended there, its break and the indentation of the line that goes on at `end`, so that nested lists, YAML
    and code still nest, however their lines end. Else a space if there was any white space or if two words would fuse,
    else nothing (so scripts without spaces get none). `elision`, if any, stands on a line of its own, else between
    spaces.
    """
    gap = text[start:end]
    if (last := _last_break(text, start, end)) is not None:
        line = text[slice(*last)]
        return (f"{line}{elision}{line}" if elision else line) + indentation(text, start, end)
    if elision and gap.strip():
        return f" {elision} "
    if any(character.isspace() for character in gap):
        return " "
    before, after = text[start - 1 : start], text[end : end + 1]
    return " " if before.isascii() and after.isascii() and before.isalnum() and after.isalnum() else ""


def indentation(text: str, start: int, end: int) -> str:
    """The blanks and tabs that begin the line of `text[end]`, as far as they stand in `text[start:end]`."""
    last = _last_break(text, start, end)
    first = line = start if last is None else last[1]
    while first < end and text[first] in " \t":
        first += 1
    return text[line:first]


#: What ends a line in texts, also of old files (CR), of mainframes (NEL) and of word processors (U+2028, U+2029).
_BREAKS = "\n\r\x85\u2028\u2029"


def _last_break(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Where the last line in `text[start:end]` that ends there ends: the break, CR and LF being one; None for none."""
    place = max(text.rfind(mark, start, end) for mark in _BREAKS)
    if place < 0:
        return None
    return (place - 1 if text[place] == "\n" and text[start:place].endswith("\r") else place), place + 1


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How much of a summary stands in its sources: shares in [0, 1], 1.0 where there is nothing to look for.

    words, pairs: of its content words, and of neighbouring ones. numbers, names: of its numbers (by value) and
    capitalised names. unsupported_numbers, unsupported_names: those not found, as the summary writes them.
    """

    words: float
    pairs: float
    numbers: float
    names: float
    unsupported_numbers: tuple[str, ...] = ()
    unsupported_names: tuple[str, ...] = ()

    def __str__(self) -> str:
        shares = {"words": self.words, "word pairs": self.pairs, "numbers": self.numbers, "names": self.names}
        found = ", ".join(f"{share:.0%} of {what}" for what, share in shares.items())
        missing = ", ".join([*self.unsupported_numbers, *self.unsupported_names])
        return f"in the sources: {found}" + (f"; not there: {missing}" if missing else "")


@dataclass(frozen=True, slots=True)
class Summary:
    """Abstractive text made from `sources`. The empty string is legal and means "nothing here helps".

    faithfulness: None when nobody compared the text with its sources.
    """

    text: str
    sources: tuple[Document, ...]
    index: int = 0
    faithfulness: Faithfulness | None = None


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """Input embeddings that stand for a document, or for parts of it; of use only to the generator named here.

    embeddings: (n_tokens, d_model) float array. generator: the model's name, with "@" and a revision where that is
    known. spans: for each embedding the part of the text that it stands for, in order; () where they stand for all of
    it together. expanded: the parts that stand between them word for word, its units not kept where there is none.
    Raises InputError for spans that differ in number from the embeddings, are out of order or leave the text, and for
    expanded text of another document or without spans.
    """

    embeddings: npt.NDArray[np.float32]
    source: Document
    generator: str
    index: int = 0
    spans: tuple[Span, ...] = ()
    expanded: Extract | None = None

    def __post_init__(self) -> None:
        if self.spans and len(self.spans) != len(self.embeddings):
            raise InputError(
                f"SoftTokens needs one span an embedding, got {len(self.spans)} spans and {len(self.embeddings)} "
                "embeddings"
            )
        if any(left.end > right.start for left, right in pairwise(self.spans)):
            raise InputError("SoftTokens.spans must be in order and must not overlap")
        if any(not 0 <= span.start <= span.end <= len(self.source.text) for span in self.spans):
            raise InputError(f"SoftTokens.spans must lie within the text of {len(self.source.text)} characters")
        if self.expanded is not None and (not self.spans or self.expanded.source != self.source):
            raise InputError("SoftTokens.expanded must be of the same document, and needs spans to stand between")

    @property
    def runs_on(self) -> bool:
        """Whether it stands for a document as a whole, so that it runs on into such tokens of the next document."""
        return self.expanded is None and len(self.spans) < 2

    def runs(self) -> list[npt.NDArray[np.float32] | str]:
        """What it puts into a prompt, in the document's order: runs of embeddings, (n, d_model), and verbatim text."""
        if self.expanded is None:
            return [self.embeddings]
        text = self.source.text
        parts: list[tuple[int, npt.NDArray[np.float32] | str]] = [
            (start, text[start:end]) for start, end in self.expanded.slices()
        ]
        parts += [(span.start, self.embeddings[place : place + 1]) for place, span in enumerate(self.spans)]
        runs: list[npt.NDArray[np.float32] | str] = []
        for _, part in sorted(parts, key=lambda part: part[0]):
            last = runs[-1] if runs else ""
            if isinstance(part, str) or isinstance(last, str):
                runs.append(part)
            else:
                runs[-1] = np.concatenate([last, part])
        return runs


Piece: TypeAlias = Extract | Summary | SoftTokens


@dataclass(frozen=True, slots=True, init=False)
class Context:
    """A question and what is known for it. `warnings` says what a compressor had to give up on the way.

    pieces: retrieved documents in any form that `Document.of` reads, each kept whole, or what a compressor made of
    them.
    model: the name of the model that scored it, set by compressors that choose among several.
    """

    query: str
    pieces: tuple[Piece, ...]
    id: str = ""
    warnings: tuple[str, ...] = ()
    model: str = ""

    def __init__(
        self, query: str, pieces: Iterable[object], id: str = "", warnings: tuple[str, ...] = (), model: str = ""
    ) -> None:
        if not isinstance(query, str):
            raise InputError(f"the query must be a string, got {type(query).__name__}: {query!r:.80}")
        object.__setattr__(self, "query", query)
        object.__setattr__(self, "pieces", tuple(_piece(index, each) for index, each in enumerate(listed(pieces))))
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "warnings", warnings)
        object.__setattr__(self, "model", model)

    @classmethod
    def of(cls, query: str, documents: Iterable[object], *, id: str = "") -> Context:
        """Wrap retrieved documents, each kept whole; see `Document.of` for what a document may be."""
        return cls(query, documents, id)

    @property
    def extracts(self) -> tuple[Extract, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Extract))

    def warn(self, message: str) -> Context:
        """A copy that carries one more warning; the same message is kept once."""
        return self if message in self.warnings else replace(self, warnings=(*self.warnings, message))


def _piece(index: int, value: object) -> Piece:
    if isinstance(value, Extract | Summary | SoftTokens):
        return value
    try:
        return whole(Document.of(value), index=index)
    except InputError as error:
        raise InputError(f"document {index}: {error}") from None


def whole(document: Document, *, index: int = 0) -> Extract:
    """The document as one kept unit (none for an empty text), scored as the retriever scored it."""
    units = (Span(0, len(document.text)),) if document.text else ()
    return Extract(document, units, (True,) * len(units), score=document.score, index=index)


@runtime_checkable
class Compressor(Protocol):
    """Contexts in, contexts out; so compressors chain and interchange freely.

    budget: generator tokens for the whole context, titles and separators included. threshold: units that score below
    are removed. Either may be None: the compressor's own default then holds.
    """

    @property
    def name(self) -> str: ...

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a compressor says of itself: what it needs and gives, and what holds where a call names nothing.

    needs_query: False where it does not look at the question. gives: what comes out; soft tokens are for the generator
    alone, so nothing can follow. scores: it scores units and chooses among them, so that one reading serves every
    setting. common_rules: the choice is that of every scoring compressor, by scores, policy and limits alone.
    default_threshold: None where scores only rank, or there are none; ranks_only tells the two apart.
    operating_points, policy: a `ctxprune.calibration.OperatingPoints` and a `ctxprune.select.Policy`, if any.
    companions: whether kept units bring theirs; None where units have none. threshold, operating_point, budget: what it
    was built with. counts: it measures budgets, with `counter` (None: the bundled tokenizer). floor: what a unit must
    score to fill up a budget. language, units, rounding, other_languages, reads (options that decide what its model
    reads, by name), parts (models by role): what decides scores.
    """

    needs_query: bool = True
    gives: Literal["text", "soft tokens"] = "text"
    scores: bool = False
    common_rules: bool = False
    default_threshold: float | None = None
    ranks_only: bool = False
    operating_points: Any = None
    policy: Any = None
    companions: bool | None = None
    threshold: float | None = None
    operating_point: str | None = None
    budget: int | None = None
    counts: bool = False
    counter: TokenCounter | None = None
    language: str | None = None
    units: str = "auto"
    rounding: str | None = None
    floor: float | None = None
    other_languages: str | None = None
    reads: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, object] = field(default_factory=dict)


#: What a compressor without `about` may say by attributes of these names.
_TOLD = (
    *("needs_query", "default_threshold", "operating_points", "policy", "threshold", "operating_point", "budget"),
    *("counter", "language", "units", "rounding"),
)
_ROLES = ("model", "scorer", "embedder")


def about_of(compressor: object) -> About:
    """What it says of itself; of one that only has `name` and `compress`, such as a plug-in's, what its attributes do.

    A plug-in that may run on an empty question has `needs_query = False`, one whose scores only rank
    `default_threshold = None`, one that gives soft tokens `gives_soft_tokens = True`.
    """
    if isinstance(about := getattr(compressor, "about", None), About):
        return about
    told: dict[str, Any] = {name: getattr(compressor, name) for name in _TOLD if hasattr(compressor, name)}
    parts = {role: part for role in _ROLES if (part := getattr(compressor, role, None)) is not None}
    return About(
        **told,
        gives="soft tokens" if getattr(compressor, "gives_soft_tokens", False) else "text",
        ranks_only=told.get("default_threshold", 0.0) is None,
        counts="counter" in told,
        parts=parts,
    )


class TokenCounter(Protocol):
    """Counts a text's tokens. `exact` is False when `name` stands in for the unknown target model's tokenizer."""

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not counted."""
        ...
