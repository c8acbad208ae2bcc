"""Retrievers over small corpora: what they find, what they save, and what they leave alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fixtures_vectors import BagEmbedder
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from tokenizers import Tokenizer, models, pre_tokenizers

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.sentence_encoders import WINDOW_TOKENS, BundledEncoder, SentenceTransformerEncoder, load_embedder
from ctxprune.retrievers import (
    BM25Retriever,
    DenseRetriever,
    HybridRetriever,
    LangChainRetriever,
    PrecomputedRetriever,
    Retriever,
    retrieve_contexts,
)
from ctxprune.retrievers.base import top_k
from ctxprune.runtime import TokenSequence
from ctxprune.text.words import index_terms, query_terms
from ctxprune.types import Document

CORPUS = (
    Document("Volcanoes erupt molten rock.", id="a", title="Volcano", metadata={"page": 3, "tags": ["geo"]}),
    Document("Cats sleep most of the day.", id="b", title="Cat"),
    Document("Cats sleep most of the day.", id="b", title="Cat"),
    Document("Rivers carry water to the sea.", title="River"),
    Document("", id="empty"),
    Document("The cat and the volcano: a fable \ud800.", metadata={"page": 9}),
)


def built(kind: str) -> Retriever:
    return BM25Retriever(CORPUS) if kind == "bm25" else DenseRetriever(CORPUS, BagEmbedder())


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_the_right_document_comes_first_and_keeps_its_metadata(kind: str) -> None:
    before = deepcopy(CORPUS)
    volcano, cat = built(kind).retrieve(["volcanoes erupt molten rock", "a cat's sleep"], 3)
    assert (volcano[0].id, volcano[0].metadata) == ("a", {"page": 3, "tags": ["geo"]})
    assert [document.id for document in cat[:2]] == ["b", "b"]
    assert all(left.score >= right.score for left, right in pairwise(volcano))  # type: ignore[operator]
    assert before == CORPUS
    assert all(document.score is None for document in CORPUS)


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_a_saved_index_answers_alike(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    retriever = built(kind)
    retriever.save(tmp_path / "index")  # type: ignore[attr-defined]
    loaded = (
        BM25Retriever.load(tmp_path / "index")
        if kind == "bm25"
        else DenseRetriever.load(tmp_path / "index", BagEmbedder())
    )
    queries = ["cat", "volcano fable", "where does the water go", "漢字", ""]
    assert loaded.retrieve(queries, 4) == retriever.retrieve(queries, 4)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_a_damaged_index_is_named(kind: str, tmp_path: Path) -> None:
    load = {"bm25": BM25Retriever.load, "dense": lambda path: DenseRetriever.load(path, BagEmbedder())}[kind]
    with pytest.raises(CheckpointError, match="nowhere"):
        load(tmp_path / "nowhere")
    folder = tmp_path / "index"
    built(kind).save(folder)  # type: ignore[attr-defined]
    lines = (folder / "documents.jsonl").read_text().splitlines(keepends=True)
    (folder / "documents.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(CheckpointError, match="5 of 6 documents"):
        load(folder)
    built(kind).save(folder)  # type: ignore[attr-defined]
    for file in folder.glob("*index*"):
        file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot load a retriever"):
        load(folder)


def test_an_index_of_another_kind_or_embedder_is_refused(tmp_path: Path) -> None:
    built("dense").save(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="holds a 'dense' index"):
        BM25Retriever.load(tmp_path)
    other = BagEmbedder()
    other.name = "other"
    with pytest.raises(CheckpointError, match="built with embedder 'bag'"):
        DenseRetriever.load(tmp_path, other)


def test_metadata_that_json_cannot_hold_is_named(tmp_path: Path) -> None:
    retriever = BM25Retriever([Document("text", id="x", metadata={"raw": object()})])
    with pytest.raises(InputError, match=r"documents\[0\] with id 'x'"):
        retriever.save(tmp_path)


WORDS = st.lists(st.sampled_from(["cat", "river", "rock", "sea"]), max_size=6).map(" ".join)


@given(texts=st.lists(WORDS, min_size=1, max_size=8), query=WORDS, k=st.integers(1, 10))
def test_bm25_is_the_formula_over_the_corpus(texts: list[str], query: str, k: int) -> None:
    found = BM25Retriever([Document(text, id=str(place)) for place, text in enumerate(texts)]).retrieve([query], k)[0]
    bags = [Counter(index_terms(text) or [""]) for text in texts]
    mean = sum(map(Counter.total, bags)) / len(bags)
    expected = []
    for bag in bags:
        score = 0.0
        for term in query_terms(query):
            holders = sum(term in other for other in bags)
            idf = math.log(1 + (len(bags) - holders + 0.5) / (holders + 0.5))
            score += idf * bag[term] / (bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / mean))
        expected.append(score)
    best = sorted((score for score in expected if score > 0), reverse=True)[:k]
    assert [document.score for document in found] == pytest.approx(best, rel=1e-5)
    assert [expected[int(document.id)] for document in found] == pytest.approx(best, rel=1e-5)


def test_bm25_finds_a_query_of_stop_words_and_no_match_for_none() -> None:
    retriever = BM25Retriever([Document("The Who played in Leeds."), Document("Rivers flow.")])
    assert len(retriever.retrieve(["the who"], 5)[0]) == 1
    assert retriever.retrieve(["zebra", "?!", ""], 5) == [[], [], []]


def test_bm25_over_texts_without_a_word() -> None:
    assert BM25Retriever([Document(""), Document("?!")]).retrieve(["cat"], 2) == [[]]


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12),
    k=st.integers(1, 14),
)
def test_top_k_is_a_stable_sort_of_the_positive(scores: list[float], k: int) -> None:
    slow = sorted((place for place, score in enumerate(scores) if score > 0), key=lambda place: -scores[place])
    assert top_k(np.array(scores, dtype=np.float32), k).tolist() == slow[:k]


def test_dense_is_exact_by_default() -> None:
    rng = np.random.default_rng(0)
    documents = [Document(" ".join(rng.choice(["cat", "rock", "sea", "day"], 5)), id=str(at)) for at in range(50)]
    embedder = BagEmbedder()
    cosines = embedder.embed([document.text for document in documents]) @ embedder.embed(["cat sea sea"])[0]
    found = DenseRetriever(documents, embedder).retrieve(["cat sea sea"], 7)[0]
    assert [document.score for document in found] == pytest.approx(sorted(cosines, reverse=True)[:7])
    assert [cosines[int(document.id)] for document in found] == pytest.approx([document.score for document in found])


def test_dense_by_another_index_and_by_none_such() -> None:
    approximate = DenseRetriever(CORPUS, BagEmbedder(), index_factory="HNSW8")
    assert approximate.retrieve(["volcanoes erupt molten rock"], 1)[0][0].id == "a"
    with pytest.raises(InputError, match="'Flatt' over 6 vectors"):
        DenseRetriever(CORPUS, BagEmbedder(), index_factory="Flatt")


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_bad_calls(kind: str) -> None:
    with pytest.raises(InputError, match="k must be at least 1"):
        built(kind).retrieve(["cat"], 0)
    with pytest.raises(InputError, match="got one string"):
        built(kind).retrieve("cat", 1)
    with pytest.raises(InputError, match="at least one document"):
        type(built(kind))([])  # type: ignore[call-arg]
    assert built(kind).retrieve([], 3) == []


class Fixed:
    """A ranking decided beforehand."""

    def __init__(self, *documents: Document) -> None:
        self.documents = documents

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        return [list(self.documents[:k]) for _ in queries]


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    one, two, three = (Document(text, id="same", score=9.0) for text in ("one", "two", "three"))
    hybrid = HybridRetriever([Fixed(one, two), Fixed(three, two)], k_rrf=60)
    found = hybrid.retrieve(["q"], 5)[0]
    assert [document.text for document in found] == ["two", "one", "three"]
    assert [document.score for document in found] == pytest.approx([1 / 62 + 1 / 62, 1 / 61, 1 / 61])
    assert [document.text for document in hybrid.retrieve(["q"], 1)[0]] == ["two"]
    assert one.score == 9.0


def test_fusion_keeps_true_duplicates_apart() -> None:
    twin = [Document("twin", metadata={"page": page}) for page in (1, 2)]
    found = HybridRetriever([Fixed(*twin), Fixed(*twin)]).retrieve(["q"], 5)[0]
    assert [document.metadata["page"] for document in found] == [1, 2]


def test_fusion_of_bm25_and_dense() -> None:
    hybrid = HybridRetriever([built("bm25"), built("dense")])
    contexts = retrieve_contexts(hybrid, ["volcanoes erupt molten rock", "cat sleep"], 2)
    assert [context.query for context in contexts] == ["volcanoes erupt molten rock", "cat sleep"]
    assert contexts[0].extracts[0].source.id == "a"
    assert len(contexts[1].pieces) == 2
    with pytest.raises(InputError, match="at least one retriever"):
        HybridRetriever([])


def test_precomputed_documents_come_by_question(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "documents": [{"text": "one", "id": "1", "score": 0.5, "page": 4}, "two", "two"]},
        {"question": "Why?", "documents": ["three"]},
        {"question": "Who?", "documents": ["two", "four"]},
    ]
    path = tmp_path / "found.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    retriever = PrecomputedRetriever.from_jsonl(path)
    why, who = retriever.retrieve(["Why?", "Who?"], 9)
    assert [document.text for document in why] == ["three"]
    assert [(document.text, document.score) for document in who] == [
        ("one", 0.5),
        ("two", 1 / 2),
        ("two", 1 / 3),
        ("four", 1 / 4),
    ]
    assert who[0].metadata["page"] == 4
    assert len(retriever.retrieve(["Who?"], 2)[0]) == 2
    with pytest.raises(InputError, match="no precomputed documents for 'When"):
        retriever.retrieve(["When?"], 1)


class FromLangChain(BaseRetriever):
    """Three documents that name the query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[LangChainDocument]:
        return [
            LangChainDocument(f"{query} one", id="1", metadata={"title": "One", "relevance_score": np.float32(0.5)}),
            LangChainDocument(f"{query} two", metadata={"source": "f.pdf"}),
            LangChainDocument(f"{query} three", metadata={"title": 3, "score": True}),
        ]


