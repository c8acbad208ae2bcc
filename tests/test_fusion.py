"""The score fusion: features by hand, the network against a plain loop, and a fit that learns what it should."""

import math
import random

import numpy as np
import pytest

from ctxprune.compressors.fusion import FEATURES, Fusion, SentenceEvidence, sentence_features
from ctxprune.qa import LabelledDocument, Question
from ctxprune.trainers.fusion import Example, contexts, fit, report
from ctxprune.types import Document


def evidence(**changes: object) -> SentenceEvidence:
    values = {
        "query": "granite bridge",
        "texts": ("The bridge is old.", "It is of granite.", "Ferries run hourly."),
        "titles": ("Harrow Bridge", ""),
        "document": np.array([0, 0, 1]),
        "keep": np.array([1.0, 2.0, -3.0]),
        "keep_top": np.array([1.5, 2.5, -2.0]),
        "answer": np.array([-4.0, -1.0, -6.0]),
        "rank": np.array([3.0, -2.0]),
    }
    return SentenceEvidence(**(values | changes))  # type: ignore[arg-type]


def column(table: np.ndarray, name: str) -> list[float]:
    return table[:, FEATURES.index(name)].tolist()


def test_features_of_a_small_context() -> None:
    table = sentence_features(evidence())
    assert table.shape == (3, len(FEATURES))
    assert column(table, "keep_gap") == [-1.0, 0.0, -5.0]
    assert column(table, "rank") == [3.0, 3.0, -2.0]
    assert column(table, "rank_gap") == [0.0, 0.0, -5.0]
    assert column(table, "before") == [-6.0, 1.0, -6.0]
    assert column(table, "after") == [2.0, -6.0, -6.0]
    assert column(table, "first") == [1.0, 0.0, 1.0]
    assert column(table, "has_title") == [1.0, 1.0, 0.0]
    assert column(table, "share") == pytest.approx([0.5, 0.5, 0.0])
    assert column(table, "document_share") == pytest.approx([1.0, 1.0, 0.0])
    assert column(table, "title_share") == pytest.approx([0.5, 0.5, 0.0])
    assert np.mean(column(table, "bm25")) == pytest.approx(0.0, abs=1e-9)


def test_an_empty_context_has_no_rows() -> None:
    empty = np.zeros(0)
    none = evidence(
        texts=(), titles=(), document=np.zeros(0, int), keep=empty, keep_top=empty, answer=empty, rank=empty
    )
    assert sentence_features(none).shape == (0, len(FEATURES))


def random_fusion(hidden: int = 3) -> Fusion:
    rng = np.random.default_rng(0)
    n = len(FEATURES)
    return Fusion(
        rng.normal(size=n), 1 + rng.random(n), rng.normal(size=(n, hidden)), rng.normal(size=hidden),
        rng.normal(size=hidden), rng.normal(size=n), -0.5, rng.normal(size=4),
    )  # fmt: skip


def test_the_network_is_what_a_plain_loop_computes() -> None:
    fusion = random_fusion()
    row = sentence_features(evidence())[1]
    standard = [max(-5.0, min(5.0, (x - m) / s)) for x, m, s in zip(row, fusion.mean, fusion.scale, strict=True)]
    expected = fusion.bias + sum(x * w for x, w in zip(standard, fusion.linear, strict=True))
    for unit in range(3):
        inner = fusion.hidden_bias[unit] + sum(x * fusion.hidden[i, unit] for i, x in enumerate(standard))
        expected += math.tanh(inner) * fusion.out[unit]
    assert fusion.logits(row[None])[0] == pytest.approx(expected)


def test_saved_and_read_back_it_scores_the_same() -> None:
    fusion = random_fusion()
    again = Fusion.from_dict(fusion.to_dict())
    for mine, other in zip(fusion.score(evidence()), again.score(evidence()), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


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
        keep_top=rng.normal(size=n),
        answer=rng.normal(size=n),
        rank=rng.normal(size=4) + 4 * gold,
    )
    return Example(sentence_features(made), labels, np.ones(n, bool), made, gold, "made")


def test_a_fit_finds_the_evidence_and_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    train, test = [synthetic(rng) for _ in range(150)], [synthetic(rng) for _ in range(100)]
    fusion = fit(train, steps=300)
    assert report(test, fusion)["made"]["top1"] > 0.85
    assert report(test, fusion)["made"]["gold_first"] > 0.85
    probabilities = 1 / (1 + np.exp(-np.concatenate([fusion.logits(one.features) for one in test])))
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
