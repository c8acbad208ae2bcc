"""A second look: documents read again for the question and a sentence of the first look that leads to them.

The second step of a question ("Where was the founder of Vell Abbey born?") is in a document that shares no name with
it; the first step's sentence names that document ("Anselm Roe founded Vell Abbey."). Retrievers of several steps put
what they found behind the question and search again (Xiong et al., ICLR 2021); so does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ctxprune.compressors.provence.fusion import Array, SentenceEvidence, searched_name
from ctxprune.compressors.provence.pruner import Evidence, Passage, Reading, Sentences, gather
from ctxprune.text.normal import readable
from ctxprune.text.words import language_of

#: Which documents get a second look: those that a good sentence of another one names, all for the best one, or none.
SecondLook = Literal["named", "all", "none"]
#: From what is known of a context to the probabilities of its sentences.
Scoring = Callable[[Evidence], Array]
#: Words of a found sentence that follow the question.
TOLD_WORDS = 40
#: So many of the best sentences may name documents, if they score at least this share of the best one.
NAMING, _NEAR_BEST = 5, 0.1
#: A document without the name in its title is meant where its first words have it.
_OPENING_WORDS = 8
#: A name has at least so many characters, and is looked for in so many of a sentence's.
_SHORTEST_NAME, _SEARCHED = 4, 2000
_WORD_OR_MARK = re.compile(r"\w[\w'’.-]*|[^\w\s]")
#: Small words within a name.
_JOINING = frozenset(["of", "the", "de", "la", "du", "von", "van", "der", "and", "for"])


def told(query: str, sentence: str) -> str:
    """The query as a second look puts it, in training too: what was found follows it, at most TOLD_WORDS of it."""
    return f"{query} {' '.join(sentence.split()[:TOLD_WORDS])}".rstrip()


@dataclass(frozen=True, slots=True)
class Look:
    """A first look at a context. scores: (n_sentences,) in [0, 1]. ranks: (n_documents,) log-odds of relevance."""

    item: Sentences
    readings: Sequence[Reading]
    evidence: SentenceEvidence
    scores: Array
    ranks: Array

    def query(self, sentence: int) -> str:
        return told(self.item.query, self.evidence.texts[sentence])


def leads(look: Look, which: SecondLook) -> dict[int, int]:
    """The documents to read again, each with the sentence that leads to it; both by their places.

    Texts decide between equal scores, so that no order of documents enters. One document alone has no second step.
    """
    if which == "none" or len(look.item.extracts) < 2:
        return {}
    texts, scores = look.evidence.texts, look.scores
    best = sorted(range(len(scores)), key=lambda place: (-scores[place], texts[place]))[:NAMING]
    if which == "all":
        return dict.fromkeys(range(len(look.item.extracts)), best[0])
    return _named(look.evidence, [place for place in best if scores[place] >= _NEAR_BEST * scores[best[0]]])


def passages(look: Look, leads: Mapping[int, int]) -> list[Passage]:
    """What the encoder reads at the second look, in the order of `leads`."""
    first = look.item.passages()
    return [replace(first[document], query=look.query(sentence)) for document, sentence in leads.items()]


def either(look: Look, leads: Mapping[int, int], readings: Sequence[Reading], score: Scoring) -> Array:
    """Probability that a sentence helps, by the first look or by the second: 1 - (1 - first)(1 - lead * second).

    It is a noisy or: the second look counts as far as the sentence that led to it helps. readings: of `passages`.
    score: from what is known of a context to the probabilities of its sentences, (n_sentences,). The documents that no
    second look reads are known by their first reading. Returns (n_sentences,), nowhere below the first look's.
    """
    fresh, missed = dict(zip(leads, readings, strict=True)), 1.0 - look.scores
    for sentence in sorted(set(leads.values())):
        mine = [document for document, lead in leads.items() if lead == sentence]
        mixed = [fresh[place] if place in mine else reading for place, reading in enumerate(look.readings)]
        second = score(gather(replace(look.item, query=look.query(sentence)), mixed))
        missed *= 1.0 - np.where(np.isin(look.evidence.document, mine), look.scores[sentence] * second, 0.0)
    return np.maximum(look.scores, 1.0 - missed)


def _named(evidence: SentenceEvidence, naming: Sequence[int]) -> dict[int, int]:
    """The documents that one of these sentences names and the question does not, each with the first that does.

    A document has its title's name, and any name among its first words. Its own, and those of the same title, are no
    other step.
    """
    of, titles = evidence.document, [searched_name(title) for title in evidence.titles]
    openings = _openings(evidence)
    asked = readable(evidence.query).lower()
    found: dict[int, int] = {}
    for place in naming:
        text, mine = readable(evidence.texts[place]), titles[of[place]]
        lower, names = text.lower(), [name for name in _names(text) if name not in asked and name not in mine]
        for document, title in enumerate(titles):
            if document == of[place] or document in found or (title and title == mine):
                continue
            titled = title and title not in asked and _stands_in(title, lower)
            if titled or any(_stands_in(name, openings[document]) for name in names):
                found[document] = place
    return found


def _openings(evidence: SentenceEvidence) -> list[str]:
    """The first words of each document, in lower case."""
    first = np.searchsorted(evidence.document, np.arange(len(evidence.titles)))
    return [" ".join(readable(evidence.texts[place]).split()[:_OPENING_WORDS]).lower() for place in first]


def _names(text: str) -> list[str]:
    """The names in running text, in lower case: capitalised words in a row, with small ones such as "of" between them.

    One word alone counts unless it begins the text, or the language writes all of its nouns so.
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
        if len(name) >= _SHORTEST_NAME and (end - place > 1 or (place and alone)):
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
