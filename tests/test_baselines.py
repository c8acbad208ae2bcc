"""The training-free baselines, each against its own definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fixtures_vectors import BagEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.recomp.extractive import EmbeddingSentences
from ctxprune.compressors.sentences import BM25Sentences, Lead, RandomSentences, RerankTruncate
from ctxprune.errors import BudgetError, InputError
from ctxprune.prompt import render_context
from ctxprune.select import Policy
from ctxprune.text.words import bm25_scores
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Summary

VOLCANO = "Volcanoes erupt molten rock. Lava flows downhill. Ash travels far."
CAT = "Cats sleep most of the day. Cats hunt at night. A cat purrs."
RIVER = "Rivers carry water to the sea. Fish live there."
DOCUMENTS = (
    Document(VOLCANO, id="v", title="Volcano", score=0.1),
    Document(CAT, id="c", title="Cat", score=0.9),
    Document(RIVER, id="r", score=0.5),
)
CONTEXT = Context.of("When do cats hunt?", DOCUMENTS)


class Judge:
    """Scores a pair by how often a word occurs in the passage."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.pairs: list[tuple[str, str]] = []

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.pairs += pairs
        return [float(passage.lower().count(self.word)) for _, passage in pairs]


def compressors() -> list[ScoringCompressor]:
    counter = WordCounter()
    return [
        Lead(counter=counter),
        RandomSentences(counter=counter),
        BM25Sentences(counter=counter),
        EmbeddingSentences(BagEmbedder(), counter=counter),
        RerankTruncate(Judge("a"), counter=counter),
    ]


ALL = pytest.mark.parametrize("compressor", compressors(), ids=lambda compressor: compressor.name)


def text_of(compressor: ScoringCompressor, budget: int, context: Context = CONTEXT) -> str:
    return render_context(compressor.compress([context], budget=budget)[0])


@ALL
@given(
    texts=st.lists(st.text(alphabet="ab. \n漢é,", max_size=60), max_size=4),
    query=st.text(alphabet="ab漢 ", max_size=8),
    budget=st.integers(1, 30),
)
@settings(max_examples=40, deadline=None)
def test_kept_text_is_slices_of_the_source_within_the_budget(
    compressor: ScoringCompressor, texts: list[str], query: str, budget: int
) -> None:
    context = Context.of(query, [Document(text, title="t") for text in texts])
    (result,) = compressor.compress([context], budget=budget)
    assert len(render_context(result).split()) <= budget
    for before, after in zip(context.pieces, sorted(result.extracts, key=lambda extract: extract.index), strict=True):
        assert after.source is before.source  # type: ignore[union-attr]
        covered = "".join(after.source.text[unit.start : unit.end] for unit in after.units)
        assert "".join(covered.split()) == "".join(after.source.text.split())


@ALL
def test_a_large_budget_keeps_every_word(compressor: ScoringCompressor) -> None:
    (result,) = compressor.compress([CONTEXT], budget=1000)
    assert sorted(extract.text for extract in result.extracts) == sorted([VOLCANO, CAT, RIVER])


@ALL
def test_results_do_not_depend_on_the_batch(compressor: ScoringCompressor) -> None:
    others = [Context.of("lava?", DOCUMENTS[::-1]), Context.of("", []), Context.of("sea", ["", " "])]
    alone = compressor.compress([CONTEXT], budget=12)[0]
    assert compressor.compress([*others, CONTEXT], budget=12)[-1] == alone
    assert compressor.compress([], budget=12) == []


@ALL
def test_scores_only_rank(compressor: ScoringCompressor) -> None:
    with pytest.raises(BudgetError, match=f"{compressor.name} only ranks"):
        compressor.compress([CONTEXT])
    with pytest.raises(InputError, match="not probabilities"):
        compressor.compress([CONTEXT], threshold=0.5)


@ALL
def test_a_chain_narrows_what_is_kept(compressor: ScoringCompressor) -> None:
    first = BM25Sentences(counter=WordCounter()).compress([CONTEXT], budget=14)[0]
    (second,) = compressor.compress([first], budget=1000)
    kept = {extract.index: extract.text for extract in first.extracts}
    assert {extract.index: extract.text for extract in second.extracts} == kept


@ALL
def test_summaries_stay_where_they_are(compressor: ScoringCompressor) -> None:
    context = Context("cats", (*CONTEXT.pieces[:1], Summary("A summary.", (DOCUMENTS[0],)), *CONTEXT.pieces[1:]))
    (scored,) = compressor.score([context])
    assert [type(piece) for piece in scored.pieces] == [type(piece) for piece in context.pieces]
    assert [extract.index for extract in scored.extracts] == [0, 1, 2]


@given(budget=st.integers(1, 40))
def test_lead_is_the_beginning_of_the_context(budget: int) -> None:
    untitled = Context.of("q", [VOLCANO, CAT, RIVER])
    words = " ".join([VOLCANO, CAT, RIVER]).split()
    assert text_of(Lead(counter=WordCounter()), budget, untitled).split() == words[:budget]


