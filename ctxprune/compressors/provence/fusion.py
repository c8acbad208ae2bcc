"""What is known of a context's sentences, as features, and the linear model that weighs them into keep log-odds.

Token evidence alone loses to BM25 far from the training domain, and to a reranker where the document matters more than
the sentence; so the sentence's tokens, its document's relevance, the words it shares with the question and the links
between documents are weighed together. Few weights on purpose: a network fitted on the training domains did worse
outside of them. Fitted by `ctxprune.trainers.provence.fusion` on questions that the encoder was not trained on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctxprune.text.normal import readable
from ctxprune.text.words import bm25_scores

Array = npt.NDArray[np.float64]

#: Columns of `sentence_features`: what puts the sentences of one context in order.
SENTENCE_FEATURES = (
    "keep",  # log-odds of the sentence's mean keep probability
    "answer",  # highest answer log-odds of a token
    "rank",  # relevance log-odds of the document
    "bm25",  # BM25 among the context's sentences, standardised
    "document_bm25",  # the best of that in the document
    "linked",  # 1 if the question or a best sentence of another document names the document's title
    "expanded_bm25",  # as bm25, for the question with the words of the two best sentences (pseudo-relevance feedback)
)
#: Entries of `context_features`: how likely it is that anything in the context helps. They move all of its sentences
#: alike, so they calibrate probabilities across contexts and change no order within one.
CONTEXT_FEATURES = ("best_sentence", "best_keep", "best_answer", "best_rank", "sentences", "documents")
#: Columns of `document_features`.
DOCUMENT_FEATURES = ("rank", "best_sentence", "document_bm25", "linked")

#: Weights of a first guess at the order, by which the sentences that name or expand others are picked.
_GUESS = {"keep": 1.0, "rank": 1.0, "bm25": 2.0}
_NAMING, _EXPANDING, _SHORTEST_TITLE = 5, 2, 4
_QUALIFIER = re.compile(r"(?<!\s)\s*\([^()]*\)$")


@dataclass(frozen=True, slots=True)
class SentenceEvidence:
    """What the encoder says of one context's sentences, document by document.

    keep, answer: (n_sentences,) log-odds. document: (n_sentences,) int, the place of its document, ascending.
    rank: (n_documents,) log-odds, of each document's best window. texts: the sentences. titles: one a document.
    peak: (n_sentences,) the highest keep log-odds of a token. tokens: (n_sentences,) how many there are. window:
    (n_sentences,) int, the window that the sentence was read in, numbered over the context, ascending; window_rank:
    (n_windows,) log-odds. A long document is judged by its windows, as a retriever's passages would be.
    """

    query: str
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    document: npt.NDArray[np.int64]
    keep: Array
    answer: Array
    rank: Array
    peak: Array
    tokens: Array
    window: npt.NDArray[np.int64]
    window_rank: Array


@dataclass(frozen=True, slots=True)
class Fusion:
    """Linear weights of the features, and how their sum becomes log-odds.

    sentence: (7,) of `SENTENCE_FEATURES`. context: (6,) of `CONTEXT_FEATURES`. document: (4,) of `DOCUMENT_FEATURES`.
    log-odds of a sentence = slope * (sentence . features) + context . features + bias.
    """

    sentence: Array
    context: Array
    document: Array
    slope: float
    bias: float

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Fusion:
        """Raises KeyError, TypeError or ValueError for what `to_dict` did not write."""
        sentence, context, document = (_weights(values[name]) for name in ("sentence", "context", "document"))
        return cls(sentence, context, document, float(str(values["slope"])), float(str(values["bias"])))

    def to_dict(self) -> dict[str, object]:
        """Weights by name, as pruner.json holds them."""
        return {
            "sentence": _named(SENTENCE_FEATURES, self.sentence),
            "context": _named(CONTEXT_FEATURES, self.context),
            "document": _named(DOCUMENT_FEATURES, self.document),
            "slope": round(self.slope, 5),
            "bias": round(self.bias, 5),
        }

    def score(self, evidence: SentenceEvidence) -> tuple[Array, Array]:
        """Keep log-odds of the sentences (n_sentences,) and relevance log-odds of the documents (n_documents,)."""
        features = sentence_features(evidence)
        order = features @ self.sentence
        level = context_features(evidence, order) @ self.context + self.bias
        return self.slope * order + level, document_features(evidence, features, order) @ self.document


def sentence_features(evidence: SentenceEvidence) -> Array:
    """(n_sentences, 7); the columns are named in `SENTENCE_FEATURES`."""
    if not evidence.texts:
        return np.zeros((0, len(SENTENCE_FEATURES)))
    of = evidence.document
    rank = evidence.rank[of]
    bm25 = _standard_bm25(evidence.query, evidence)
    guess = _GUESS["keep"] * evidence.keep + _GUESS["rank"] * rank + _GUESS["bm25"] * bm25
    best = np.argsort(-guess, kind="stable")
    expanding = " ".join(f"{evidence.texts[i]} {evidence.titles[of[i]]}" for i in best[:_EXPANDING])
    columns = {
        "keep": evidence.keep,
        "answer": evidence.answer,
        "rank": rank,
        "bm25": bm25,
        "document_bm25": _by_document(bm25, evidence)[of],
        "linked": _linked(evidence, best[:_NAMING].tolist())[of],
        "expanded_bm25": _standard_bm25(f"{evidence.query} {expanding}", evidence),
    }
    return np.stack([columns[name] for name in SENTENCE_FEATURES], axis=1)


def context_features(evidence: SentenceEvidence, order: Array) -> Array:
    """(6,), named in `CONTEXT_FEATURES`: four maxima and the logarithms of the numbers of sentences and documents.

    order: (n_sentences,) weighted sums of the sentence features. Their maximum is needed since standardised scores
    reach higher among many sentences than among few.
    """
    if not evidence.texts:
        return np.zeros(len(CONTEXT_FEATURES))
    best = (order.max(), evidence.keep.max(), evidence.answer.max(), evidence.rank.max())
    return np.array([*best, np.log(len(evidence.texts)), np.log(len(evidence.titles))])


def document_features(evidence: SentenceEvidence, features: Array, order: Array) -> Array:
    """(n_documents, 4), named in `DOCUMENT_FEATURES`. features, order: of the sentences."""
    best = _by_document(order, evidence)
    columns = features[:, [SENTENCE_FEATURES.index("document_bm25"), SENTENCE_FEATURES.index("linked")]]
    shared = np.zeros((len(evidence.titles), 2))
    shared[evidence.document] = columns
    return np.column_stack([evidence.rank, best, shared])


def _standard_bm25(query: str, evidence: SentenceEvidence) -> Array:
    titles = [evidence.titles[place] for place in evidence.document]
    scores = bm25_scores(query, evidence.texts, titles=titles)
    standard: Array = (scores - scores.mean()) / (scores.std() + 1e-6)
    return standard


def _by_document(scores: Array, evidence: SentenceEvidence) -> Array:
    """The highest score of each document's sentences; (n_documents,)."""
    best = np.full(len(evidence.titles), -np.inf)
    np.maximum.at(best, evidence.document, scores)
    return best


