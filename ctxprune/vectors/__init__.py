"""Vectors of documents on disk: built ahead of time, appended to, looked up by text and searched."""

from ctxprune.vectors.pieces import PieceKind, Pieces, piece_offsets, shard_text
from ctxprune.vectors.store import VectorStore

__all__ = ["PieceKind", "Pieces", "VectorStore", "piece_offsets", "shard_text"]
