"""What the framework adapters share: documents in, compressed documents with a report for their metadata out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel

from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.documents import listed
from ctxprune.errors import InputError, check_choice
from ctxprune.pipeline import OnError, Pipeline
from ctxprune.plain import finite, whole
from ctxprune.prompt import same_text
from ctxprune.result import CompressionResult, span_rows
from ctxprune.text import UnitKind
from ctxprune.text.language import checked_language
from ctxprune.tokens import load_counter
from ctxprune.types import Compressor, Context, Document, Extract, Piece, SoftTokens, Summary, TokenCounter, about_of

if TYPE_CHECKING:
    from ctxprune.calibration import Calibration


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compressed:
    """One document as it comes out.

    indices: the places in the input that it was made from: one, or several for a summary. score: its relevance as this
    compressor judged it; None when the compressor judges no documents. report: JSON values for the metadata.
    """

    indices: tuple[int, ...]
    text: str
    score: float | None
    report: dict[str, Any]


class Adapter:
    """A text compressor with the options that every framework adapter offers. Safe to call from several threads.

    compressor: a name, checkpoint folder or hub id (see `ctxprune.load`), or a compressor. threshold, operating_point
    (in place of a threshold, where the compressor has such points), budget: None for the compressor's own; the budget
    is of all documents of a call together. top_n: leave only the most relevant documents (the first, for a compressor
    that does not read the query), most relevant first; it comes before the budget is spent. tokenizer: a token counter
    or its name (see `ctxprune.load_counter`). calibration: see `ctxprune.load`. language: of the documents, e.g. "de";
    None: each one's is guessed. units: what to choose among ("sentences", "lines", "records", "paragraphs"); None: by
    the shape of the text. drop_empty: leave out documents of which nothing is kept. on_error: see `ctxprune.Pipeline`.
    Every option is checked here. Raises InputError, BudgetError and whatever loading the compressor raises.
    """

    def __init__(
        self,
        compressor: str | Compressor,
        *,
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        top_n: int | None = None,
        tokenizer: str | TokenCounter | None = None,
        calibration: str | Path | Calibration | None = None,
        language: str | None = None,
        units: UnitKind | None = None,
        drop_empty: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        counter = load_counter(tokenizer) if isinstance(tokenizer, str) else tokenizer
        check_top_n(top_n)
        check_choice("drop_empty", drop_empty, (True, False))
        self.compressor = loaded_compressor(compressor, counter, calibration, language, units)
        self.top_n = top_n
        self._limits: dict[str, Any] = {"threshold": threshold, "operating_point": operating_point, "budget": budget}
        self.counter, self.drop_empty, self.on_error = counter, drop_empty, on_error
        self._pipeline(top_n).run([], **self._limits)
        if isinstance(self.compressor, ScoringCompressor):
            # nothing to read, but every option is looked at
            self.compressor.compress([], **self._limits)

    @classmethod
    def of(cls, options: BaseModel) -> Adapter:
        """With the options that are fields of a framework's model, under the same names. Raises what building does."""
        return cls(**{name: getattr(options, name) for name in inspect.signature(cls).parameters})

    @property
    def needs_query(self) -> bool:
        return about_of(self.compressor).needs_query

    def compress(self, query: str, documents: Sequence[Document], *, top_n: int | None = None) -> list[Compressed]:
        """The documents in their order (with top_n, or where the compressor ranks: the most relevant first).

        top_n: None for the adapter's own. Raises InputError for an empty query where the compressor needs one (not
        without documents), for a top_n below 1, and for soft tokens, which are no text.
        """
        check_top_n(top_n)
        top_n = self.top_n if top_n is None else top_n
        if not documents:
            return []
        chosen = documents if top_n is None or self.needs_query else documents[:top_n]
        context = Context.of(query, chosen)
        pipeline = self._pipeline(top_n)
        outcome = self._compressed(pipeline.run(context, **self._limits), list(chosen), pipeline.counter)
        if top_n is not None and self.needs_query:
            outcome = sorted(outcome, key=_rank)[:top_n]
        return [each for each in outcome if each.text.strip() or not self.drop_empty]

    def _pipeline(self, top_n: int | None) -> Pipeline:
        compressor = self.compressor
        ranked = top_n if self.needs_query else None
        # one with a `compress` of its own is cut to the best documents afterwards
        if ranked is not None and isinstance(compressor, ScoringCompressor) and about_of(compressor).common_rules:
            compressor = BestDocuments(compressor, ranked)
        return Pipeline([compressor], counter=self.counter, on_error=self.on_error)

    def _compressed(
        self, result: CompressionResult, documents: list[Document], counter: TokenCounter
    ) -> list[Compressed]:
        pieces = result.after.pieces
        if any(isinstance(piece, SoftTokens) for piece in pieces):
            raise InputError(f"{result.compressor} returns soft tokens, not text; {_SOFT_TOKENS}")
        sources = [_indices(piece, documents) for piece in pieces]
        before = counter.count([document.text for document in documents])
        after = counter.count([_text(piece) for piece in pieces])
        judged = self.needs_query and result.status != "degraded"
        return [
            Compressed(
                indices,
                text=_text(piece),
                score=finite(piece.score) if judged and isinstance(piece, Extract) else None,
                report={
                    **_shared_report(result, piece),
                    **_place(piece, indices, documents),
                    "tokens_before": sum(before[index] for index in indices),
                    "tokens_after": tokens,
                },
            )
            for piece, indices, tokens in zip(pieces, sources, after, strict=True)
        ]


