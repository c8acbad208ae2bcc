"""Which documents a good sentence leads to: those that it names, and those that name what it is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.compressors.provence.fusion import SentenceEvidence, searched_name
from ctxprune.text.abbreviations import MONTHS
from ctxprune.text.normal import readable
from ctxprune.text.words import STOP_WORDS, language_of

#: A document without the name in its title is meant where its first words have it.
_OPENING_WORDS = 8
#: A name has at least so many characters, and is looked for in so many of a sentence's.
_SHORTEST_NAME, _SEARCHED = 4, 2000
#: Of the names in a title at least this share must be in the sentence, or be new to the question.
_ENOUGH = 0.5
#: What more documents than these have in common with a sentence, but for a whole title, leads to none of them.
_FEW = 3
_WORD_OR_MARK = re.compile(r"\w[\w'’.-]*|[^\w\s]")
_WORD = re.compile(r"\w+")
#: Words with capitals or digits at the beginning, and small ones between them.
_NAME_FIRST = re.compile(r"(?:[^\W_a-z][\w'’.-]* (?:(?:of|the|de|la|du|von|van|der|and|for) )*)*[^\W_a-z][\w'’-]*")
#: Small words within a name.
_JOINING = frozenset(["of", "the", "de", "la", "du", "von", "van", "der", "and", "for"])


@dataclass(frozen=True, slots=True)
class Lead:
    """sentence: the place of the sentence that leads to a document. strength: 0 to 1, how surely it does."""

    sentence: int
    strength: float = 1.0


def named(evidence: SentenceEvidence, naming: Sequence[int]) -> dict[int, Lead]:
    """The documents that one of these sentences leads to, by their places, each with the first that does.

    A sentence leads to a document whose title's name it has (strength 1). Where they are few, it leads to those that
    begin with a name of it (1); to those of whose title it has a part (the share of the title's names that are new to
    the question); and to those with the name of its own document in them (1 over their number). Names of the question
    lead nowhere, nor does a document to itself or to one of the same title.
    """
    alone = language_of(evidence.texts) != "de"
    bodies = _bodies(evidence)
    begin = [" ".join(body.split(maxsplit=_OPENING_WORDS)[:_OPENING_WORDS]) for body in bodies]
    titles = [
        _Title.of(title or (_subject(opening) if alone else ""), alone)
        for title, opening in zip(evidence.titles, begin, strict=True)
    ]
    openings = [opening.lower() for opening in begin]
    asked = readable(evidence.query).lower()
    known = frozenset(_WORD.findall(asked))
    found: dict[int, Lead] = {}
    for place in naming:
        mine = titles[evidence.document[place]]
        text = readable(evidence.texts[place])
        lower, names = text.lower(), [name for name in _names(text) if name not in asked and name not in mine.lower]
        others = _elsewhere(evidence, titles, place, found)
        begun = [[document for document in others if _stands_in(name, openings[document])] for name in names]
        titled = [document for document in others if titles[document].is_in(lower, asked)]
        leading = {*titled, *(document for few in begun if len(few) <= _FEW for document in few)}
        found |= {document: Lead(place) for document in others if document in leading}
    for place in naming:
        mine, runs = titles[evidence.document[place]], _runs(readable(evidence.texts[place]))
        others = _elsewhere(evidence, titles, place, found)
        parts = {document: titles[document].share(runs, known, mine.names) for document in others}
        found |= _few({document: Lead(place, share) for document, share in parts.items() if share >= _ENOUGH})
        if mine.is_new(known):  # a common word in lower case is no mention of it
            others = _elsewhere(evidence, titles, place, found)
            about = [document for document in others if _stands_in(mine.name, bodies[document])]
            found |= _few(dict.fromkeys(about, Lead(place, 1 / max(len(about), 1))))
    return found


def _few(leads: dict[int, Lead]) -> dict[int, Lead]:
    """The leads, none if they are many: what half of the documents have to do with leads to none of them."""
    return leads if len(leads) <= _FEW else {}


@dataclass(frozen=True, slots=True)
class _Title:
    """name: as sentences have it; lower: in lower case, "" if that is too short to tell. names: its words that look
    like names, in lower case."""

    name: str
    lower: str
    names: frozenset[str]

    @classmethod
    def of(cls, title: str, alone: bool) -> _Title:
        """alone: whether one word with a capital letter is a name, which it is not where all nouns have one."""
        lower = searched_name(title)
        name = readable(title).strip()[: len(lower)]
        words = frozenset().union(*_runs(name))
        return cls(name, lower, words if lower and (alone or len(words) > 1) else frozenset())

    def is_in(self, text: str, asked: str) -> bool:
        """Whether the text has the title and the question does not; both are in lower case."""
        return bool(self.lower) and self.lower not in asked and _stands_in(self.lower, text)

    def share(self, runs: Sequence[frozenset[str]], asked: frozenset[str], own: frozenset[str]) -> float:
        """Of the names in the title that are new to the question, the share that is in `runs`, names of another text,
        and not in `own`, the title there. A part counts where its run holds nothing else: "Anselm" of "Anselm Weber" is
        no part of "Anselm Roe"."""
        new = self.names - asked
        if not new:
            return 0.0
        if new <= frozenset().union(*runs) - own:
            return 1.0
        return len(new & frozenset().union(*(run for run in runs if run <= self.names)) - own) / len(new)

    def is_new(self, asked: frozenset[str]) -> bool:
        """Whether the title is a name, half of which or more the question does not have."""
        return bool(self.names) and len(self.names - asked) >= _ENOUGH * len(self.names)


def _elsewhere(evidence: SentenceEvidence, titles: Sequence[_Title], place: int, found: dict[int, Lead]) -> list[int]:
    """The documents that nothing leads to yet, but for the sentence's own and those of the same title."""
    own = evidence.document[place]
    return [
        document
        for document, title in enumerate(titles)
        if document != own and document not in found and not (title.lower and title.lower == titles[own].lower)
    ]