def test_bm25_keeps_the_sentences_that_share_words() -> None:
    assert text_of(BM25Sentences(counter=WordCounter()), 5) == "Cat\nCats hunt at night."
    (scored,) = BM25Sentences().score([CONTEXT])
    units = [unit for extract in scored.extracts for unit in extract.units]
    sentences = [extract.source.text[unit.start : unit.end] for extract in scored.extracts for unit in extract.units]
    titles = ["Volcano"] * 3 + ["Cat"] * 3 + [""] * 2
    expected = bm25_scores("When do cats hunt?", sentences, titles=titles)
    assert [unit.score for unit in units] == pytest.approx(expected)
    assert [extract.score for extract in scored.extracts] == pytest.approx(
        [expected[:3].max(), expected[3:6].max(), expected[6:].max()]
    )


def test_random_is_a_fixed_draw_for_a_seed_and_a_text() -> None:
    def order(seed: int, context: Context = CONTEXT) -> list[float]:
        (scored,) = RandomSentences(seed=seed).score([context])
        return [unit.score for extract in scored.extracts for unit in extract.units]

    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(10)}) == 10
    assert order(0) != order(0, Context.of("Another question?", DOCUMENTS))
    firsts = [int(np.argmax(order(seed))) for seed in range(400)]
    assert np.bincount(firsts, minlength=8).min() > 25  # each of 8 sentences comes first about 50 times


def test_embedding_scores_are_cosines() -> None:
    embedder = BagEmbedder()
    for with_title in (False, True):
        (scored,) = EmbeddingSentences(embedder, with_title=with_title).score([CONTEXT])
        cat = scored.extracts[1]
        sentences = [("Cat\n" if with_title else "") + CAT[unit.start : unit.end] for unit in cat.units]
        expected = embedder.embed(sentences) @ embedder.embed([CONTEXT.query])[0]
        assert [unit.score for unit in cat.units] == pytest.approx(expected, abs=1e-6)
        assert cat.score == pytest.approx(max(expected), abs=1e-6)


def test_the_bundled_encoder_knows_meaning() -> None:
    compressor = EmbeddingSentences(counter=WordCounter())
    context = Context.of("What comes out of a volcano?", [CAT, VOLCANO, RIVER])
    assert text_of(compressor, 4, context) == "Volcanoes erupt molten rock."


def test_rerank_keeps_whole_documents_best_first_and_cuts_the_last() -> None:
    judge = Judge("cat")
    rerank = RerankTruncate(judge, counter=WordCounter())
    assert text_of(rerank, 17) == f"Cat\n{CAT}\n\nVolcano\nVolcanoes erupt"
    assert judge.pairs[1] == ("When do cats hunt?", f"Cat\n{CAT}")
    (result,) = rerank.compress([CONTEXT], budget=17)
    assert [(extract.index, extract.score) for extract in result.extracts] == [(1, 4.0), (0, 0.0), (2, 0.0)]


def test_rerank_in_document_order_when_the_policy_says_so() -> None:
    rerank = RerankTruncate(Judge("cat"), counter=WordCounter(), policy=Policy(keep_title=False))
    assert text_of(rerank, 15) == f"Volcanoes erupt\n\n{CAT}"


def test_rerank_to_a_number_of_whole_documents_with_a_budget_and_without() -> None:
    rerank = RerankTruncate(Judge("cat"), counter=WordCounter(), top_n=2)
    (result,) = rerank.compress([CONTEXT])
    assert [extract.text for extract in result.extracts] == [CAT, VOLCANO, ""]
    assert text_of(rerank, 17) == f"Cat\n{CAT}\n\nVolcano\nVolcanoes erupt"
    assert text_of(rerank, 400) == f"Cat\n{CAT}\n\nVolcano\n{VOLCANO}"
    assert rerank.about.reads == {"top_n": "2"}
    with pytest.raises(BudgetError, match="needs a budget"):
        RerankTruncate(Judge("cat")).compress([CONTEXT])
    for wrong in (0, True, 1.5, "2"):
        with pytest.raises(InputError, match="top_n must be a whole number from 1 up"):
            RerankTruncate(Judge("cat"), top_n=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Policy\(top_n=2\) would count words; pass top_n=2 to load"):
        RerankTruncate(Judge("cat"), policy=Policy(top_n=2))


def test_rerank_by_the_scores_of_the_retriever() -> None:
    rerank = RerankTruncate("retriever", counter=WordCounter())
    assert text_of(rerank, 23) == f"Cat\n{CAT}\n\n{RIVER}"
    with pytest.raises(InputError, match="document 1 has no retriever score"):
        rerank.compress([Context.of("q", [DOCUMENTS[0], "plain"])], budget=5)


def test_rerank_by_a_judge_of_documents() -> None:
    class ByLength:
        def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
            return [[-float(len(extract.source.text)) for extract in context.extracts] for context in contexts]

    assert text_of(RerankTruncate(ByLength(), counter=WordCounter()), 3) == "Rivers carry water"


def test_a_judge_that_miscounts_is_told() -> None:
    class Mute:
        def __init__(self, *scores: float) -> None:
            self.scores = scores

        def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
            return [list(self.scores) for _ in contexts]

        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return []

    class MutePairs:
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return []

    with pytest.raises(InputError, match="gave 1 scores for 3 documents"):
        text_of(RerankTruncate(Mute(1.0)), 5)
    with pytest.raises(InputError, match="gave nan for document 2"):
        text_of(RerankTruncate(Mute(1.0, 2.0, float("nan"))), 5)
    with pytest.raises(InputError, match="gave 0 scores for 3 pairs"):
        text_of(RerankTruncate(MutePairs()), 5)
    with pytest.raises(InputError, match="or be 'retriever', got 'bm25'"):
        RerankTruncate("bm25")  # type: ignore[arg-type]
