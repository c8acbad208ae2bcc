"""The score fusion: features by hand, the network against a plain loop, and a fit that learns what it should."""

import math
import random

import numpy as np
import pytest

from ctxprune.compressors.fusion import SENTENCE_FEATURES, Fusion, SentenceEvidence, sentence_features
from ctxprune.qa import LabelledDocument, Question
from ctxprune.text.lexical import bm25_scores
from ctxprune.trainers.fusion import Example, contexts, fit, report
from ctxprune.types import Document


def evidence(**changes: object) -> SentenceEvidence:
    values = {
        "query": "granite bridge",
        "texts": ("The bridge is old.", "It is of granite.", "Ferries run hourly."),
        "titles": ("Harrow Bridge", ""),
        "document": np.array([0, 0, 1]),
        "keep": np.array([1.0, 2.0, -3.0]),
        "answer": np.array([-4.0, -1.0, -6.0]),
        "rank": np.array([3.0, -2.0]),
    }
    return SentenceEvidence(**(values | changes))  # type: ignore[arg-type]


def column(table: np.ndarray, name: str) -> list[float]:
    return table[:, SENTENCE_FEATURES.index(name)].tolist()


def test_features_of_a_small_context() -> None:
    table = sentence_features(evidence())
    assert table.shape == (3, len(SENTENCE_FEATURES))
    assert column(table, "keep") == [1.0, 2.0, -3.0]
    assert column(table, "rank") == [3.0, 3.0, -2.0]
    bm25 = bm25_scores("granite bridge", evidence().texts, titles=["Harrow Bridge", "Harrow Bridge", ""])
    assert column(table, "bm25") == pytest.approx(((bm25 - bm25.mean()) / bm25.std()).tolist(), abs=1e-5)
    assert column(table, "document_bm25") == [max(column(table, "bm25")[:2])] * 2 + column(table, "bm25")[2:]
    assert column(table, "linked") == [0.0, 0.0, 0.0]


def test_a_title_named_by_the_question_or_by_another_documents_best_sentence_is_a_link() -> None:
    def linked(**changes: object) -> list[float]:
        return column(sentence_features(evidence(**changes)), "linked")

    assert linked(titles=("Lenn (river)", "Ostwick"), query="where is the lenn") == [1.0, 1.0, 0.0]
    texts = ("It leads to Calovert Quay.", "It is of granite.", "Ferries run hourly.")
    assert linked(texts=texts, titles=("Harrow", "Calovert Quay")) == [0.0, 0.0, 1.0]
    assert linked(texts=texts[::-1], titles=("Harrow", "Calovert Quay")) == [0.0, 0.0, 0.0]  # only itself


def test_an_empty_context_has_no_rows() -> None:
    empty = np.zeros(0)
    none = evidence(texts=(), titles=(), document=np.zeros(0, int), keep=empty, answer=empty, rank=empty)
    assert sentence_features(none).shape == (0, len(SENTENCE_FEATURES))
    assert [len(scores) for scores in random_fusion().score(none)] == [0, 0]


def random_fusion() -> Fusion:
    rng = np.random.default_rng(0)
    return Fusion(rng.normal(size=7), rng.normal(size=6), rng.normal(size=4), 0.7, -0.5)


def test_scores_are_what_a_plain_loop_computes() -> None:
    fusion, known = random_fusion(), evidence()
    table = sentence_features(known)
    order = [sum(x * w for x, w in zip(row, fusion.sentence, strict=True)) for row in table]
    level = fusion.bias + sum(
        x * w for x, w in zip((max(order), 2.0, -1.0, 3.0, math.log(3), math.log(2)), fusion.context, strict=True)
    )
    logits, ranks = fusion.score(known)
    assert logits == pytest.approx([0.7 * value + level for value in order])
    first = [3.0, max(order[:2]), column(table, "document_bm25")[0], 0.0]
    assert ranks[0] == pytest.approx(sum(x * w for x, w in zip(first, fusion.document, strict=True)))


def test_saved_and_read_back_it_scores_the_same() -> None:
    fusion = random_fusion()
    again = Fusion.from_dict(fusion.to_dict())
    for mine, other in zip(fusion.score(evidence()), again.score(evidence()), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


def test_weights_for_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="another version"):
        Fusion.from_dict(random_fusion().to_dict() | {"sentence": {"length": 1.0}})


def synthetic(rng: np.random.Generator) -> Example:
    """A context in which the kept sentence shows in `keep` and its document in `rank`, with noise."""
    n = 12
    document = np.repeat(np.arange(4), 3)
    labels = np.zeros(n)
    right = rng.integers(n)
    labels[right] = 1
    gold = (np.arange(4) == document[right]).astype(float)
    made = evidence(
        texts=tuple(f"Sentence {rng.integers(50)} number {i}." for i in range(n)),
        titles=("",) * 4,
        document=document,
        keep=rng.normal(size=n) + 4 * labels,
        answer=rng.normal(size=n),
        rank=rng.normal(size=4) + 4 * gold,
    )
    return Example(sentence_features(made), labels, np.ones(n, bool), made, gold, "made")


def test_a_fit_finds_the_evidence_and_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    train, test = [synthetic(rng) for _ in range(150)], [synthetic(rng) for _ in range(100)]
    fusion = fit(train)
    assert report(test, fusion)["made"]["top1"] > 0.85
    assert report(test, fusion)["made"]["gold_first"] > 0.85
    probabilities = 1 / (1 + np.exp(-np.concatenate([fusion.score(one.evidence)[0] for one in test])))
    assert probabilities.mean() == pytest.approx(1 / 12, abs=0.04)


def test_contexts_for_the_fit_hold_negatives_without_the_answer() -> None:
    texts = [
        f"The {name} bridge was opened in {year}. It is long."
        for name, year in zip("abcdefgh", range(1900, 1908), strict=True)
    ]
    questions = [
        Question(str(i), f"When was the {text[4]} bridge opened?", (str(1900 + i),), True,
                 (LabelledDocument(Document(text), True, ((31, 35),), ((0, 36),)),))
        for i, text in enumerate(texts)
    ]  # fmt: skip
    made = list(contexts(questions, random.Random(0)))
    assert len(made) == len(questions)
    for question, pairs in zip(questions, made, strict=True):
        assert all(question.answers[0] not in pair.text for pair in pairs if not pair.relevant)
    assert max(len(pairs) for pairs in made) > 1
