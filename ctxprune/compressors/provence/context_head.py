"""The context head: an average of small networks that scores each sentence among its neighbours and the context's best.

It reads the evidence and features of `fusion.py` and more columns beside them; exports of today carry it. Fitted by
`ctxprune.trainers.provence.fusion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.provence.fusion import (
    Array,
    Fusion,
    SentenceEvidence,
    document_features,
    searched_name,
    sentence_features,
)
from ctxprune.text.asked import has_what_is_asked
from ctxprune.text.leaning import open_leaning
from ctxprune.text.normal import readable
from ctxprune.text.words import language_of, term_presence

#: The order that holds far from the training domains: weights of `fusion.SENTENCE_FEATURES`, in their order.
PRIOR_ORDER = np.array([0.5, 0.2, 0.5, 1.0, 0.2, 1.5, 0.2])
#: 1 or -1 where the question asks for a number or the like, which is there or not; "leaning" in the text's language.
_OF_WORDS = ("has_asked", "leans")
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
    *("link_gap", "title_asked", "left_cover", "left_best_cover", "link", "link_on"),  # see `_links`
    *_OF_WORDS,
)
#: Evidence beyond this many standard deviations says no more.
_LIMIT = 4.0
_ALONE = -6.0  # log-odds of a neighbour that is not there
_UNLINKED = -8.0  # how far behind the context's best the naming sentence counts as, where none names the document
_NAMERS = 64  # so many of the best sentences are searched for titles
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
        columns = list(values["columns"])
        if not set(columns) <= set(COLUMNS) or len(set(columns)) < len(columns):
            raise ValueError("the context head was made for other columns; export again with this version of ctxprune")
        arrays = {name: np.array(values[name], dtype=np.float64) for name in cls.__dataclass_fields__}
        for name, missing in {"mean": 0.0, "scale": 1.0, "skip": 0.0, "hidden": 0.0}.items():
            arrays[name] = _spread(arrays[name], columns, missing)
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
        logits = self.logits(context_table(evidence, features, words=self._reads_words))
        ranks = document_features(evidence, features, logits) @ self.document if evidence.texts else evidence.rank
        return logits, ranks

    @property
    def _reads_words(self) -> bool:
        """Whether any weight is of the last columns; older heads know none of them."""
        last = slice(-len(_OF_WORDS), None)
        return bool(self.skip[:, last].any() or self.hidden[..., last].any())

    def logits(self, table: Array) -> Array:
        """table: (n_sentences, n_columns). Returns (n_sentences,)."""
        inputs = np.clip((table - self.mean) / self.scale, -_LIMIT, _LIMIT)
        total = np.zeros(len(table))
        for skip, hidden, shift, out, bias in zip(
            self.skip, self.hidden, self.hidden_bias, self.out, self.bias, strict=True
        ):
            total += inputs @ skip + np.tanh(inputs @ hidden.T + shift) @ out + bias
        return total / len(self.bias)


def _spread(weights: Array, columns: Sequence[str], missing: float) -> Array:
    """Weights of some columns, on the last axis, as weights of all `COLUMNS`: an older head knows fewer of them."""
    if weights.ndim == 0 or weights.shape[-1] != len(columns):
        raise ValueError(f"the context head names {len(columns)} columns, and has weights of shape {weights.shape}")
    wide = np.full((*weights.shape[:-1], len(COLUMNS)), missing)
    wide[..., [COLUMNS.index(name) for name in columns]] = weights
    return wide


def read_scorer(values: Mapping[str, Any]) -> Scorer:
    """What pruner.json holds under "fusion": a context head, or the linear fusion of older exports.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    return ContextHead.from_dict(values) if "columns" in values else Fusion.from_dict(dict(values))