def _runs(text: str) -> list[frozenset[str]]:
    """Words with a capital letter or a digit that follow each other, in lower case. Small ones may stand between them;
    these, months, single letters and words such as "In" at the beginning are no part."""
    runs: list[frozenset[str]] = []
    last = -1  # where the run ends
    for match in _WORD.finditer(text, 0, _SEARCHED):
        word = match.group()
        if word in _JOINING and match.start() == last + 1:
            last = match.end()
        elif len(word) > 1 and not word[0].islower() and word.lower() not in MONTHS | STOP_WORDS:
            joined = runs.pop() if runs and match.start() == last + 1 else frozenset()
            runs.append(joined | {word.lower()})
            last = match.end()
    return runs


def _bodies(evidence: SentenceEvidence) -> list[str]:
    """The documents' texts, as they are read."""
    ends = np.searchsorted(evidence.document, np.arange(len(evidence.titles)), side="right").tolist()
    return ["\n".join(map(readable, evidence.texts[low:high])) for low, high in zip([0, *ends], ends, strict=False)]


def _subject(opening: str) -> str:
    """The name of several words that a document begins with, which stands for a title; "" if there is none."""
    first, _, rest = opening.partition(" ")
    match = _NAME_FIRST.match(rest if first.lower() in STOP_WORDS else opening)
    runs = _runs(match.group()) if match else []
    return match.group() if match and len(runs) == 1 and len(runs[0]) > 1 else ""


def _names(text: str) -> list[str]:
    """The names in running text, in lower case: capitalised words in a row, with small ones such as "of" between them.

    One word alone counts unless it begins the text, is a month's, or the language writes all of its nouns so.
    """
    alone = language_of([text]) != "de"
    words = [match.group() for match in _WORD_OR_MARK.finditer(text, 0, _SEARCHED)]
    capital = [word[0].isupper() for word in words]
    names, place = [], 0
    while place < len(words):
        end = place
        while end < len(words) and capital[end]:
            end += 2 if end + 2 < len(words) and words[end + 1] in _JOINING and capital[end + 2] else 1
        name = " ".join(words[place:end]).rstrip(".'’-").lower()
        if len(name) >= _SHORTEST_NAME and name not in MONTHS and (end - place > 1 or (place and alone)):
            names.append(name)
        place = max(end, place + 1)
    return names


def _stands_in(name: str, text: str) -> bool:
    """Whether the name is in the text as whole words."""
    place = text.find(name)
    while place >= 0:
        before, after = text[place - 1 : place], text[place + len(name) : place + len(name) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        place = text.find(name, place + 1)
    return False
