"""Compress, embed or score a whole file on several workers: checkpointed, resumable, the same bytes however many."""

from ctxprune.integrations.mapping.driver import Summary, map_file
from ctxprune.integrations.mapping.work import Work

__all__ = ["Summary", "Work", "map_file"]