def context_table(evidence: SentenceEvidence, features: Array | None = None, *, words: bool = True) -> Array:
    """(n_sentences, n_columns), named in `COLUMNS`. features: `sentence_features`, if they are there already.

    words: whether the last two columns are wanted, which cost time; 0 otherwise.
    """
    if not evidence.texts:
        return np.zeros((0, len(COLUMNS)))
    base = sentence_features(evidence) if features is None else features
    of, window = evidence.document, evidence.window
    n = len(evidence.texts)
    rank = evidence.window_rank[window]
    presence, titles = _question_words(evidence)
    cover, window_cover, title_cover = _covers(evidence, presence, titles)
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
        *_links(evidence, order - order.max(), presence, titles).T,
        *(_of_words(evidence) if words else (np.zeros(n),) * len(_OF_WORDS)),
    ]
    return np.stack(columns, axis=1)


def _of_words(evidence: SentenceEvidence) -> tuple[Array, Array]:
    """See the last two of `COLUMNS`."""
    asked = has_what_is_asked(readable(evidence.query), evidence.texts)
    leaning = open_leaning(evidence.texts, language_of(evidence.texts))
    return np.array(asked, dtype=np.float64), np.array(leaning, dtype=np.float64)


def _question_words(evidence: SentenceEvidence) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which words of the question stand in each sentence, (n_sentences, n_words), and title, (n_documents, n_words)."""
    texts = [*evidence.texts, *evidence.titles]  # in one go: the language, and so the words, are the same for both
    presence = term_presence(evidence.query, texts, language=language_of(evidence.texts))
    return presence[: len(evidence.texts)], presence[len(evidence.texts) :]


def _covers(
    evidence: SentenceEvidence, presence: npt.NDArray[np.bool_], titles: npt.NDArray[np.bool_]
) -> tuple[Array, Array, Array]:
    """Share of the question's words that stand in each sentence, in its window, and in its document's title."""
    if not presence.shape[1]:
        return (np.zeros(len(evidence.texts)),) * 3
    windows = np.zeros((len(evidence.window_rank), presence.shape[1]), dtype=bool)
    np.logical_or.at(windows, evidence.window, presence)
    return presence.mean(axis=1), windows.mean(axis=1)[evidence.window], titles.mean(axis=1)[evidence.document]


def _links(
    evidence: SentenceEvidence, gap: Array, presence: npt.NDArray[np.bool_], titles: npt.NDArray[np.bool_]
) -> Array:
    """(n_sentences, 6): clues for the second step of a question whose first step another document answers.

    gap: (n_sentences,) how far each is behind the context's best. A document is linked by the best sentence elsewhere
    that names its title. link_gap: that sentence's gap. title_asked: 1 if the question itself names the title.
    left_cover: share that stands here of the question's words which the linking sentence and its title leave open;
    left_best_cover: the same of the context's best sentence, for other documents than its own. link: e^link_gap;
    link_on: the same where the question does not name the title.
    """
    of = evidence.document
    best_first = sorted(range(len(gap)), key=lambda place: (-gap[place], evidence.texts[place]))[:_NAMERS]
    naming = [(place, evidence.texts[place].lower()) for place in best_first if gap[place] > _UNLINKED]
    query = readable(evidence.query).lower()
    linking = np.full(len(evidence.titles), -1)
    asked = np.zeros(len(evidence.titles))
    for number, title in enumerate(evidence.titles):
        if name := searched_name(title):
            asked[number] = name in query
            linking[number] = next((place for place, text in naming if of[place] != number and name in text), -1)
    linked = linking >= 0
    link_gap = np.where(linked, gap[linking], _UNLINKED)
    open_words = ~(presence[linking] | titles[of[linking]]) & linked[:, None]
    best = best_first[0]
    open_best = ~(presence[best] | titles[of[best]]) & (of != of[best])[:, None]
    link = np.exp(link_gap)
    shares = [_share(presence, open_words[of]), _share(presence, open_best)]
    return np.stack([link_gap[of], asked[of], *shares, link[of], (link * (1 - asked))[of]], axis=1)


def _share(presence: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> Array:
    """(n,) by row, the share of the words `of` that are present; 0 where there are none."""
    shares: Array = (presence & of).sum(axis=1) / np.maximum(of.sum(axis=1), 1)
    return shares


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
