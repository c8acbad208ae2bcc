"""What came of one context: before and after, token counts, seconds, and the one shape that every front end speaks."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from ctxprune.errors import InputError
from ctxprune.prompt import piece_text, readable_text, same_text
from ctxprune.select import ORIGINAL
from ctxprune.types import Context, Document, Extract, Faithfulness, Piece, SoftTokens, Span, Summary

Status: TypeAlias = Literal["compressed", "passthrough", "degraded"]
STAGES = ("tokenize", "infer", "select", "total")


class Scores(Protocol):
    """Scores that another choice can be made from."""

    def choose(
        self, *, budget: int | None, threshold: float | None, operating_point: str | None
    ) -> list[CompressionResult]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionResult:
    """One context, before and after compression.

    status: "compressed" when text was removed or rewritten, "passthrough" when nothing was (white space and the order
    of documents do not count), "degraded" when a compressor failed and the original stands in; `reason` explains the
    last two. `warnings` say when a context was emptied, or came out whole though it is long. A kept span that scores
    below the threshold is a companion of another, or was forced (`min_keep`, `protect`).
    tokens_before, tokens_after: counted by `tokenizer` over the prompt text, titles and separators included; `exact` is
    False when that tokenizer only estimates the generator's. budget: what `tokens_after` was to stay within.
    seconds: by stage, of the whole call: contexts that were compressed in one batch share these figures.
    scores: of every unit, kept or not, for `at`; None where there are none. `str(result)` is its `text`.
    """

    before: Context
    after: Context
    compressor: str
    status: Status
    tokens_before: int
    tokens_after: int
    tokenizer: str
    exact: bool
    reason: str | None = None
    budget: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    scores: Scores | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        """One line, whatever the length of the texts."""
        kept = sum(bool(piece_text(piece)) or isinstance(piece, SoftTokens) for piece in self.after.pieces)
        return (
            f"<CompressionResult {self.status} by {self.compressor}: {self.tokens_before} -> {self.tokens_after} "
            f"tokens, {kept} of {len(self.before.pieces)} documents>"
        )

    def at(
        self, *, threshold: float | None = None, budget: int | None = None, operating_point: str | None = None
    ) -> CompressionResult:
        """The result with another threshold, budget or operating point, from the scores and without the model.

        What an earlier choice removed can come back. Only the last compressor of a pipeline chooses again; with none of
        the three its own default holds. Raises InputError where nothing was scored (summaries, soft tokens, a failed
        compressor, a result that was read from JSON), and what `Pipeline.run` raises for such limits.
        """
        if self.scores is None:
            raise InputError(
                f"this result of {self.compressor} carries no scores to choose by (status {self.status}); run the "
                "pipeline again with the other limits"
            )
        [result] = self.scores.choose(budget=budget, threshold=threshold, operating_point=operating_point)
        return result

    @property
    def text(self) -> str:
        """The text for the prompt, all documents joined; soft tokens have none and are skipped."""
        return readable_text(self.after)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.after.warnings

    @property
    def model(self) -> str:
        """The model that scored the context where a compressor chooses among several, else ""."""
        return self.after.model

    @property
    def over_budget(self) -> bool:
        """True when a budget was given and could not be met."""
        return self.budget is not None and self.tokens_after > self.budget

    @property
    def ratio(self) -> float:
        """tokens_before / tokens_after; 4.0 means four times shorter.

        An emptied context counts as one token, so that the ratio stays finite; 1.0 when there was nothing before.
        """
        return self.tokens_before / max(self.tokens_after, 1) if self.tokens_before else 1.0

    def to_dict(self, *, spans: bool = True) -> dict[str, Any]:
        """The result as JSON values (`json.dumps(..., allow_nan=False)` works): offsets in characters, `documents` in
        input order, `text` as the prompt has it. A score that is missing or infinite is null; an absent id, model,
        reason, budget or warning has no key. spans: False leaves the spans out, which may be many.
        """
        row: dict[str, Any] = {
            "id": self.after.id or None,
            "query": self.after.query,
            "compressor": self.compressor,
            "model": self.after.model or None,
            "status": self.status,
            "reason": self.reason,
            "documents": [
                _document(piece, spans=spans) for piece in sorted(self.after.pieces, key=lambda piece: piece.index)
            ],
            "text": self.text,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "tokenizer": self.tokenizer,
            "exact": self.exact,
            "budget": self.budget,
            "over_budget": None if self.budget is None else self.over_budget,
            "warnings": list(self.warnings) or None,
            "seconds": {stage: self.seconds.get(stage, 0.0) for stage in STAGES},
        }
        return {key: value for key, value in row.items() if value is not None}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], documents: Sequence[Document]) -> CompressionResult:
        """Read what `to_dict` wrote.

        documents: those that were compressed, in order, because a row does not hold the removed text. The result can be
        shown and measured, but it has no scores for `at`. Raises InputError for a row without spans or another field,
        and for one whose texts are not of these documents.
        """
        try:
            pieces = [_piece(each, documents) for each in row["documents"]]
            query, name = row["query"], row.get("id", "")
            after = Context(
                query, _arranged(pieces, row["text"]), name, tuple(row.get("warnings", ())), row.get("model", "")
            )
            given: dict[str, Any] = {field: row[field] for field in _PLAIN}
            given |= {field: row.get(field) for field in ("reason", "budget")}
            return cls(
                before=Context.of(query, documents, id=name),
                after=after,
                seconds=dict(row.get("seconds", {})),
                **given,
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"this is no result with spans ({error!r:.80}); see docs/result.schema.json for its fields"
            ) from None

    def to_html(self) -> str:
        """A fragment of HTML that shows what was kept and what was removed; no script, nothing loaded."""
        from ctxprune.html import render_html  # most results are never shown

        return render_html(self)

    def _repr_html_(self) -> str:
        return self.to_html()


#: Fields that are the same in a row and in a result.
_PLAIN = ("compressor", "status", "tokens_before", "tokens_after", "tokenizer", "exact")


def _piece(row: Mapping[str, Any], documents: Sequence[Document]) -> Piece:
    index = row["index"]
    if "sources" in row:
        names = [(source["id"], source["title"]) for source in row["sources"]]
        sources = tuple(each for each in documents if (each.id, each.title) in names)
        checked: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in row.get("faithfulness", {}).items()
        }
        return Summary(row["text"], sources, index, Faithfulness(**checked) if checked else None)
    source = documents[index]
    if "data" in row:
        values = np.frombuffer(base64.b64decode(row["data"]), "<f4").reshape(row["shape"])
        expanded = _extract(row, source) if "kept_spans" in row else None
        spans = _spans(row.get("soft_spans", ()))
        return SoftTokens(values.astype(np.float32), source, row["generator"], index, spans, expanded)
    return _extract(row, source)


def _extract(row: Mapping[str, Any], source: Document) -> Extract:
    index = row["index"]
    marked = [(unit, True) for unit in row["kept_spans"]] + [(unit, False) for unit in row["removed_spans"]]
    marked.sort(key=lambda pair: (pair[0]["start"], pair[0]["end"]))
    units = _spans(unit for unit, _ in marked)
    extract = Extract(source, units, tuple(kept for _, kept in marked), score=row["score"], index=index)
    extract = replace(extract, elision=_elision(extract, row["text"]))
    if extract.text != row["text"]:
        raise InputError(
            f"document {index} of the result is no text of {source.text!r:.60}; give the documents it was of"
        )
    return extract


def _spans(rows: Iterable[Mapping[str, Any]]) -> tuple[Span, ...]:
    return tuple(Span(row["start"], row["end"], _score(row["score"])) for row in rows)


def _score(value: float | None) -> float:
    """The score, or None where it is missing or infinite: JSON has no number for that."""
    return math.nan if value is None else value


def _elision(extract: Extract, text: str) -> str:
    """The mark between kept stretches; "" when there is none."""
    slices = extract.slices()
    if extract.text == text or len(slices) < 2:
        return ""
    start, stop = slices[1]
    first = replace(extract, units=(Span(*slices[0]),), kept=(True,)).text
    rest = text[len(first) :]
    return rest[: rest.find(extract.source.text[start:stop])].strip()


def _arranged(pieces: Sequence[Piece], text: str) -> tuple[Piece, ...]:
    """The pieces in the order, and with the titles, that the result's text has."""
    ranked = sorted(pieces, key=lambda piece: -(piece.score or 0.0) if isinstance(piece, Extract) else 0.0)
    for order in (pieces, ranked):
        for titled in (True, False):
            tried = tuple(replace(each, titled=titled) if isinstance(each, Extract) else each for each in order)
            if readable_text(Context("", tried)) == text:
                return tried
    raise InputError("the text of the result is not that of its documents; give those that it was made of")


