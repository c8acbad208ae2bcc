"""A real scoring compressor without a model: a sentence scores by its share of words with a given letter."""

import re
from dataclasses import replace

from ctxprune.compressors.base import ScoringCompressor, narrow, visible_units
from ctxprune.timing import stage
from ctxprune.types import Extract, Span


def sentences(text):
    return [Span(match.start(), match.end()) for match in re.finditer(r"[^.\s](?:[^.]*[^.\s])?\.?|\.", text)]


def words(text):
    return [Span(match.start(), match.end()) for match in re.finditer(r"\S+", text)]


class LetterCompressor(ScoringCompressor):
    """Scores a unit by the share of its words that hold `letter`."""

    name = "letter"
    default_threshold = 0.5

    def __init__(self, letter="a", *, split=sentences, **options):
        super().__init__(**options)
        self.letter = letter
        self.split = split

    def score(self, contexts):
        with stage("infer"):
            return [replace(context, pieces=tuple(map(self._piece, context.pieces))) for context in contexts]

    def _piece(self, piece):
        if not isinstance(piece, Extract):
            return piece
        units = [
            replace(unit, score=self._share(piece.source.text[unit.start : unit.end]))
            for unit in visible_units(piece, self.split)
        ]
        return narrow(piece, units, score=max((unit.score for unit in units), default=0.0))

    def _share(self, text):
        return sum(self.letter in word for word in text.split()) / max(len(text.split()), 1)
