"""A first stage for contexts of many documents: which of them the encoder reads, by the words shared with the question.

It takes little time beside the encoder and it loses answers: documents that answer in other words, and those of a
question's second step, are among the ones left out. So nobody gets it who did not ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.base import narrow
from ctxprune.compressors.provence.pruner import Sentences
from ctxprune.errors import InputError
from ctxprune.text.words import bm25_scores
from ctxprune.types import Extract


@dataclass(frozen=True, slots=True)
class Staged:
    """The documents of a context that are read, and those that are not."""

    read: Sentences
    unread: Sentences

    def unread_extracts(self, *, score: float) -> dict[int, Extract]:
        """The documents that were not read by their places in the input, all of their sentences with a score of 0.

        score: of each document, below those of the documents that were read.
        """
        pairs = zip(self.unread.extracts, self.unread.spans, strict=True)
        return {extract.index: narrow(extract, spans, score=score) for extract, spans in pairs}

    @property
    def warning(self) -> str | None:
        """What a user must know of it; None where all was read."""
        unread, read = len(self.unread.extracts), len(self.read.extracts)
        if not unread:
            return None
        return (
            f"{unread} of {unread + read} documents were not read and score 0: they share less with the question than "
            f"the {read} that first_stage let through; leave it out to read all"
        )


def checked_number(first_stage: int | None) -> int | None:
    """How many documents are read; raises InputError for anything but a whole number from 1 up, or None."""
    if first_stage is not None and (type(first_stage) is not int or first_stage < 1):
        raise InputError(f"first_stage must be a whole number of documents from 1 up, got {first_stage!r}")
    return first_stage


def staged(item: Sentences, number: int | None, language: str | None = None) -> Staged:
    """Let the `number` best documents of a context through, and those that score as well as the last of them.

    So no order of documents enters, and where the question shares no word with the `number`th, all are read. None: all
    are read anyway.
    """
    if number is None or len(item.extracts) <= number:
        return Staged(item, _part(item, np.zeros(len(item.extracts), np.bool_)))
    sources = [extract.source for extract in item.extracts]
    titles = [source.title for source in sources]
    scores = bm25_scores(item.query, [source.text for source in sources], titles=titles, language=language)
    # sums of the same words in another order differ in the last digit
    through = scores >= np.partition(scores, len(scores) - number)[len(scores) - number] - 1e-9
    return Staged(_part(item, through), _part(item, ~through))


def _part(item: Sentences, chosen: npt.NDArray[np.bool_]) -> Sentences:
    places = np.flatnonzero(chosen)
    return replace(
        item,
        extracts=tuple(item.extracts[place] for place in places),
        spans=tuple(item.spans[place] for place in places),
    )