def _document(piece: Piece, *, spans: bool) -> dict[str, Any]:
    if isinstance(piece, Summary):
        return _summary(piece)
    row = {
        "index": piece.index,
        "id": piece.source.id,
        "title": piece.source.title,
        "text": "",
        "score": _number(piece.source.score),
        "dropped": False,
    }
    if isinstance(piece, SoftTokens):
        row |= {"generator": piece.generator} | _array(piece)
        if piece.spans and spans:
            row |= {"soft_spans": span_rows(piece.spans)}
        return row if piece.expanded is None else row | _extracted(piece.expanded, spans=spans) | {"dropped": False}
    return row | _extracted(piece, spans=spans)


def _extracted(piece: Extract, *, spans: bool) -> dict[str, Any]:
    row = {"text": piece.text, "score": _number(piece.score), "dropped": piece.dropped}
    if not spans:
        return row
    return row | {"kept_spans": span_rows(piece.kept_units()), "removed_spans": span_rows(piece.removed_units())}


def _summary(piece: Summary) -> dict[str, Any]:
    sources = [{"id": source.id, "title": source.title, "score": _number(source.score)} for source in piece.sources]
    row = {"index": piece.index, "id": "", "title": "", "text": piece.text, "score": None}
    checked = {} if piece.faithfulness is None else {"faithfulness": asdict(piece.faithfulness)}
    return row | {"dropped": not piece.text.strip(), "sources": sources} | checked


