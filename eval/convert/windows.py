"""Long texts cut into windows of whole units, and the windows that a question gets: its own and the nearest others."""

from __future__ import annotations

from collections.abc import Sequence

from ctxprune.data.questions import LabelledDocument, Offsets
from ctxprune.errors import InputError
from ctxprune.eval.metrics import answer_needle, token_string
from ctxprune.eval.run.retrieval import chunk_of
from ctxprune.retrievers import BM25Retriever

#: Characters of a window; some 200 words.
SIZE = 1300


def windows(units: Sequence[tuple[int, int]], *, size: int = SIZE, uncut: Sequence[tuple[int, int]] = ()) -> Offsets:
    """Runs of consecutive units of at most `size` characters; longer where one unit is, or where a span is not cut.

    units: offsets in order. uncut: spans, none of which ends up in two windows.
    """
    found: list[tuple[int, int]] = []
    for start, end in units:
        crossed = found and any(first < found[-1][1] and last > start for first, last in uncut)
        if found and (crossed or end - found[-1][0] <= size):
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def own_and_nearest(
    question: str, article: LabelledDocument, cuts: Offsets, *, count: int, answers: Sequence[str] = ()
) -> tuple[LabelledDocument, ...]:
    """The windows that answer and the BM25-nearest others, `count` in all if there are so many, in the text's order.

    cuts: of the windows, as offsets into the article. answers: a window that repeats one without being marked is left
    out, since it may well answer. More than `count` windows that answer all stay.
    """
    parts = [chunk_of(article, place, cut) for place, cut in enumerate(cuts)]
    needles = [needle for answer in answers if (needle := answer_needle(answer))]
    others = [
        place
        for place, each in enumerate(parts)
        if not each.is_gold and not any(needle in token_string(each.document.text) for needle in needles)
    ]
    gold = [place for place, each in enumerate(parts) if each.is_gold]
    chosen = gold + _nearest(question, parts, others, max(count - len(gold), 0))
    return tuple(parts[place] for place in sorted(chosen))


def _nearest(question: str, parts: Sequence[LabelledDocument], places: Sequence[int], count: int) -> list[int]:
    """The places of the `count` nearest by BM25; those that share no word with the question come last, in order."""
    if count == 0 or len(places) <= count:
        return list(places)[:count]
    by_id = {parts[place].document.id: place for place in places}
    if len(by_id) != len(places):
        raise InputError(f"two windows of {parts[places[0]].document.id!r} have one id")
    (found,) = BM25Retriever([parts[place].document for place in places]).retrieve([question], count)
    ranked = [by_id[document.id] for document in found]
    return (ranked + [place for place in places if place not in ranked])[:count]
