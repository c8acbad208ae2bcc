"""A second look: documents that a good sentence leads to, read again for the question and that sentence.

The second step of a question ("Where was the founder of Vell Abbey born?") is in a document that shares no name with
it; the first step's sentence names that document ("Anselm Roe founded Vell Abbey."). Retrievers of several steps put
what they found behind the question and search again (Xiong et al., ICLR 2021); so does this, for the few documents
that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ctxprune.compressors.provence.context_head import ContextHead, Links, Scorer, links, prior_order
from ctxprune.compressors.provence.evidence import Evidence, Sentences, second_reading
from ctxprune.compressors.provence.fusion import SentenceEvidence, searched_name, sentence_features
from ctxprune.compressors.provence.pruner import Passage, Reading

Read = Callable[[Sequence[Passage]], list[Reading]]
#: Which documents are read again: those that a good sentence leads to, all (twice the work), or none.
SecondLook = Literal["linked", "all", "off"]
#: Words of a found sentence that follow the question.
TOLD_WORDS = 40
#: Windows that are read again because of a link: this share of all of the context's, or so many where that is more.
LINKED_SHARE, LINKED_WINDOWS = 1 / 3, 4


def told(query: str, sentence: str) -> str:
    """The query as a second look puts it, in training too: what was found follows it, at most TOLD_WORDS of it."""
    return f"{query} {' '.join(sentence.split()[:TOLD_WORDS])}".rstrip()


def heeded(fusion: Scorer | None) -> bool:
    """Whether a second look makes a difference to the scores: the head was fitted with what one says."""
    return isinstance(fusion, ContextHead) and fusion.looks_again


def look_again(
    items: Sequence[Sentences], evidence: Sequence[Evidence], read: Read, which: SecondLook
) -> list[Evidence]:
    """The evidence of the contexts with what a second look adds; all documents of all contexts are read in one call.

    read: the model's, see `PrunerModel.read`. Contexts of one document, or without links, stay as they are.
    """
    evidence = [replace(each, features=sentence_features(each.fusable)) for each in evidence]
    found = [list(_leads(each, which)) for each in evidence]
    passages = [_passage(item, lead) for item, mine in zip(items, found, strict=True) for lead in mine]
    readings = iter(read(passages) if passages else ())
    return [
        second_reading(item, each, {lead.document: next(readings) for lead in mine}) if mine else each
        for item, each, mine in zip(items, evidence, found, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Lead:
    """A document, by its place, and the sentence that leads to it."""

    document: int
    sentence: str


def _passage(item: Sentences, lead: Lead) -> Passage:
    first = item.passages()[lead.document]
    return replace(first, query=told(first.query, lead.sentence))


def _leads(whole: Evidence, which: SecondLook) -> Iterator[Lead]:
    """The documents to read again, the most promising first, within the bound on windows."""
    evidence = whole.fusable
    if len(evidence.titles) < 2:
        return
    order = prior_order(evidence, whole.features)
    found = links(evidence, order - order.max())
    home = int(evidence.document[found.best])
    others = range(len(evidence.titles)) if which == "all" else _naming(evidence, home, found)
    leads = dict.fromkeys(others, found.best)
    leads |= {place: int(found.linking[place]) for place in np.flatnonzero(found.linking >= 0).tolist()}
    leads.pop(home, None)  # what is best already needs no second look
    best = np.full(len(evidence.titles), -np.inf)
    np.maximum.at(best, evidence.document, order)
    left = len(evidence.window_rank) if which == "all" else _room(evidence)
    for place, sentence in sorted(leads.items(), key=lambda lead: (-order[lead[1]], -best[lead[0]])):
        windows = evidence.window[evidence.document == place]
        left -= int(windows[-1] - windows[0]) + 1
        if left < 0:
            return
        yield Lead(place, evidence.texts[sentence])


def _room(evidence: SentenceEvidence) -> int:
    return max(LINKED_WINDOWS, int(len(evidence.window_rank) * LINKED_SHARE))


def _naming(evidence: SentenceEvidence, home: int, found: Links) -> set[int]:
    """The documents with a sentence that names the document of the best one, where the question does not."""
    name = searched_name(evidence.titles[home])
    if not name or found.asked[home]:
        return set()
    pairs = zip(evidence.document.tolist(), evidence.texts, strict=True)
    return {place for place, text in pairs if name in text.lower()}
