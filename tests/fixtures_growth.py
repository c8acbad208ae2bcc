"""That the work on a text grows with its length, whatever stands in it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

TRIES = 8


def assert_work_grows_with_length(
    read: Callable[[str], object], piece: str, *, before: str = "", size: int = 5_000
) -> None:
    """Four times the text may take eight times as long to `read`, in one of several tries.

    piece: what the text consists of, again and again, after what stands `before` it. size: characters of the shorter.
    """

    def seconds(characters: int) -> float:
        text = before + piece * (characters // len(piece))
        # a collection goes over all that the tests before have left, and comes in the longer text alone
        gc.disable()
        try:
            started = time.process_time()
            read(text)
            return time.process_time() - started
        finally:
            gc.enable()

    assert any(seconds(4 * size) <= 8 * seconds(size) + 0.05 for _ in range(TRIES))


def assert_structure_grows_with_length(piece: str) -> None:
    """The same of splitting a text into units and telling what they are to each other."""
    assert_work_grows_with_length(lambda text: structure(text, split_sentences(text)), piece)
