"""A small calibrated model that turns everything known of a sentence into one keep probability.

Token evidence alone loses to BM25 far from the training domain, and to a reranker where the document matters more than
the sentence; so the sentence's tokens, its document's relevance and its words in common with the question are weighed
together. Fitted on held-out training questions by `ctxprune.trainers.fusion`; part of the exported model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctxprune.lexical import bm25_scores, index_terms, query_terms

Array = npt.NDArray[np.float64]

#: The columns of `sentence_features`, in order. "gap" columns are relative to the best sentence of the whole context.
FEATURES = (
    "keep",  # log-odds of the mean keep probability
    "keep_top",  # mean keep log-odds of the top quarter of the tokens
    "answer",  # highest answer log-odds of a token
    "rank",  # relevance log-odds of the document
    "bm25",  # BM25 among the context's sentences, standardised
    "share",  # share of the question's idf found in the sentence
    "document_share",  # ... in the document and its title
    "title_share",  # ... in the title
    "keep_gap",
    "answer_gap",
    "rank_gap",
    "bm25_gap",
    "before",  # log-odds of the sentence before, within the document
    "after",
    "length",  # log words
    "first",  # 1 for the document's first sentence
    "documents",  # log number of documents in the context
    "has_title",
)


@dataclass(frozen=True, slots=True)
class SentenceEvidence:
    """What the encoder says of one context's sentences, document by document.

    keep, keep_top, answer: (n_sentences,) log-odds. document: (n_sentences,) int, the place of its document, ascending.
    rank: (n_documents,) log-odds. texts: the sentences. titles: one a document.
    """

    query: str
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    document: npt.NDArray[np.int64]
    keep: Array
    keep_top: Array
    answer: Array
    rank: Array


@dataclass(frozen=True, slots=True)
class Fusion:
    """A network of one hidden layer over standardised features, and linear weights for the document's score.

    mean, scale: (n_features,). hidden: (n_features, n_hidden), hidden_bias: (n_hidden,). out: (n_hidden,). linear:
    (n_features,). bias: float. document: weights of (rank, best sentence log-odds, document share, title share).
    """

    mean: Array
    scale: Array
    hidden: Array
    hidden_bias: Array
    out: Array
    linear: Array
    bias: float
    document: Array

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Fusion:
        arrays = {name: np.asarray(values[name], dtype=np.float64) for name in cls.__slots__ if name != "bias"}
        return cls(**arrays, bias=float(values["bias"]))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        arrays = {name: np.round(getattr(self, name), 5).tolist() for name in self.__slots__ if name != "bias"}
        return {**arrays, "bias": round(self.bias, 5), "features": list(FEATURES)}

    def logits(self, features: Array) -> Array:
        """features: (n_sentences, n_features). Returns keep log-odds (n_sentences,)."""
        standard = np.clip((features - self.mean) / self.scale, -5.0, 5.0)
        raised = np.tanh(standard @ self.hidden + self.hidden_bias)
        fused: Array = raised @ self.out + standard @ self.linear + self.bias
        return fused

    def score(self, evidence: SentenceEvidence) -> tuple[Array, Array]:
        """Keep log-odds of the sentences (n_sentences,) and relevance log-odds of the documents (n_documents,)."""
        features = sentence_features(evidence)
        logits = self.logits(features)
        return logits, document_features(evidence, features, logits) @ self.document


def sentence_features(evidence: SentenceEvidence) -> Array:
    """(n_sentences, len(FEATURES)); the columns are named in `FEATURES`."""
    n = len(evidence.texts)
    if not n:
        return np.zeros((0, len(FEATURES)))
    of = evidence.document
    bm25 = bm25_scores(evidence.query, evidence.texts, titles=[evidence.titles[place] for place in of])
    standard = (bm25 - bm25.mean()) / (bm25.std() + 1e-6)
    share, document_share, title_share = _shares(evidence)
    first = np.ones(n, dtype=bool)
    first[1:] = of[1:] != of[:-1]
    before = np.where(first, -6.0, np.roll(evidence.keep, 1))
    after = np.where(np.append(first[1:], True), -6.0, np.roll(evidence.keep, -1))
    rank = evidence.rank[of]
    titled = np.array([bool(title) for title in evidence.titles])[of]
    columns = {
        "keep": evidence.keep,
        "keep_top": evidence.keep_top,
        "answer": evidence.answer,
        "rank": rank,
        "bm25": standard,
        "share": share,
        "document_share": document_share[of],
        "title_share": title_share[of],
        "keep_gap": evidence.keep - evidence.keep.max(),
        "answer_gap": evidence.answer - evidence.answer.max(),
        "rank_gap": rank - evidence.rank.max(),
        "bm25_gap": standard - standard.max(),
        "before": before,
        "after": after,
        "length": np.log1p([len(text.split()) for text in evidence.texts]),
        "first": first.astype(float),
        "documents": np.full(n, np.log(len(evidence.titles))),
        "has_title": titled.astype(float),
    }
    return np.stack([columns[name] for name in FEATURES], axis=1)


def document_features(evidence: SentenceEvidence, features: Array, logits: Array) -> Array:
    """(n_documents, 4): relevance log-odds, best sentence's fused log-odds, document share, title share."""
    best = np.full(len(evidence.titles), -10.0)
    shares = np.zeros((len(evidence.titles), 2))
    np.maximum.at(best, evidence.document, logits)
    shares[evidence.document] = features[:, [FEATURES.index("document_share"), FEATURES.index("title_share")]]
    return np.column_stack([evidence.rank, best, shares])


def _shares(evidence: SentenceEvidence) -> tuple[Array, Array, Array]:
    """Share of the question's idf, from the sentences' own frequencies, in each sentence, document and title."""
    wanted = query_terms(evidence.query)
    known = set(wanted)
    sentences = [known.intersection(index_terms(text)) for text in evidence.texts]
    titles = [known.intersection(index_terms(title)) for title in evidence.titles]
    documents = [set(title) for title in titles]
    for place, terms in zip(evidence.document, sentences, strict=True):
        documents[place] |= terms
    counts = {term: sum(term in terms for terms in sentences) for term in wanted}
    weight = {term: float(np.log1p((len(sentences) - n + 0.5) / (n + 0.5))) for term, n in counts.items()}
    total = sum(weight.values()) or 1.0

    def share(sets: Sequence[set[str]]) -> Array:
        return np.array([sum(weight[term] for term in terms) / total for terms in sets])

    return share(sentences), share(documents), share(titles)