def _array(piece: SoftTokens) -> dict[str, Any]:
    """Row-major little-endian float32 bytes in base64, so that any language can read them."""
    values = np.ascontiguousarray(piece.embeddings, dtype="<f4")
    data = base64.b64encode(values.tobytes()).decode("ascii")
    return {"shape": list(values.shape), "dtype": "float32", "data": data}


def span_rows(units: Iterable[Span]) -> list[dict[str, Any]]:
    """Units in the form of a result's dictionary."""
    return [{"start": unit.start, "end": unit.end, "score": _number(unit.score)} for unit in units]


def _number(score: float | None) -> float | None:
    """A plain float (numpy's are not JSON), None where JSON has no word for the value."""
    return None if score is None or not math.isfinite(score) else float(score)


def judged(before: Context, after: Context, budget: int | None) -> tuple[Status, str | None]:
    """The status of a context that a compressor has read, and the reason where nothing was removed."""
    if changed(before, after):
        return "compressed", None
    if not before.pieces:
        return "passthrough", "no documents"
    if not readable_text(before) and not _soft_tokens(before):
        return "passthrough", "the context was empty"
    if any(ORIGINAL in warning for warning in after.warnings):
        return "passthrough", "nothing passed the threshold, and on_empty='original' then keeps everything"
    if budget is None:
        return "passthrough", "nothing to remove at this threshold"
    return "passthrough", f"nothing to remove for a budget of {budget} tokens"


def changed(before: Context, after: Context) -> bool:
    """Whether anything was removed, rewritten or turned into soft tokens; white space and the order do not count."""
    if _soft_tokens(before) != _soft_tokens(after):
        return True
    texts = [sorted(filter(None, map(piece_text, context.pieces))) for context in (before, after)]
    return len(texts[0]) != len(texts[1]) or not all(map(same_text, *texts))


def was_emptied(before: Context, after: Context) -> bool:
    """Whether there was something to read and now there is nothing."""
    return _readable(before) and not _readable(after)


def _readable(context: Context) -> bool:
    return any(isinstance(piece, SoftTokens) or piece_text(piece) for piece in context.pieces)


def _soft_tokens(context: Context) -> list[int]:
    """The identities of the embeddings: equal only when they were passed through."""
    return [id(piece.embeddings) for piece in context.pieces if isinstance(piece, SoftTokens)]
