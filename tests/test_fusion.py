"""The linear score fusion of older exports: features by hand, scores against a plain loop."""

import math

import numpy as np
import pytest

from ctxprune.compressors.provence.fusion import SENTENCE_FEATURES, Fusion, SentenceEvidence, sentence_features
from ctxprune.text.words import bm25_scores


def evidence(**changes: object) -> SentenceEvidence:
    values = {
        "query": "granite bridge",
        "texts": ("The bridge is old.", "It is of granite.", "Ferries run hourly."),
        "titles": ("Harrow Bridge", ""),
        "document": np.array([0, 0, 1]),
        "keep": np.array([1.0, 2.0, -3.0]),
        "answer": np.array([-4.0, -1.0, -6.0]),
        "rank": np.array([3.0, -2.0]),
        "peak": np.array([2.0, 3.0, -1.0]),
        "tokens": np.array([5.0, 5.0, 4.0]),
        "window": np.array([0, 0, 1]),
        "window_rank": np.array([3.0, -2.0]),
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
    none = evidence(
        texts=(), titles=(), document=np.zeros(0, int), keep=empty, answer=empty, rank=empty, peak=empty, tokens=empty,
        window=np.zeros(0, int), window_rank=empty,
    )  # fmt: skip
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