class BestDocuments(ScoringCompressor):
    """Another compressor that leaves only the `n` most relevant documents of a context to choose from."""

    def __init__(self, inner: ScoringCompressor, n: int) -> None:
        self.inner, self.n = inner, n
        self.name = inner.name  # type: ignore[misc]  # the name of each instance is that of what it wraps
        self.default_threshold = inner.default_threshold
        self.operating_points = inner.operating_points
        self.default_companions = inner.default_companions
        super().__init__(
            threshold=inner.threshold,
            operating_point=inner.operating_point,
            budget=inner.budget,
            counter=inner.counter,
            policy=inner.policy,
        )

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return [self._best(context) for context in self.inner.score(contexts)]

    def _best(self, context: Context) -> Context:
        best = {id(piece) for piece in sorted(context.extracts, key=_extract_rank)[: self.n]}
        pieces = (
            replace(piece, kept=(False,) * len(piece.kept))
            if isinstance(piece, Extract) and id(piece) not in best
            else piece
            for piece in context.pieces
        )
        return replace(context, pieces=tuple(pieces))


_SOFT_TOKENS = (
    "only the generator that they were made for can read them, which no framework's LLM does; "
    "use a compressor that returns text"
)


def all_of(kind: type[T], given: object, *, name: str) -> list[T]:
    """What a framework gave as a list of ours, which nobody changes while it is pruned, and which can be read twice.

    Raises InputError for one item that stands alone and for items of another kind.
    """
    items = listed(given, name=name)
    for place, item in enumerate(items):
        if not isinstance(item, kind):
            raise InputError(f"{name}[{place}] must be a {kind.__name__}, got {type(item).__name__}: {item!r:.80}")
    return items


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose dicts, lists and sets are its own, at any depth, so that what a caller writes into what came out
    does not show in what went in. Other values, which may not be made to be copied, are the same objects."""
    return {key: _own(value, {}) for key, value in metadata.items()}


def _own(value: Any, copies: dict[int, Any]) -> Any:
    """copies: by the identity of what they are of, since metadata may hold itself."""
    if type(value) is set:
        return set(value)  # what a set holds cannot change
    if type(value) not in (dict, list) or id(value) in copies:
        return copies.get(id(value), value)
    if isinstance(value, dict):
        fields = copies[id(value)] = dict[Any, Any]()
        fields.update((key, _own(each, copies)) for key, each in value.items())
        return fields
    entries = copies[id(value)] = list[Any]()
    entries.extend(_own(each, copies) for each in value)
    return entries


def check_top_n(top_n: int | None) -> None:
    """Raises InputError for less than one document, and for no whole number of them."""
    if top_n is None:
        return
    if (number := whole(top_n)) is None:
        raise InputError(f"the number of documents must be a whole number, got {top_n!r:.80}; leave it out for all")
    if number < 1:
        raise InputError(f"the number of documents must be at least 1, got {top_n}; leave it out to return them all")


def loaded_compressor(
    compressor: str | Compressor,
    counter: TokenCounter | None,
    calibration: str | Path | Calibration | None,
    language: str | None,
    units: UnitKind | None,
) -> Compressor:
    """The compressor of a name, with its options. Raises InputError for options beside a loaded one, and for xrag."""
    if not isinstance(compressor, str | Compressor):
        raise InputError(f"compressor must be a name or a ctxprune compressor, got {type(compressor).__name__}")
    name = compressor if isinstance(compressor, str) else compressor.name
    if name.lower() == "xrag":
        raise InputError(f"compressor {name!r} returns soft tokens, not text; {_SOFT_TOKENS}")
    if isinstance(compressor, str):
        given = {"counter": counter, "language": checked_language(language), "units": units}
        options = {option: value for option, value in given.items() if value is not None}
        return load(compressor, calibration=calibration, **options)
    for option, value in (("calibration", calibration), ("language", language), ("units", units)):
        if value is not None:
            raise InputError(
                f"{option} goes with a compressor's name, got the loaded {name!r}; pass it to ctxprune.load(...)"
            )
    return compressor


def _text(piece: Piece) -> str:
    return "" if isinstance(piece, SoftTokens) else piece.text


def _rank(compressed: Compressed) -> float:
    """Sorts the most relevant first and those that nobody judged last."""
    return math.inf if compressed.score is None else -compressed.score


def _extract_rank(extract: Extract) -> float:
    return math.inf if extract.score is None or math.isnan(extract.score) else -extract.score


def _indices(piece: Piece, documents: Iterable[Document]) -> tuple[int, ...]:
    """Where the piece's sources stand in the input: by identity, since ids may be missing or double."""
    if not isinstance(piece, Summary):
        return (piece.index,)
    sources = {id(source) for source in piece.sources}
    return tuple(index for index, document in enumerate(documents) if id(document) in sources)


