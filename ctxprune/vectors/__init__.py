"""Vectors of documents on disk: built ahead of time, appended to, looked up by text and searched."""

from ctxprune.vectors.store import VectorStore, shard_text

__all__ = ["VectorStore", "shard_text"]
