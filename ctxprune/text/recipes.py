"""Find lists without marks: amounts, one a line, as of the ingredients of a recipe, and the steps told below them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END

_AMOUNT = re.compile(
    r"(?:(?:ca\.?|circa|about|etwa|environ|unos|aprox\.?) )?"
    r"(?:\d{1,4}(?:[.,]\d{1,3})?(?:\s?[-–/]\s?\d{1,4}|\s\d/\d)?\s?[½¼¾⅓⅔⅛]?|[½¼¾⅓⅔⅛])\s?[^\W\d_]"
)
_TITLE = re.compile(r"[^\W\d_a-z][^.!?,;\d\n]{2,48}$")
_FREE = ("plain", "turn")
_LONGEST_AMOUNT, _LONGEST_STEP = 60, 300  # characters
_FEWEST = 3  # amounts, or steps; fewer amounts are a list where one stands above
_SHARE = 0.6  # of the lines of a list of amounts that begin with one: "salt and pepper" stands among them
_HEAD = 3  # paragraphs at the beginning, in which a list of amounts gives its title to the text


def mark_recipes(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "item" into `kinds` for amounts, and below them for steps that a line introduces; "heading" for the title
    of a text that begins so.
    """
    some = list(paragraphs(kinds))
    amounts = 0
    for number, paragraph in enumerate(some):
        texts = [lines[place].text.strip("> \t") if kinds[place] in _FREE else "" for place in paragraph]
        titled = len(texts) > 1 and texts[0][:1].isalpha() and _TITLE.match(texts[0]) is not None
        listed = texts[titled:]
        if _are_amounts(listed, _FEWEST if not amounts else _FEWEST - 1):
            amounts += 1
            if amounts == 1 and 0 < number < _HEAD:
                _mark_name(lines, kinds, some[0])
        elif not (amounts and titled and _are_steps(listed)):
            continue
        for place in paragraph[titled:]:
            kinds[place] = "item"


def _mark_name(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    if len(paragraph) == 1 and kinds[paragraph.start] == "plain" and _TITLE.match(lines[paragraph.start].text.strip()):
        kinds[paragraph.start] = "heading"


def _are_amounts(texts: Sequence[str], fewest: int) -> bool:
    if len(texts) < fewest or not _AMOUNT.match(texts[0]):
        return False
    if any(not text or len(text) > _LONGEST_AMOUNT or SENTENCE_END.search(text) for text in texts):
        return False
    counted = sum(_AMOUNT.match(text) is not None for text in texts)
    return counted >= max(fewest, _SHARE * len(texts))


def _are_steps(texts: Sequence[str]) -> bool:
    """Whether every line has several words and begins with a capital, and all of them end a sentence or none does."""
    if len(texts) < _FEWEST or any(not text or not text[0].isalpha() or text[0].islower() for text in texts):
        return False
    if any(len(text) > _LONGEST_STEP or len(text.split()) < 2 for text in texts):
        return False
    ended = [SENTENCE_END.search(text) is not None for text in texts]
    return all(ended) or not any(ended)