def _shared_report(result: CompressionResult, piece: Piece) -> dict[str, Any]:
    whole = isinstance(piece, Extract) and same_text(piece.text, piece.source.text)
    status = "passthrough" if whole and result.status == "compressed" else result.status
    report = {
        "compressor": result.compressor,
        "status": status,
        "reason": result.reason,
        "tokenizer": result.tokenizer,
        "exact": result.exact,
        "over_budget": None if result.budget is None else result.over_budget,
        "warnings": list(result.warnings) or None,
    }
    return {key: value for key, value in report.items() if value is not None}


def _place(piece: Piece, indices: tuple[int, ...], documents: list[Document]) -> dict[str, Any]:
    if isinstance(piece, Summary):
        return {"sources": [{"index": index, "id": documents[index].id} for index in indices]}
    return {"index": piece.index, "kept_spans": span_rows(piece.kept_units()) if isinstance(piece, Extract) else []}


class CopiesBuiltAnew(BaseModel):
    """For a model whose options are read once, when it is built: pydantic's own copies keep what was built before.

    `copy.replace` comes this way too. Raises, with options that cannot be, what building one raises.
    """

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        options = {name: getattr(copied, name) for name in type(self).model_fields if name in self.model_fields_set}
        return type(self)(**{**options, **update})

    def copy(self, *, include: Any = None, exclude: Any = None, update: Any = None, deep: bool = False) -> Self:
        """As `model_copy`. Raises InputError for `include` and `exclude`, which would leave options out."""
        if include is not None or exclude is not None:
            raise InputError(f"a copy of {type(self).__name__} has all its options; pass update= to change some")
        return self.model_copy(update=update, deep=deep)