def _linked(evidence: SentenceEvidence, best: list[int]) -> Array:
    """1 for each document whose title, without a bracketed qualifier, is named where it counts; (n_documents,).

    Questions of several steps name one thing and ask about another, which only a sentence of the first leads to.
    """
    query = readable(evidence.query).lower()
    naming = [(int(evidence.document[i]), evidence.texts[i].lower()) for i in best]
    linked = np.zeros(len(evidence.titles))
    for place, title in enumerate(evidence.titles):
        if name := searched_name(title):
            linked[place] = name in query or any(name in text for other, text in naming if other != place)
    return linked


def searched_name(title: str) -> str:
    """What sentences call a document: its title in lower case without brackets; "" if that is too short to tell."""
    name = without_qualifier(title).lower()
    return name if len(name) >= _SHORTEST_TITLE else ""


def without_qualifier(title: str) -> str:
    """A title as it is read, without the brackets at its end: "Mercury" of "Mercury (planet)"."""
    return _QUALIFIER.sub("", readable(title).strip()).strip()


def _named(names: tuple[str, ...], weights: Array) -> dict[str, float]:
    return {name: round(float(weight), 5) for name, weight in zip(names, weights, strict=True)}


def _weights(named: object) -> Array:
    if not isinstance(named, dict):
        raise TypeError(f"weights must be given by name, got {type(named).__name__}")
    known = {frozenset(names): names for names in (SENTENCE_FEATURES, CONTEXT_FEATURES, DOCUMENT_FEATURES)}
    names = known.get(frozenset(named))
    if names is None:
        raise ValueError(f"unknown features {sorted(named)}; the export belongs to another version of ctxprune")
    return np.array([float(named[name]) for name in names])