def test_a_langchain_retriever_carries_ids_titles_scores_and_metadata() -> None:
    first, second = LangChainRetriever(FromLangChain()).retrieve(["cats", "dogs"], 2)
    assert first == [
        Document("cats one", id="1", title="One", score=0.5, metadata={"title": "One", "relevance_score": 0.5}),
        Document("cats two", score=1 / 2, metadata={"source": "f.pdf"}),
    ]
    assert second[0].text == "dogs one"
    third = LangChainRetriever(FromLangChain(), title_key="source").retrieve(["q"], 3)[0]
    assert [(document.title, document.score) for document in third] == [("", 0.5), ("f.pdf", 1 / 2), ("", 1 / 3)]


class HashRuntime:
    """One made-up hidden state a token id."""

    device, dtype = "cpu", "float32"

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def forward(self, sequences: Sequence[TokenSequence]) -> list[dict[str, np.ndarray]]:
        self.lengths += map(len, sequences)
        return [{"last_hidden_state": self.states(sequence.ids)} for sequence in sequences]

    def states(self, ids: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(int(place)).normal(size=384) for place in ids]).astype(np.float32)


def test_pooling_is_the_mean_over_all_tokens_of_all_windows() -> None:
    words = {word: place for place, word in enumerate(["[CLS]", "[SEP]", "cat", "sea", "[UNK]"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(8)  # a limit saved with the tokenizer must cut nothing
    runtime = HashRuntime()
    encoder = BundledEncoder(runtime=runtime, tokenizer=tokenizer)
    vectors = encoder.embed(["cat sea", "", "cat " * 300 + "sea"])
    assert runtime.lengths == [4, 2, WINDOW_TOKENS, 301 - (WINDOW_TOKENS - 2) + 2]
    tokens = [[0, 2, 3, 1], [0, 1], [0] * 2 + [2] * 300 + [3] + [1] * 2]
    means = np.stack([runtime.states(np.array(ids)).mean(axis=0) for ids in tokens])
    assert vectors == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True), abs=1e-5)


def test_an_encoder_with_another_kind_of_tokenizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no \[CLS\]"):
        BundledEncoder(runtime=HashRuntime(), tokenizer=Tokenizer(models.WordLevel({"<s>": 0}, unk_token="<s>")))


@pytest.fixture(scope="module")
def bundled() -> BundledEncoder:
    return BundledEncoder()


def test_bundled_vectors_have_length_one_and_ignore_their_neighbours(bundled: BundledEncoder) -> None:
    texts = ["A cat sleeps.", "", "\ud800", "Molten rock comes out of a volcano.", "漢字 [SEP] <unk>"]
    together = bundled.embed(texts)
    assert together.shape == (5, 384)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(bundled.embed([text])[0], vector)
    assert bundled.embed([]).shape == (0, 384)


def test_bundled_vectors_mean_something(bundled: BundledEncoder) -> None:
    query, near, far = bundled.embed(
        ["Where does lava come from?", "Molten rock leaves volcanoes.", "Cats sleep a lot."]
    )
    assert query @ near > query @ far + 0.2


def test_the_end_of_a_long_text_counts(bundled: BundledEncoder) -> None:
    filler = "The committee met again on the following day. " * 60
    assert len(filler.split()) > WINDOW_TOKENS
    volcano, cat = bundled.embed([filler + "Volcanoes erupt. " * 60, filler + "Cats sleep. " * 60])
    assert bundled.embed(["volcano"])[0] @ (volcano - cat) > 0.05


def test_dense_with_the_bundled_encoder_loads_it_by_name(tmp_path: Path, bundled: BundledEncoder) -> None:
    DenseRetriever(CORPUS[:4], bundled).save(tmp_path)
    assert DenseRetriever.load(tmp_path).retrieve(["molten lava"], 1)[0][0].id == "a"


def test_a_missing_sentence_transformer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no-such-model"):
        load_embedder(str(tmp_path / "no-such-model"))


def test_a_sentence_transformer_by_path(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW, Normalize

    vocabulary = ["cat", "rock", "sea"]
    SentenceTransformer(modules=[BoW(vocabulary), Normalize()], device="cpu").save(str(tmp_path / "bow"))
    encoder = SentenceTransformerEncoder(str(tmp_path / "bow"), device="cpu")
    vectors = encoder.embed(["cat cat", "rock sea", "cat \ud800"])
    assert (encoder.dimension, vectors.shape, vectors.dtype) == (3, (3, 3), np.float32)
    assert vectors[0] @ vectors[2] == pytest.approx(1.0)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    raw = load_embedder(f"raw:{tmp_path / 'bow'}")
    assert raw.name == f"raw:{tmp_path / 'bow'}"
    assert np.linalg.norm(raw.embed(["cat cat", "rock sea"]), axis=1) == pytest.approx([2.0, np.sqrt(2)])


def test_heavy_libraries_wait_until_they_are_used() -> None:
    modules = (
        "retrievers, generators, models.sentence_encoders, text.words, compressors.sentences, "
        "compressors.recomp.extractive"
    )
    code = (
        f"import sys\nfor name in {modules!r}.split(', '): __import__('ctxprune.' + name)\n"
        "print(*{'torch', 'transformers', 'faiss', 'bm25s', 'langchain_core', 'sentence_transformers', 'httpx2', "
        "'onnxruntime', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
