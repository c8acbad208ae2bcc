"""Read one row of another tool's output: who it is for, its compressed text, and what came of it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.data.questions import Offsets
from ctxprune.errors import InputError
from ctxprune.files import constant, open_text, read_rows

IDS = ("id", "q_id")
QUESTIONS = ("question", "query")
#: Where the compressed text is, the first that is there and not null; a dot goes into an object.
CONTEXTS = {
    "output.refine_result": "FlashRAG, the refiner's text",
    "output.refiner_result": "FlashRAG, older spelling",
    "compressed_prompt": "LLMLingua",
    "pruned_context": "Provence",
    "summary": "RECOMP, abstractive",
    "summaries": "RECOMP, abstractive",
    "sentences": "RECOMP, extractive",
    "compressed": "any",
    "context": "any",
    "contexts": "any",
    "text": "any",
    "documents": "ctxprune results (looked for first where there are offsets), or passages with their text",
    "docs": "BERGEN, passages",
    "ctxs": "DPR and RECOMP, passages",
    "output.prompt": "FlashRAG, the whole prompt: instruction and question are counted too",
    "instruction": "BERGEN, the whole prompt: as above",
    "output.retrieval_result": "FlashRAG without a refiner",
}
_PASSAGE_TEXTS = ("text", "contents", "content")


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """What a ctxprune result says of one document: kept half-open character offsets, and the text they make."""

    index: int
    id: str
    kept: Offsets
    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """One context as another tool left it.

    pieces: its texts in order, documents where the file has offsets. rendered: the whole text of a row with offsets.
    seconds: what compressing took, where the file says. place: file and line, for messages.
    """

    id: str | None
    question: str | None
    pieces: tuple[str | KeptDocument, ...]
    rendered: str | None = None
    seconds: float | None = None
    place: str = ""


def read_compressed(path: str | Path) -> Iterator[Compressed]:
    """The contexts of a JSONL file (.gz too) or a JSON array, in order; JSONL one at a time.

    Rows carry an id (`IDS`) or a question (`QUESTIONS`), and a context under a name of `CONTEXTS`: a string, or a list
    of strings or of passages with a text. Raises InputError naming file, line (or place in the array) and field.
    """
    for place, row in _rows(Path(path)):
        try:
            yield _compressed(row, place)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, row) of either form of file, told by its first character."""
    try:
        with open_text(path) as lines:
            is_array = next((line.lstrip() for line in lines if line.strip()), "").startswith("[")
            lines.seek(0)
            values = json.load(lines, parse_constant=constant) if is_array else []
    except (OSError, ValueError, EOFError, zlib.error, RecursionError) as error:  # ValueError: no JSON, no UTF-8
        raise InputError(f"cannot read {path}: {error}") from None
    if is_array:
        yield from _array(values, path)
    else:
        yield from ((f"{path}:{number}", row) for number, row in read_rows(path))


def _array(values: list[Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise InputError(f"{path}[{number}]: expected a JSON object, got {type(value).__name__}")
        yield f"{path}[{number}]", value


def _compressed(row: dict[str, Any], place: str) -> Compressed:
    field, value = _first(row, ("documents", *CONTEXTS) if _has_offsets(row) else tuple(CONTEXTS))
    if not field:
        looked = ", ".join(CONTEXTS)
        raise InputError(f"no compressed context; it has {', '.join(row) or 'no field'}, looked for {looked}")
    id, question = _name(row), _string(row, QUESTIONS)
    if id is None and question is None:
        raise InputError(f"field {IDS[0]!r} or {QUESTIONS[0]!r} must be there, to tell whose context this is")
    rendered = row.get("text")
    return Compressed(
        id=id,
        question=question,
        pieces=_pieces(value, field),
        rendered=rendered if field == "documents" and isinstance(rendered, str) else None,
        seconds=_seconds(row),
        place=place,
    )


def _has_offsets(row: dict[str, Any]) -> bool:
    documents = row.get("documents")
    return isinstance(documents, list) and any(isinstance(each, dict) and "kept_spans" in each for each in documents)


def _first(row: dict[str, Any], fields: Sequence[str]) -> tuple[str, Any]:
    """The first of the (dotted) fields that is there and not null, with its value; "" when none is."""
    for field in fields:
        value: Any = row
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return field, value
    return "", None


def _name(row: dict[str, Any]) -> str | None:
    field, value = _first(row, IDS)
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise InputError(f"field {field!r} must be a string or a whole number, got {value!r:.80}")
    return None if value is None else str(value)


def _string(row: dict[str, Any], fields: Sequence[str]) -> str | None:
    field, value = _first(row, fields)
    if value is not None and not isinstance(value, str):
        raise InputError(f"field {field!r} must be a string, got {type(value).__name__}: {value!r:.80}")
    return value


def _seconds(row: dict[str, Any]) -> float | None:
    field, value = _first(row, ("seconds.total", "seconds"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"field {field!r} must be a number of seconds from 0 up, got {value!r:.80}")
    return float(value)


def _pieces(value: Any, field: str) -> tuple[str | KeptDocument, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise InputError(f"field {field!r} must be a string or a list, got {type(value).__name__}")
    return tuple(_piece(each, f"{field}[{place}]", place) for place, each in enumerate(value))


def _piece(value: Any, field: str, place: int) -> str | KeptDocument:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise InputError(f"field {field!r} must be a string or an object with a text, got {type(value).__name__}")
    if "shape" in value:
        raise InputError(f"field {field!r} holds soft tokens, which are no text and cannot be compared")
    text = _string(value, _PASSAGE_TEXTS)
    if text is None:
        raise InputError(f"field {field!r} needs one of {', '.join(_PASSAGE_TEXTS)}, has {', '.join(value) or 'none'}")
    if "kept_spans" in value:
        return _kept(value, text, field, place)
    title = _string(value, ("title",))
    return f"{title}\n{text}" if title and text.strip() else text


def _kept(value: dict[str, Any], text: str, field: str, place: int) -> KeptDocument:
    index, score = value.get("index", place), value.get("score")
    if type(index) is not int or index < 0:
        raise InputError(f"field '{field}.index' must be a whole number from 0 up, got {index!r:.80}")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise InputError(f"field '{field}.score' must be a number, got {score!r:.80}")
    return KeptDocument(index, _name(value) or "", _spans(value["kept_spans"], f"{field}.kept_spans"), text, score)


def _spans(value: Any, field: str) -> Offsets:
    if not isinstance(value, list):
        raise InputError(f"field {field!r} must be a list, got {type(value).__name__}")
    spans = []
    for place, each in enumerate(value):
        start, end = (each.get("start"), each.get("end")) if isinstance(each, dict) else (None, None)
        if type(start) is not int or type(end) is not int or not 0 <= start <= end:
            raise InputError(f"field '{field}[{place}]' must have whole numbers 0 <= start <= end, got {each!r:.80}")
        spans.append((start, end))
    return tuple(spans)
