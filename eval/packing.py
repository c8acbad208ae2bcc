"""Contexts as JSON beside their question: offsets, scores and flags; the texts stay with the question."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ctxprune.errors import InputError
from ctxprune.qa import Question
from ctxprune.types import Context, Extract, Faithfulness, Piece, Span, Summary


def pack(context: Context) -> dict[str, Any]:
    """The context without the texts of its documents. Raises InputError for soft tokens, which no cache holds."""
    return {
        "pieces": [_pack_piece(piece) for piece in context.pieces],
        "warnings": list(context.warnings),
        "model": context.model,
    }


def unpack(packed: dict[str, Any], question: Question) -> Context:
    """The inverse of `pack`, for the question whose context it was."""
    pieces = tuple(_unpack_piece(piece, question) for piece in packed["pieces"])
    warnings, model = tuple(packed["warnings"]), packed.get("model", "")  # runs made before it was kept
    return Context(question.text, pieces, id=question.id, warnings=warnings, model=model)


def _pack_piece(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Extract):
        return {
            "index": piece.index,
            "score": None if piece.score is None else float(piece.score),
            "titled": piece.titled,
            "elision": piece.elision,
            # by column, which packs best; bits as a string
            "starts": [unit.start for unit in piece.units],
            "ends": [unit.end for unit in piece.units],
            "scores": [float(unit.score) for unit in piece.units],
            "kept": "".join("01"[flag] for flag in piece.kept),
        }
    if isinstance(piece, Summary):
        return {
            "index": piece.index,
            "summary": piece.text,
            "faithfulness": piece.faithfulness and asdict(piece.faithfulness),
        }
    raise InputError(
        f"document {piece.index} is soft tokens for {piece.generator!r}; the benchmark measures text compressors"
    )


def _unpack_piece(piece: dict[str, Any], question: Question) -> Piece:
    if "summary" in piece:
        sources = tuple(labelled.document for labelled in question.documents)
        return Summary(
            piece["summary"], sources, index=piece["index"], faithfulness=_faithfulness(piece["faithfulness"])
        )
    columns = zip(piece["starts"], piece["ends"], piece["scores"], strict=True)
    return Extract(
        question.documents[piece["index"]].document,
        tuple(Span(start, end, score) for start, end, score in columns),
        tuple(flag == "1" for flag in piece["kept"]),
        score=piece["score"],
        index=piece["index"],
        titled=piece["titled"],
        elision=piece.get("elision", ""),  # runs made before there was one
    )


def _faithfulness(packed: dict[str, Any] | None) -> Faithfulness | None:
    # JSON has no tuples
    if packed is None:
        return None
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in packed.items()}
    return Faithfulness(**fields)
