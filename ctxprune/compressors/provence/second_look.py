"""A second look: the documents read again for the question and the best sentence that the first look found.

The second step of a question ("Where was the founder of Vell Abbey born?") is in a document that shares no name with
it; the first step's sentence names that document ("Anselm Roe founded Vell Abbey."). Retrievers of several steps put
what they found behind the question and search again (Xiong et al., ICLR 2021); so does this.
"""

from __future__ import annotations

from dataclasses import replace

from ctxprune.compressors.provence.evidence import Sentences
from ctxprune.compressors.provence.fusion import Array, SentenceEvidence

#: Words of a found sentence that follow the question.
TOLD_WORDS = 40


def told(query: str, sentence: str) -> str:
    """The query as a second look puts it, in training too: what was found follows it, at most TOLD_WORDS of it."""
    return f"{query} {' '.join(sentence.split()[:TOLD_WORDS])}".rstrip()


def asked_again(item: Sentences, evidence: SentenceEvidence, scores: Array) -> Sentences | None:
    """The same sentences for the query and the best of them; None for one document, which has no second step.

    scores: (n_sentences,) of the first look. The text decides between equal ones, so that no order of documents enters.
    """
    if len(item.extracts) < 2:
        return None
    best = max(range(len(scores)), key=lambda place: (scores[place], evidence.texts[place]))
    return replace(item, query=told(item.query, evidence.texts[best]))


def either(first: Array, second: Array) -> Array:
    """Probability that a sentence helps by at least one of two looks, as if these were independent (noisy or)."""
    both: Array = 1.0 - (1.0 - first) * (1.0 - second)
    return both
