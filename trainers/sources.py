"""Which training files to use, how much of each, and which of their questions are kept out for the fusion fit."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ctxprune.errors import InputError
from ctxprune.qa import Question


@dataclass(frozen=True, slots=True)
class Source:
    """One training file: how many of its questions to draw, and how many times to go over them."""

    path: str
    limit: int | None = None
    repeat: int = 1

    @classmethod
    def parse(cls, text: str) -> Source:
        path, *numbers = text.split(":")
        try:
            limit, repeat = [int(number) if number else 0 for number in [*numbers, "", ""][:2]]
        except ValueError:
            raise InputError(f"--data takes FILE[:LIMIT[:REPEAT]] with whole numbers, got {text!r}") from None
        return cls(path, limit or None, repeat or 1)


def held_out(question: Question, share: float) -> bool:
    """Whether a question is kept from training, for the fusion fit: by a hash of its first gold passage's text, so that
    all questions on one passage fall on the same side."""
    if share <= 0:
        return False
    gold = next((item for item in question.documents if item.is_gold), None)
    key = gold.document.text if gold else question.text
    return random.Random(key).random() < share
