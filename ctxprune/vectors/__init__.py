"""Vectors of documents on disk: built ahead of time, appended to, looked up by text and searched."""

from ctxprune.vectors.shards import shard_text
from ctxprune.vectors.store import VectorStore

__all__ = ["VectorStore", "shard_text"]
