"""Which candidate sentences a selector learns to prefer, by what they do for the generator or by gold labels, the rows
that hold them, and how well a ranking finds the gold ones.

RECOMP (Xu et al., ICLR 2024, section 3.1): the positive is the sentence with the best end-task result, the negatives
are similar sentences with a worse one, and questions without negatives are dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.recomp.vectors import titled
from ctxprune.data.questions import LabelledDocument, Question, is_relevant, locatable, locate_answers
from ctxprune.errors import InputError
from ctxprune.files import read_rows
from ctxprune.models.sentence_encoders import Embedder
from ctxprune.text import split_sentences
from ctxprune.text.words import bm25_scores

Unit = Literal["sentence", "passage"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` is the slice start:end of the text of the question's document number `document`.

    gold: whether it is known to answer or support; None when the document has no sentence labels.
    """

    document: int
    document_id: str
    title: str
    start: int
    end: int
    text: str
    gold: bool | None

    @property
    def titled(self) -> str:
        """As the encoder and the generator read it."""
        return titled(self.title, self.text)


def candidates(question: Question, unit: Unit = "sentence") -> list[Candidate]:
    """Every sentence, or passage, of the question's documents, in order."""
    return [
        candidate
        for place, labelled in enumerate(question.documents)
        for candidate in (_sentences(place, labelled) if unit == "sentence" else _passage(place, labelled))
    ]


