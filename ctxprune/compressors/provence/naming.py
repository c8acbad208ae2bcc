"""Which documents a good sentence leads to: those that it names, and those that name what it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.compressors.provence.fusion import Array, SentenceEvidence, without_qualifier
from ctxprune.text.abbreviations import MONTHS
from ctxprune.text.normal import readable
from ctxprune.text.words import STOP_WORDS, language_of

#: A document without the name in its title is meant where its first words have it.
_OPENING_WORDS = 8
#: A name has so many characters, and is looked for in so many of a sentence's.
_SHORTEST_NAME, _LONGEST_NAME, _SEARCHED = 4, 200, 2000
#: Of the names in a title at least this share must be in the sentence, or be new to the question.
_ENOUGH = 0.5
#: What more documents than these have in common with a sentence, but for a whole title, leads to none of them.
_FEW = 3
#: Small words within a name.
_JOINING = frozenset(["of", "the", "de", "la", "du", "von", "van", "der"])
#: Words that have a capital letter for another reason than being a name.
_COMMON_WORDS = (
    "monday tuesday wednesday thursday friday saturday sunday der die das ein eine le la les un une el los il lo"
)
_COMMON = STOP_WORDS | MONTHS | frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"\w+(?:[.-]\w+)*")


@dataclass(frozen=True, slots=True)
class Lead:
    """sentence: the place of the sentence that leads to a document. strength: 0 to 1, how surely it does."""

    sentence: int
    strength: float = 1.0


def named(evidence: SentenceEvidence, naming: Sequence[int], scores: Array) -> dict[int, Lead]:
    """The documents that one of these sentences leads to, by their places, each with the strongest lead: the one with
    the highest score of its sentence times strength. scores: (n_sentences,) in [0, 1].

    A sentence leads to a document whose title it has (strength 1); to those that begin with a name of it (1); to those
    of whose title it has a part (the share of the title's names that are new to the question); and to those with the
    name of its own document in them (1 over their number). But for whole titles, what is in more than three documents
    leads to none of them. Names of the question lead nowhere, nor does a sentence to a document that holds it or has
    the title of its own.
    """
    bodies = _bodies(evidence)
    openings = [" ".join(body.split(maxsplit=_OPENING_WORDS)[:_OPENING_WORDS]) for body in bodies]
    titles = [_Title.of(title, opening) for title, opening in zip(evidence.titles, openings, strict=True)]
    lowered = [opening.lower() for opening in openings]
    query = readable(evidence.query)
    asked, known = query.lower(), frozenset(word.lower() for word in _WORD.findall(query))
    found: dict[int, Lead] = {}
    for place in naming:
        text = " ".join(readable(evidence.texts[place]).split())
        sentence = _Sentence.of(text, titles[evidence.document[place]], asked)
        others = [
            document
            for document, title in enumerate(titles)
            if document != evidence.document[place] and text not in bodies[document] and not title.is_same(sentence.own)
        ]
        for document, strength in _strengths(sentence, others, titles, lowered, bodies, asked, known).items():
            best = found.get(document)
            if best is None or scores[place] * strength > scores[best.sentence] * best.strength:
                found[document] = Lead(place, strength)
    return found


@dataclass(frozen=True, slots=True)
class _Sentence:
    """lower: its text in lower case. names: those that the question does not have, in lower case. runs: the words of
    each name and number in it. own: the title of its document."""

    lower: str
    names: tuple[str, ...]
    runs: tuple[frozenset[str], ...]
    own: _Title

    @classmethod
    def of(cls, text: str, own: _Title, asked: str) -> _Sentence:
        alone = language_of([text]) != "de"  # whose nouns all have capitals
        runs = [run for run in _runs(text) if run.is_name(alone)]
        names = dict.fromkeys(run.name.lower() for run in runs if not all(map(_is_number, run.ordered)))
        new = [name for name in names if len(name) >= _SHORTEST_NAME and not _stands_in(name, asked)]
        new = [name for name in new if not _stands_in(name, own.page)]
        return cls(text.lower(), tuple(new), tuple(run.words for run in runs), own)


@dataclass(frozen=True, slots=True)
class _Title:
    """page: in lower case, "" for a document without one, which has the name that it begins with in place of a title.
    name: as sentences have it, "" if it cannot be told from other words; lower: in lower case. names: its words that
    look like names and its numbers, in order and in lower case."""

    page: str
    name: str
    lower: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, title: str, opening: str) -> _Title:
        page = without_qualifier(title)
        name = page or _subject(opening)
        if not _SHORTEST_NAME <= len(name) <= _LONGEST_NAME:
            name = ""
        words = dict.fromkeys(word for run in _runs(name) for word in run.ordered)
        return cls(page.lower(), name, name.lower(), tuple(words))

    def is_same(self, other: _Title) -> bool:
        """Whether both are titles and the same: parts of one page, or more of the same."""
        return bool(self.page) and self.page == other.page

    def is_in(self, sentence: _Sentence, asked: str) -> bool:
        """Whether a sentence has the whole title and the question does not. One word must look like a name there."""
        if not self.page or not self.lower or _stands_in(self.lower, asked):
            return False
        if len(self.lower.split()) == 1 and self.lower != self.lower.upper():
            return self.name != self.lower and self.lower in sentence.names
        return _stands_in(self.lower, sentence.lower)

    def share(self, sentence: _Sentence, known: frozenset[str]) -> float:
        """Of the title's names that are new to the question, the share that a sentence has; 0 where these do not tell.

        A part tells where the sentence's name holds nothing else ("Anselm Weber" is no part of "Anselm Roe"), and it is
        the last of the title's ("Roe" of "Anselm Roe", not "New" of "New York"), or a number of something that the
        question names ("2014" of "2014 World Cup").
        """
        new = frozenset(self.names) - known
        own = frozenset(sentence.own.names)
        if not new:
            return 0.0
        if new <= frozenset().union(*sentence.runs) - own and not all(map(_is_number, new)):
            return 1.0
        part = new & frozenset().union(*(run for run in sentence.runs if run <= set(self.names))) - own
        numbers = all(map(_is_number, part))
        asked = sum(name in known for name in self.names) >= _ENOUGH * len(self.names)
        return len(part) / len(new) if part and (asked if numbers else self.names[-1] in part) else 0.0

    def is_new(self, known: frozenset[str]) -> bool:
        """Whether it is a name of several words, half of which or more the question does not have."""
        return len(self.names) > 1 and sum(name not in known for name in self.names) >= _ENOUGH * len(self.names)


def _strengths(
    sentence: _Sentence,
    others: Sequence[int],
    titles: Sequence[_Title],
    openings: Sequence[str],
    bodies: Sequence[str],
    asked: str,
    known: frozenset[str],
) -> dict[int, float]:
    """How surely a sentence leads to each of the other documents; see `named`."""
    about: list[int] = []
    if sentence.own.is_new(known):
        about = [document for document in others if _stands_in(sentence.own.name, bodies[document])]
    parts = {document: titles[document].share(sentence, known) for document in others}
    leads = [
        dict.fromkeys(about, 1 / max(len(about), 1)),
        {document: share for document, share in parts.items() if share >= _ENOUGH},
        *({document: 1.0 for document in others if _stands_in(name, openings[document])} for name in sentence.names),
    ]
    strengths: dict[int, float] = {}
    for few in leads:
        if len(few) <= _FEW:
            strengths |= {document: max(strength, strengths.get(document, 0.0)) for document, strength in few.items()}
    return strengths | {document: 1.0 for document in others if titles[document].is_in(sentence, asked)}


@dataclass(frozen=True, slots=True)
class _Run:
    """Words with a capital letter or numbers, one after another, with small ones such as "of" between them.

    name: as in the text. ordered: the words without the small ones, in lower case. first: whether it begins the text.
    """

    name: str
    ordered: tuple[str, ...]
    first: bool

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self.ordered)

    def is_name(self, alone: bool) -> bool:
        """One word alone counts where `alone` says so, unless it begins the text, where any word has a capital."""
        return len(self.ordered) > 1 or (alone and not self.first)


def _runs(text: str) -> list[_Run]:
    """The runs of a text; none in one without small letters beside capitals, where capitals say nothing."""
    return [] if text.isupper() and " " in text else list(_found_runs(text[:_SEARCHED]))


def _found_runs(text: str) -> Iterator[_Run]:
    words: list[str] = []
    begin = end = last = 0  # of the run; `end` with a small word that may not be its last
    for match in _WORD.finditer(text):
        word = match.group()
        adjoins = bool(words) and text[end : match.start()].isspace()
        if adjoins and word in _JOINING:
            end = match.end()
            continue
        is_name = (word[0].isdigit() or (word[0].isupper() and len(word) > 1)) and word.lower() not in _COMMON
        if words and not (adjoins and is_name):
            yield _Run(text[begin:last], tuple(words), begin == 0)
            words = []
        if is_name:
            begin = begin if words else match.start()
            end = last = match.end()
            words.append(word.lower())
    if words:
        yield _Run(text[begin:last], tuple(words), begin == 0)


def _subject(opening: str) -> str:
    """The name of several words that a document begins with, behind an article at most; "" if there is none."""
    runs = _runs(opening)
    if not runs or len(runs[0].ordered) < 2 or all(map(_is_number, runs[0].ordered)):
        return ""
    before = opening[: opening.index(runs[0].name)].split()
    return runs[0].name if len(before) <= 1 else ""


def _is_number(word: str) -> bool:
    return not any(character.isalpha() for character in word)


def _bodies(evidence: SentenceEvidence) -> list[str]:
    """The documents' texts, as they are read, in one line."""
    ends = np.searchsorted(evidence.document, np.arange(len(evidence.titles)), side="right").tolist()
    spans = zip([0, *ends], ends, strict=False)
    return [" ".join(" ".join(map(readable, evidence.texts[low:high])).split()) for low, high in spans]


def _stands_in(name: str, text: str) -> bool:
    """Whether the name is in the text as whole words."""
    place = text.find(name)
    while place >= 0:
        before, after = text[place - 1 : place], text[place + len(name) : place + len(name) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        place = text.find(name, place + 1)
    return False
