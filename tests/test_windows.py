"""Windows over long passages: nothing is lost, and the seams do not show."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.models.formats import PairFormat, lay_windows, seams, stitch, token_spans, window_starts

LAYOUT = PairFormat((101,), (102,), (102,), passage_type_id=1)


@given(length=st.integers(0, 3000), room=st.integers(4, 500))
def test_windows_cover_everything_and_overlap_by_a_quarter(length: int, room: int) -> None:
    starts = window_starts(length, room)
    assert starts[0] == 0
    assert starts[-1] + room >= length
    if len(starts) > 1:
        assert starts[-1] + room == length
        assert all(left + room - right >= room // 4 - 1 for left, right in pairwise(starts))


@given(length=st.integers(0, 900), question=st.integers(0, 200), title=st.integers(0, 60))
def test_stitching_gives_every_token_its_own_score(length: int, question: int, title: int) -> None:
    passage = list(range(1000, 1000 + length))
    windows = lay_windows([5] * question, [6] * title, passage, layout=LAYOUT, max_length=128)
    assert all(len(sequence) <= 128 for sequence in windows.sequences)
    outputs = [sequence.ids.astype(np.float32) for sequence in windows.sequences]
    assert stitch(windows, outputs).tolist() == passage
    assert windows.question_cut == (question > 32)


def test_a_token_is_read_where_it_stands_farthest_from_a_cut() -> None:
    windows = lay_windows([5], [], list(range(300)), layout=LAYOUT, max_length=104)
    room = 100
    for (begin, end), start in zip(seams(windows), windows.starts, strict=True):
        for token in range(begin, end):
            mine = min(token - start, start + room - 1 - token)
            for other in windows.starts:
                if other <= token < other + room and start not in (0, 200) and other not in (0, 200):
                    assert mine >= min(token - other, other + room - 1 - token) - 1


def test_every_window_repeats_question_and_title() -> None:
    windows = lay_windows([7, 8], [9], list(range(1000, 1400)), layout=LAYOUT, max_length=64)
    assert len(windows.sequences) > 1
    for sequence in windows.sequences:
        assert sequence.ids[: windows.lead].tolist() == [101, 7, 8, 102, 9]


def test_token_spans_take_partly_covered_tokens_and_give_empty_ranges_for_none() -> None:
    offsets = np.array([[0, 3], [4, 8], [8, 9], [12, 15]])
    first, last = token_spans(offsets, np.array([0, 5, 9, 9]), np.array([4, 9, 12, 13]))
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 1), (1, 3), (3, 3), (3, 4)]