def _sentences(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document, relevant = labelled.document, labelled.relevant
    found = []
    for span in split_sentences(document.text):
        gold = None if relevant is None else is_relevant((span.start, span.end), relevant)
        text = document.text[span.start : span.end]
        found.append(Candidate(place, document.id, document.title, span.start, span.end, text, gold))
    return found


def _passage(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document = labelled.document
    if not document.text.strip():
        return []
    whole = Candidate(place, document.id, document.title, 0, len(document.text), document.text, labelled.is_gold)
    return [whole]


def most_similar(question: str, pool: Sequence[Candidate], embedder: Embedder | None) -> list[int]:
    """Places in `pool`, the most similar to the question first: by BM25 and by the embedder in turn, or BM25 alone."""
    if not pool:
        return []
    texts = [each.titled for each in pool]
    orders = [np.argsort(-bm25_scores(question, texts), kind="stable")]
    if embedder is not None:
        vectors = embedder.embed([question, *texts])
        orders.append(np.argsort(-(vectors[1:] @ vectors[0]), kind="stable"))
    in_turn = np.stack(orders, axis=1).ravel()
    return list(dict.fromkeys(in_turn.tolist()))


def shortlist(question: Question, *, size: int, unit: Unit, embedder: Embedder | None) -> list[Candidate]:
    """At most `size` candidates of distinct texts: the gold ones, then the most similar to the question."""
    distinct: dict[str, Candidate] = {}
    for each in candidates(question, unit):
        known = distinct.get(each.titled)
        if known is None or (each.gold and not known.gold):
            distinct[each.titled] = each
    pool = list(distinct.values())
    order = most_similar(question.text, pool, embedder)
    ranked = [pool[place] for place in order]
    gold_first = sorted(ranked, key=lambda candidate: not candidate.gold)
    return gold_first[:size]


@dataclass(frozen=True, slots=True)
class Choice:
    """Places among a question's candidates; both sides are never empty."""

    positives: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question for contrastive training: texts with their titles, as the encoder reads them."""

    question: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


#: Why a question gives nothing to learn.
DROPPED = ("no positive", "no negative")


def by_worth(
    worth: Sequence[float], closed_book: float, gold: Sequence[bool | None], *, margin: float, negatives: int
) -> Choice | str:
    """worth: what each candidate makes of the answer, the most similar first; higher is better. Or one of `DROPPED`.

    The best is the positive if it beats `closed_book` by more than `margin`; the first `negatives` of those that are
    worse than it by more than `margin` are the negatives, without the gold ones: the generator may misjudge them.
    """
    best = max(range(len(worth)), key=worth.__getitem__, default=None)
    if best is None or worth[best] - closed_book <= margin:
        return DROPPED[0]
    worse = [place for place, value in enumerate(worth) if worth[best] - value > margin and not gold[place]]
    return Choice((best,), tuple(worse[:negatives])) if worse else DROPPED[1]


def by_gold(question: Question, shown: Sequence[Candidate], *, negatives: int) -> Choice | str:
    """Gold candidates are positives; others without any of the answers are negatives, in order. Or one of `DROPPED`."""
    positives = tuple(place for place, each in enumerate(shown) if each.gold)
    if not positives:
        return DROPPED[0]
    sought = locatable(question.answers)
    others = [place for place, each in enumerate(shown) if each.gold is False and not locate_answers(each.text, sought)]
    return Choice(positives, tuple(others[:negatives])) if others else DROPPED[1]


@dataclass(slots=True)
class Report:
    """Counts of a labelling run. agree: questions with gold candidates whose chosen positive is one of them."""

    questions: int = 0
    kept: int = 0
    with_gold: int = 0
    agree: int = 0
    no_answer: int = 0
    no_positive: int = 0
    no_negative: int = 0

    def add(self, choice: Choice | str, shown: Sequence[Candidate]) -> None:
        self.questions += 1
        if isinstance(choice, str):
            self.no_positive += choice == DROPPED[0]
            self.no_negative += choice == DROPPED[1]
            return
        self.kept += 1
        self.with_gold += any(each.gold for each in shown)
        self.agree += bool(shown[choice.positives[0]].gold)

    def to_dict(self) -> dict[str, int | float | None]:
        counts = {name: getattr(self, name) for name in self.__slots__}
        return counts | {"agreement": self.agree / self.with_gold if self.with_gold else None}


def label_row(
    question: Question,
    shown: Sequence[Candidate],
    choice: Choice,
    *,
    logliks: Sequence[float] | None = None,
    closed_book: float | None = None,
) -> dict[str, object]:
    """One line of a label file. logliks: of the answer after each candidate in nats; None for gold labels."""
    rows = [
        {
            "text": each.text,
            "title": each.title,
            "document": each.document_id,
            "start": each.start,
            "end": each.end,
            "gold": each.gold,
            "loglik": None if logliks is None else round(logliks[place], 4),
        }
        for place, each in enumerate(shown)
    ]
    return {
        "id": question.id,
        "question": question.text,
        "closed_book": None if closed_book is None else round(closed_book, 4),
        "positives": list(choice.positives),
        "negatives": list(choice.negatives),
        "candidates": rows,
    }


def read_labels(path: str | Path) -> Iterator[Labelled]:
    """Raises InputError, naming the line, for what `label_row` did not make."""
    for number, row in read_rows(Path(path)):
        try:
            texts = [titled(each["title"], each["text"]) for each in row["candidates"]]
            positives, negatives = (tuple(texts[place] for place in row[side]) for side in ("positives", "negatives"))
            labelled = Labelled(str(row["question"]), positives, negatives)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"{path}:{number}: no labels for a sentence selector ({type(error).__name__}: {error}); "
                "make them with python -m ctxprune.trainers.recomp.labels"
            ) from None
        if not positives or not negatives:
            raise InputError(f"{path}:{number}: a question needs a positive and a negative; label the file again")
        yield labelled


Scores = npt.NDArray[np.floating[Any]]
#: Texts in, one vector each out.
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
CUTOFFS = (1, 2, 3, 5)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A question with all texts to choose from and which of them are gold: at least one, and not all."""

    question: str
    texts: tuple[str, ...]
    gold: tuple[bool, ...]


def ranking_tasks(questions: Sequence[Question], unit: Unit = "sentence") -> list[Ranked]:
    """The questions whose gold candidates are known and that leave something to choose."""
    found = []
    for question in questions:
        pool = candidates(question, unit)
        gold = tuple(bool(each.gold) for each in pool)
        if any(gold) and not all(gold):
            found.append(Ranked(question.text, tuple(each.titled for each in pool), gold))
    return found


def retrieval_tasks(questions: Sequence[Question]) -> list[Ranked]:
    """The questions that have a gold passage, each with the distinct passages of all questions to choose from."""
    passages = {each.titled: None for question in questions for each in candidates(question, "passage")}
    texts = tuple(passages)
    found = []
    for question in questions:
        gold = {each.titled for each in candidates(question, "passage") if each.gold}
        if gold and len(gold) < len(texts):
            found.append(Ranked(question.text, texts, tuple(text in gold for text in texts)))
    return found


def with_distractors(questions: Sequence[Question], documents: int, *, seed: int) -> list[Question]:
    """Each question with up to `documents` documents: further ones come from the other questions, of the same title
    first, none that is known or that holds an answer; a file of single passages becomes a choice."""
    pool = {item.document.text: item for question in questions for item in question.documents}
    by_title: dict[str, list[LabelledDocument]] = {}
    for item in pool.values():
        by_title.setdefault(item.document.title, []).append(item)
    rng = random.Random(seed)
    everything = list(pool.values())
    return [_widened(question, documents, by_title, everything, rng) for question in questions]


def _widened(
    question: Question,
    documents: int,
    by_title: dict[str, list[LabelledDocument]],
    everything: Sequence[LabelledDocument],
    rng: random.Random,
) -> Question:
    missing = documents - len(question.documents)
    if missing <= 0:
        return question
    near = [item for title in {each.document.title for each in question.documents} for item in by_title[title]]
    further = [*rng.sample(near, len(near)), *rng.sample(everything, min(len(everything), 4 * documents))]
    sought, seen = locatable(question.answers), {item.document.text for item in question.documents}
    added: list[LabelledDocument] = []
    for item in further:
        text = item.document.text
        if len(added) < missing and text not in seen and not locate_answers(text, sought):
            seen.add(text)
            added.append(LabelledDocument(item.document, relevant=()))
    return replace(question, documents=(*question.documents, *added))


def gold_rank(scores: Scores, gold: Sequence[bool]) -> int:
    """The rank of the best gold one, from 1; others with the same score stand before it."""
    flags = np.array(gold)
    return 1 + int((scores[~flags] >= scores[flags].max()).sum())


def figures(ranks: Sequence[int], recalls: Sequence[dict[int, float]]) -> dict[str, float]:
    """Means over questions: mrr, hit@1, and recall@k, the share of gold ones among the k best, for the `CUTOFFS`."""
    found = {"mrr": float(np.mean([1 / rank for rank in ranks])), "hit@1": float(np.mean([r == 1 for r in ranks]))}
    return found | {f"recall@{k}": float(np.mean([each[k] for each in recalls])) for k in CUTOFFS}


def recall(scores: Scores, gold: Sequence[bool]) -> dict[int, float]:
    """The share of gold ones among the k best, for the `CUTOFFS`; equal scores in order."""
    order = np.argsort(-scores, kind="stable")
    flags = np.array(gold)
    return {k: float(flags[order[:k]].sum() / flags.sum()) for k in CUTOFFS}


def rank_by_vectors(tasks: Sequence[Ranked], embed_queries: Embed, embed_texts: Embed) -> list[Scores]:
    """Dot products of each question with its texts; every distinct text is embedded once."""
    texts = list(dict.fromkeys(text for task in tasks for text in task.texts))
    row = {text: place for place, text in enumerate(texts)}
    queries, vectors = embed_queries([task.question for task in tasks]), embed_texts(texts)
    return [vectors[[row[text] for text in task.texts]] @ query for task, query in zip(tasks, queries, strict=True)]


def rank_by_words(tasks: Sequence[Ranked]) -> list[Scores]:
    return [bm25_scores(task.question, task.texts) for task in tasks]


def measured(tasks: Sequence[Ranked], scores: Sequence[Scores]) -> dict[str, float]:
    """`figures` of a ranking of all tasks."""
    pairs = list(zip(tasks, scores, strict=True))
    return figures(
        [gold_rank(each, task.gold) for task, each in pairs], [recall(each, task.gold) for task, each in pairs]
    )
