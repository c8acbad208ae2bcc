"""A calibrated keep probability for every sentence of a context, whatever the context's size.

A sentence is judged by what the encoder says of it, by the words it shares with the question, by its neighbours, and by
how all of that compares with the rest of the context: the same evidence means something else in one paragraph than in a
book. All of it enters a small network (some hundred weights, several of them averaged), fitted by
`ctxprune.trainers.fusion` on contexts of one sentence to several whole articles. The scalar evidence of a set with its
maxima, ranks and sizes is a cheap stand-in for attention over the context; order of documents does not enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.fusion import Array, Fusion, SentenceEvidence, document_features, sentence_features
from ctxprune.text.lexical import language_of, term_presence

#: The order that holds far from the training domains: weights of `fusion.SENTENCE_FEATURES`, in their order.
PRIOR_ORDER = np.array([0.5, 0.2, 0.5, 1.0, 0.2, 1.5, 0.2])
#: Columns of `context_table`.
COLUMNS = (
    *("keep", "peak", "answer", "rank"),  # log-odds: of the sentence, its best token, its answer, its window
    *("cover", "window_cover", "title_cover"),  # share of the question's words in sentence, window and title
    *("length", "opening", "leaning"),  # log tokens; first of its document; begins with a pronoun or a connective
    *("keep_before", "keep_after", "cover_before"),  # of the neighbours within the document
    *("bm25", "window_bm25", "linked", "expanded_bm25"),  # standardised over the context, see fusion.SENTENCE_FEATURES
    *("keep_gap", "answer_gap", "rank_gap", "cover_gap"),  # how far behind the context's best
    *("order", "order_gap", "place"),  # the prior order, how far behind its best, log(1 + rank by it)
    *("best_keep", "best_answer", "best_rank", "best_cover"),  # of the whole context
    *("sentences", "windows", "documents"),  # logarithms of their numbers
)
#: Evidence beyond this many standard deviations says no more.
_LIMIT = 4.0
_ALONE = -6.0  # log-odds of a neighbour that is not there
_LEANING_WORDS = (
    "he she it they his its her their him them this that these those such there here both however but and so then "
    "therefore thus also nor yet still instead moreover otherwise afterwards later"
)
_LEANING = frozenset(_LEANING_WORDS.split())


class Scorer(Protocol):
    """Turns the evidence of a context into log-odds of its sentences and documents."""

    def score(self, evidence: SentenceEvidence) -> tuple[Array, Array]:
        """Keep log-odds of the sentences (n_sentences,) and relevance log-odds of the documents (n_documents,)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What pruner.json holds, see `read_scorer`."""
        ...


@dataclass(frozen=True, slots=True)
class ContextHead:
    """An average of small networks: x -> skip . x + out . tanh(hidden x + bias_hidden) + bias, x standardised.

    mean, scale: (n_columns,). skip: (n_networks, n_columns). hidden: (n_networks, width, n_columns). hidden_bias, out:
    (n_networks, width). bias: (n_networks,). document: (4,) weights of `fusion.DOCUMENT_FEATURES`, in which the best
    sentence enters by its log-odds here.
    """

    mean: Array
    scale: Array
    skip: Array
    hidden: Array
    hidden_bias: Array
    out: Array
    bias: Array
    document: Array

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ContextHead:
        """Raises KeyError, TypeError or ValueError for what `to_dict` did not write."""
        if tuple(values["columns"]) != COLUMNS:
            raise ValueError("the context head was made for other columns; export again with this version of ctxprune")
        arrays = {name: np.array(values[name], dtype=np.float64) for name in cls.__dataclass_fields__}
        head = cls(**arrays)
        networks, width = head.out.shape
        shapes = {
            "mean": (len(COLUMNS),),
            "scale": (len(COLUMNS),),
            "skip": (networks, len(COLUMNS)),
            "bias": (networks,),
        }
        shapes |= {"hidden": (networks, width, len(COLUMNS)), "hidden_bias": (networks, width), "document": (4,)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} of the context head must be finite and of shape {shape}")
        return head

    def to_dict(self) -> dict[str, Any]:
        """Weights with five digits, as pruner.json holds them."""
        arrays = {name: np.round(getattr(self, name), 5).tolist() for name in self.__dataclass_fields__}
        return {"columns": list(COLUMNS), **arrays}

    def score(self, evidence: SentenceEvidence) -> tuple[Array, Array]:
        """See `Scorer`."""
        features = sentence_features(evidence)
        logits = self.logits(context_table(evidence, features))
        ranks = document_features(evidence, features, logits) @ self.document if evidence.texts else evidence.rank
        return logits, ranks

    def logits(self, table: Array) -> Array:
        """table: (n_sentences, n_columns). Returns (n_sentences,)."""
        inputs = np.clip((table - self.mean) / self.scale, -_LIMIT, _LIMIT)
        total = np.zeros(len(table))
        for skip, hidden, shift, out, bias in zip(
            self.skip, self.hidden, self.hidden_bias, self.out, self.bias, strict=True
        ):
            total += inputs @ skip + np.tanh(inputs @ hidden.T + shift) @ out + bias
        return total / len(self.bias)


def read_scorer(values: Mapping[str, Any]) -> Scorer:
    """What pruner.json holds under "fusion": a context head, or the linear fusion of older exports.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    return ContextHead.from_dict(values) if "columns" in values else Fusion.from_dict(dict(values))


