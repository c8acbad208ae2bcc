"""Compress, embed or score a whole file on several workers: checkpointed, resumable, the same bytes however many."""

from ctxprune.integrations.mapping.files import Work
from ctxprune.integrations.mapping.run import Summary, map_file

__all__ = ["Summary", "Work", "map_file"]
