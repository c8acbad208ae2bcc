"""How well a ranking finds gold sentences, or passages, among all of a question's: recall@k and reciprocal rank."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctxprune.answers import locatable, locate_answers
from ctxprune.qa import LabelledDocument, Question
from ctxprune.text.lexical import bm25_scores
from ctxprune.trainers.recomp_sentences import Unit, candidates

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
    drawn = [*rng.sample(near, len(near)), *rng.sample(everything, min(len(everything), 4 * documents))]
    sought, seen = locatable(question.answers), {item.document.text for item in question.documents}
    added: list[LabelledDocument] = []
    for item in drawn:
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