def context_table(evidence: SentenceEvidence, features: Array | None = None) -> Array:
    """(n_sentences, n_columns), named in `COLUMNS`. features: `sentence_features`, if they are there already."""
    if not evidence.texts:
        return np.zeros((0, len(COLUMNS)))
    base = sentence_features(evidence) if features is None else features
    of, window = evidence.document, evidence.window
    n = len(evidence.texts)
    rank = evidence.window_rank[window]
    cover, window_cover, title_cover = _covers(evidence)
    first = np.r_[True, of[1:] != of[:-1]]
    last = np.r_[first[1:], True]
    order = base @ PRIOR_ORDER + PRIOR_ORDER[2] * (rank - evidence.rank[of])
    window_bm25 = np.full(len(evidence.window_rank), -np.inf)
    np.maximum.at(window_bm25, window, base[:, 3])
    best = [evidence.keep.max(), evidence.answer.max(), rank.max(), cover.max()]
    sizes = [n, len(evidence.window_rank), len(evidence.titles)]
    columns = [
        *(evidence.keep, evidence.peak, evidence.answer, rank),
        *(cover, window_cover, title_cover),
        *(np.log1p(evidence.tokens), first.astype(float), _leaning(evidence.texts)),
        np.where(first, _ALONE, np.r_[_ALONE, evidence.keep[:-1]]),
        np.where(last, _ALONE, np.r_[evidence.keep[1:], _ALONE]),
        np.where(first, 0.0, np.r_[0.0, cover[:-1]]),
        *(base[:, 3], window_bm25[window], base[:, 5], base[:, 6]),
        *(evidence.keep - best[0], evidence.answer - best[1], rank - best[2], cover - best[3]),
        *(order, order - order.max(), np.log1p(_places(order))),
        *(np.full(n, value) for value in best),
        *(np.full(n, np.log(size)) for size in sizes),
    ]
    return np.stack(columns, axis=1)


def _covers(evidence: SentenceEvidence) -> tuple[Array, Array, Array]:
    """Share of the question's words that stand in each sentence, in its window, and in its document's title."""
    language = language_of(evidence.texts)
    presence = term_presence(evidence.query, evidence.texts, language=language)
    if not presence.shape[1]:
        return (np.zeros(len(evidence.texts)),) * 3
    windows = np.zeros((len(evidence.window_rank), presence.shape[1]), dtype=bool)
    np.logical_or.at(windows, evidence.window, presence)
    titles = term_presence(evidence.query, evidence.titles, language=language).mean(axis=1)
    return presence.mean(axis=1), windows.mean(axis=1)[evidence.window], titles[evidence.document]


def _places(order: Array) -> npt.NDArray[np.int64]:
    """0 for the best sentence, 1 for the next; equal ones share the better place, so that no order of documents
    enters."""
    values, which = np.unique(-order, return_inverse=True)
    counts = np.bincount(which, minlength=len(values))
    places: npt.NDArray[np.int64] = (np.cumsum(counts) - counts)[which]
    return places


def _leaning(texts: tuple[str, ...]) -> Array:
    first_words = (text.split(maxsplit=1)[:1] for text in texts)
    return np.array([float(bool(words) and words[0].strip(",.;:\"'").lower() in _LEANING) for words in first_words])
