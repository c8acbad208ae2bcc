"""A document as the retriever gave it, read from whatever holds one: strings, dicts, the frameworks' own kinds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from ctxprune.errors import InputError
from ctxprune.plain import as_float, finite


@dataclass(frozen=True, slots=True)
class Document:
    """A passage as the retriever gave it. Never mutated, so `metadata` comes out as it went in.

    score: of any kind of number; nan is as good as None. Raises InputError for a field of another type.
    """

    text: str
    id: str = ""
    title: str = ""
    score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("text", "id", "title"):
            if not isinstance(value := getattr(self, name), str):
                raise InputError(f"Document.{name} must be a string, got {type(value).__name__}: {value!r:.80}")
        if (self.score is not None and type(self.score) is not float) or self.score != self.score:
            object.__setattr__(self, "score", _score(self.score))

    @classmethod
    def of(cls, value: object) -> Document:
        """A document from whatever holds one, told by its fields, so that no framework is imported.

        A Document as it is, a string, a dict with "text", "page_content", "content" or "contents" (and "id", "title",
        "score", "metadata"; its other fields go to the metadata), a document of LangChain, LlamaIndex or Haystack, or
        a (document, score) pair as vector stores return. Title and score are looked up in the metadata too. A
        field that is missing as tables have it (nan, pandas.NA) is as good as none. Raises InputError for anything
        else.
        """
        if isinstance(value, Document):
            return value
        if isinstance(value, str):
            return cls(value)
        if is_scored(value):
            return replace(cls.of(value[0]), score=finite(value[1]))
        if isinstance(value, Mapping):
            return _from_fields(dict(value), rest=True)
        if (fields := _fields_of(value)) is not None:
            return _from_fields(fields)
        raise InputError(
            f"a document must be a string, a dict, a Document, or a LangChain, LlamaIndex or Haystack document, got "
            f"{type(value).__name__}: {value!r:.80}{_ADVICE.get(type(value).__name__, '')}"
        )


def _score(value: object) -> float | None:
    """As a plain float, so that it becomes JSON; None for nan."""
    if (number := as_float(value)) is None:
        raise InputError(f"Document.score must be a number or None, got {value!r:.80}")
    return None if math.isnan(number) else number


def is_scored(value: object) -> TypeGuard[tuple[object, object]]:
    """Whether it is a (document, score) pair, whatever kind of number the score is."""
    return isinstance(value, tuple) and len(value) == 2 and finite(value[1]) is not None


def listed(documents: object, *, name: str = "documents") -> list[Any]:
    """Several documents as a list. Raises InputError for one, and for a table, which would give its columns' names."""
    kind = type(documents).__name__
    if isinstance(documents, str | bytes | bytearray | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"{name} must be a sequence of documents, got one {kind}; wrap it in a list")
    if hasattr(documents, "columns") and hasattr(documents, "to_dict"):
        raise InputError(
            f"{name} must be a sequence of documents, got a {kind}; pass its rows, as pandas' to_dict('records') gives"
        )
    return list(documents)


#: The next step for what is often given in place of text.
_ADVICE = {
    "bytes": "; decode it first",
    "bytearray": "; decode it first",
    "PosixPath": "; pass its read_text()",
    "WindowsPath": "; pass its read_text()",
    "list": "; pass the documents in one list",
}
#: Where dicts and frameworks keep the text.
_TEXT_FIELDS = ("text", "page_content", "content", "contents")
_ID_FIELDS = ("id", "_id", "id_", "node_id")
_METADATA_FIELDS = ("metadata", "meta")
_SCORE_FIELDS = ("score", "relevance_score")


def _fields_of(value: object) -> dict[str, Any] | None:
    """The fields of a framework's document; None when it is none.

    LlamaIndex wraps a node and its score, and its nodes answer `get_content`, for some keep their text elsewhere.
    """
    if (node := getattr(value, "node", None)) is not None and hasattr(value, "score"):
        inner = _fields_of(node)
        return None if inner is None else inner | {"score": getattr(value, "score", None)}
    fields = {
        name: getattr(value, name)
        for name in (*_TEXT_FIELDS[:3], *_ID_FIELDS, *_METADATA_FIELDS, "score")
        if hasattr(value, name)
    }
    if callable(content := getattr(value, "get_content", None)) and "metadata" in fields:
        fields["text"] = content()
    return fields if any(name in fields for name in _TEXT_FIELDS) and _metadata_of(fields) is not None else None


def _metadata_of(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((fields[name] for name in _METADATA_FIELDS if isinstance(fields.get(name), Mapping)), None)


def _from_fields(fields: dict[str, Any], *, rest: bool = False) -> Document:
    """rest: keep in the metadata what no field of a document is made of, so that nothing of a dict is lost."""
    text_key, id_key = _first(fields, _TEXT_FIELDS), _first(fields, _ID_FIELDS)
    text = fields.get(text_key)
    if not isinstance(text, str):
        got = "nothing" if text is None else type(text).__name__
        raise InputError(
            f"a document needs a string under one of {', '.join(_TEXT_FIELDS)}, got {got} with the fields "
            f"{', '.join(map(str, fields)) or '(none)'}"
        )
    unread = _unread(fields, (text_key, id_key)) if rest else {}
    named = {*_TEXT_FIELDS, *_ID_FIELDS, *_METADATA_FIELDS, *_SCORE_FIELDS, "title"}
    others = {key: each for key, each in fields.items() if key not in named}
    metadata = {**unread, **(_metadata_of(fields) or {}), **others}
    title = metadata.get("title") if _is_missing(fields.get("title")) else fields["title"]
    scores = (finite(place.get(key)) for place in (fields, metadata) for key in _SCORE_FIELDS)
    return Document(
        text,
        id=str(fields.get(id_key, "")),
        title=text_of(title),
        score=next((score for score in scores if score is not None), None),
        metadata=metadata,
    )


def _first(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of the names that holds something; "" where none does."""
    return next((name for name in names if not _is_missing(fields.get(name))), "")


def _unread(fields: Mapping[str, Any], chosen: Iterable[str]) -> dict[str, Any]:
    """What stands under our own names and is not used: a second text or id, metadata and scores that are none."""
    said = {each for name in chosen if isinstance(each := fields.get(name), str)}
    kept = {name: fields.get(name) for name in (*_TEXT_FIELDS, *_ID_FIELDS) if name not in chosen}
    kept = {name: value for name, value in kept.items() if not (isinstance(value, str) and value in said)}
    kept |= {name: fields.get(name) for name in _SCORE_FIELDS if finite(fields.get(name)) is None}
    used = _metadata_of(fields)
    kept |= {name: fields.get(name) for name in _METADATA_FIELDS if fields.get(name) is not used}
    return {name: value for name, value in kept.items() if not _is_missing(value)}


def text_of(value: object) -> str:
    """The value as text: "" for what stands for a missing one (None, nan, pandas.NA, NaT), of any library."""
    return "" if _is_missing(value) else str(value)


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ == "NAType":
        return True
    if isinstance(value, str | bytes):
        return False
    try:
        return bool(value != value)  # what is missing equals nothing, itself included
    except (TypeError, ValueError, ArithmeticError):  # an array compares by element, a signalling Decimal not at all
        return False
