"""Lay windows over a passage that is longer than the model's input, and read token scores back without the seams.

The tokenizer never truncates and never pads: windows are cut here, by position, with an overlap, so that nothing is
lost and every token is read from the window that shows it with the most context around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.models.formats import PairFormat
from ctxprune.runtime.base import FloatArray, IntArray, TokenSequence

#: Share of the model's input that a question may fill, and that a title may fill, before they are cut.
QUESTION_SHARE, TITLE_SHARE = 0.25, 0.125


@dataclass(frozen=True, slots=True)
class Windows:
    """The model inputs of one passage.

    sequences: one a window. starts: first passage token of each window. lead: tokens before the passage in every
    sequence. length: passage tokens in all. question_cut: the question was longer than its share.
    """

    sequences: tuple[TokenSequence, ...]
    starts: tuple[int, ...]
    lead: int
    length: int
    question_cut: bool


def lay_windows(
    question: Sequence[int], title: Sequence[int], passage: Sequence[int], *, layout: PairFormat, max_length: int
) -> Windows:
    """Inputs of at most `max_length` tokens that together show the whole passage.

    question, title, passage: token ids without special tokens; every window repeats question and title. Windows are
    spread evenly and overlap by at least a quarter. A title too long for its share is cut in the input only.
    """
    asked = list(question[: max(1, int(max_length * QUESTION_SHARE))])
    titled = list(title[: int(max_length * TITLE_SHARE)])
    lead = layout.passage_start + len(asked) + len(titled)
    room = max_length - layout.overhead - len(asked) - len(titled)
    starts = window_starts(len(passage), room)
    return Windows(
        tuple(layout.build(asked, [*titled, *passage[start : start + room]]) for start in starts),
        starts,
        lead,
        len(passage),
        len(asked) < len(question),
    )


def window_starts(length: int, room: int) -> tuple[int, ...]:
    """Evenly spread starts of windows of `room` tokens over `length`, neighbours sharing at least a quarter."""
    if length <= room:
        return (0,)
    stride = max(1, room - room // 4)
    count = 1 + -(-(length - room) // stride)
    return tuple(round(place * (length - room) / (count - 1)) for place in range(count))


def stitch(windows: Windows, outputs: Sequence[FloatArray]) -> FloatArray:
    """Token scores of the whole passage from those of its windows.

    outputs: (window length, ...) a window, special tokens included. Returns (length, ...): each token from the window
    in which it stands farthest from an edge that cuts the passage.
    """
    shape = outputs[0].shape[1:]
    stitched = np.empty((windows.length, *shape), dtype=np.float32)
    for (begin, end), start, output in zip(seams(windows), windows.starts, outputs, strict=True):
        stitched[begin:end] = output[windows.lead + begin - start : windows.lead + end - start]
    return stitched


def seams(windows: Windows) -> list[tuple[int, int]]:
    """The stretch of passage tokens that each window answers for; neighbours meet in the middle of their overlap."""
    ends = [
        start + len(sequence) - windows.lead for start, sequence in zip(windows.starts, windows.sequences, strict=True)
    ]
    ends = [min(end, windows.length) for end in ends]
    cuts = [(end + start) // 2 for end, start in zip(ends, windows.starts[1:], strict=False)]
    return list(zip([0, *cuts], [*cuts, windows.length], strict=True))


def token_spans(offsets: IntArray, starts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """First and one-past-last token of each character span.

    offsets: (n, 2) character offsets of the tokens, in order. starts, ends: (m,) half-open spans. A token that is
    partly inside counts; a span without tokens gives an empty range.
    """
    first = np.searchsorted(offsets[:, 1], starts, side="right")
    last = np.searchsorted(offsets[:, 0], ends, side="left")
    return first, np.maximum(first, last)
