"""A second look: documents read again for the question and a sentence of the first look that leads to them.

The second step of a question ("Where was the founder of Vell Abbey born?") is in a document that shares no name with
it; the first step's sentence names that document ("Anselm Roe founded Vell Abbey."). Retrievers of several steps put
what they found behind the question and search again (Xiong et al., ICLR 2021); so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ctxprune.compressors.provence.fusion import Array, SentenceEvidence
from ctxprune.compressors.provence.naming import Lead, named
from ctxprune.compressors.provence.pruner import Evidence, Passage, Reading, Sentences, gather

#: Which documents get a second look: those that a good sentence of another one leads to (see `naming.named`), all for
#: the best one, or none.
SecondLook = Literal["named", "all", "none"]
#: From what is known of a context to the probabilities of its sentences.
Scoring = Callable[[Evidence], Array]
#: Words of a found sentence that follow the question.
TOLD_WORDS = 40
#: So many of the best sentences may name documents, if they score at least this share of the best one.
NAMING, _NEAR_BEST = 5, 0.1
#: So many documents are read again at most where they are "named": a page may be there in a hundred chunks.
MOST_READ = 10
#: The chance that a document which a good sentence leads to holds the next step of the question, where nothing is known
#: of the question. Of questions of two steps .54 of such documents do, of others .05 to .17 are relevant at all.
NEXT_STEP = 0.1


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


def leads(look: Look, which: SecondLook) -> dict[int, Lead]:
    """The documents to read again, by their places, each with the sentence that leads to it: of those that are named,
    the MOST_READ with the strongest leads, of equal ones the most relevant.

    Texts and titles decide between equal scores, so that no order of documents enters. One document alone has no second
    step.
    """
    if which == "none" or len(look.item.extracts) < 2:
        return {}
    evidence, scores = look.evidence, look.scores
    titles = [evidence.titles[document] for document in evidence.document]
    ordered = sorted(range(len(scores)), key=lambda place: (-scores[place], evidence.texts[place], titles[place]))
    first: dict[str, int] = {}
    for place in ordered:
        first.setdefault(evidence.texts[place], place)  # a copy names nothing else
    best = list(first.values())[:NAMING]
    found = named(evidence, [place for place in best if scores[place] >= _NEAR_BEST * scores[best[0]]], scores)
    if which == "all":
        return {place: Lead(best[0], 0.0) for place in range(len(look.item.extracts))} | found

    def order(document: int) -> tuple[float, float]:
        lead = found[document]
        return -scores[lead.sentence] * lead.strength, -evidence.rank[document]

    return {document: found[document] for document in sorted(found, key=order)[:MOST_READ]}


def passages(look: Look, leads: Mapping[int, Lead]) -> list[Passage]:
    """What the encoder reads at the second look, in the order of `leads`."""
    first = look.item.passages()
    return [replace(first[document], query=look.query(lead.sentence)) for document, lead in leads.items()]


def either(look: Look, leads: Mapping[int, Lead], readings: Sequence[Reading], score: Scoring) -> Array:
    """Probability that a sentence helps: by the first look, by the second, or as the best of a document that a good
    sentence leads to, 1 - (1 - first)(1 - lead * second)(1 - lead * strength * NEXT_STEP * share).

    It is a noisy or: what follows from a lead counts as far as the sentence that led there helps. share: of the
    sentence among those of its document, by their odds at the second look; a next step shares few words with the
    question, so its own probability is small, but it stands out beside its neighbours. readings: of `passages`. score:
    from what is known of a context to the probabilities of its sentences, (n_sentences,). The documents that no second
    look reads are known by their first reading. Returns (n_sentences,), nowhere below the first look's.
    """
    fresh, missed = dict(zip(leads, readings, strict=True)), 1.0 - look.scores
    for sentence in sorted({lead.sentence for lead in leads.values()}):
        mine = {document: lead.strength for document, lead in leads.items() if lead.sentence == sentence}
        mixed = [fresh[place] if place in mine else reading for place, reading in enumerate(look.readings)]
        second = score(gather(replace(look.item, query=look.query(sentence)), mixed))
        for document, strength in mine.items():
            own = look.evidence.document == document
            missed[own] *= 1.0 - look.scores[sentence] * second[own]
            missed[own] *= 1.0 - look.scores[sentence] * strength * NEXT_STEP * _shares(second[own])
    return np.maximum(look.scores, 1.0 - missed)


def _shares(probabilities: Array) -> Array:
    """Odds as shares of their sum, (n,)."""
    odds = probabilities / np.maximum(1.0 - probabilities, 1e-9)
    shares: Array = odds / max(float(odds.sum()), 1e-9)
    return shares
