"""Compress, sense, expand: which pieces go as text, as a vector or not at all, within one budget of embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune import load
from ctxprune.cli.output import result_lines
from ctxprune.compressors.base import ScoringCompressor, narrow, visible_sentences
from ctxprune.compressors.xrag.bridge import Bridge, BridgeConfig, Projector
from ctxprune.compressors.xrag.compressor import XRAG
from ctxprune.compressors.xrag.expand import Form, Part, chosen, stretches_of
from ctxprune.errors import BudgetError, InputError
from ctxprune.pipeline import Pipeline
from ctxprune.prompt import count_contexts
from ctxprune.result import CompressionResult
from ctxprune.tokens import WordCounter, as_counter
from ctxprune.types import Context, Document, Extract, Piece, SoftTokens, Span
from ctxprune.vectors import VectorStore, piece_offsets

WORDS = WordCounter()
WIDTH, OUT = 6, 8


class Hashed:
    """An encoder whose vector of a text is drawn from the text."""

    name = "hashed"
    dimension = WIDTH

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).standard_normal(WIDTH) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(len(texts), WIDTH)


class Stars(ScoringCompressor):
    """A sentence scores a tenth for each star in it."""

    name = "stars"
    default_threshold = 0.5

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return [replace(context, pieces=tuple(map(self._scored, context.pieces))) for context in contexts]

    def _scored(self, piece: Piece) -> Piece:
        if not isinstance(piece, Extract):
            return piece
        text = piece.source.text
        units = visible_sentences(piece)
        return narrow(piece, [replace(unit, score=self.value(text[unit.start : unit.end])) for unit in units])

    def value(self, sentence: str) -> float:
        return sentence.count("*") / 10


class RankedStars(Stars):
    name = "ranked-stars"
    default_threshold = None


class NoNumbers(Stars):
    def value(self, sentence: str) -> float:
        return math.nan


def bridge(**options: Any) -> Bridge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projector = Projector(WIDTH, OUT)
    shape: dict[str, Any] = {"d_retriever": WIDTH, "d_model": OUT, "shard_tokens": 50, "pieces": "sentences"}
    return Bridge(projector, BridgeConfig(generator="org/tiny", encoder="hashed", **shape | options))


BRIDGE = bridge()
TEXT = "The quay is long. The ferry **** leaves ** at eight. Gulls cry *. Bakers rise early."
SENTENCES = ["The quay is long.", "The ferry **** leaves ** at eight.", "Gulls cry *.", "Bakers rise early."]


def xrag(**options: Any) -> XRAG:
    return XRAG(BRIDGE, **({"encoder": Hashed(), "expand": Stars(), "counter": WORDS} | options))


def shown(piece: Piece) -> list[str]:
    """The document as it stands in the prompt: texts, and for a vector what it stands for, in brackets."""
    if isinstance(piece, Extract):
        return [piece.source.text[start:end] for start, end in piece.slices()]
    assert isinstance(piece, SoftTokens)
    spans = iter(piece.spans)
    rows: list[str] = []
    for run in piece.runs():
        if isinstance(run, str):
            rows.append(run)
        else:
            rows += [f"[{piece.source.text[(span := next(spans)).start : span.end]}]" for _ in run]
    return rows


# the choice


def parts(*scores: float, cost: int = 5, documents: Sequence[int] | None = None) -> list[Part]:
    numbers = documents or [0] * len(scores)
    return [Part(number, ((0, 1),), score, cost) for number, score in zip(numbers, scores, strict=True)]


def spelled(forms: Sequence[Form]) -> str:
    return "".join({Form.TEXT: "T", Form.VECTOR: "v", Form.NOTHING: "-"}[form] for form in forms)


@pytest.mark.parametrize(
    ("room", "threshold", "forms"),
    [
        (None, 0.5, "vTTv"),
        (12, 0.5, "vTTv"),
        (11, 0.5, "vTT-"),
        (10, 0.5, "-TT-"),
        (8, 0.5, "vTvv"),
        (4, 0.5, "vvvv"),
        (2, 0.5, "-vv-"),
        (0, 0.5, "----"),
        (8, None, "vTvv"),
        (12, None, "vTTv"),
        (16, None, "TTTv"),
        (99, None, "TTTT"),
    ],
)
def test_the_best_go_as_text_and_the_others_as_vectors_while_there_is_room(
    room: int | None, threshold: float | None, forms: str
) -> None:
    some = parts(0.3, 0.9, 0.6, 0.1)
    assert spelled(chosen(some, opening=[0], room=room, threshold=threshold)) == forms


def test_a_title_is_paid_by_the_first_text_of_its_document() -> None:
    some = parts(0.9, 0.8, 0.7, documents=[0, 0, 1])
    assert spelled(chosen(some, opening=[3, 3], room=14, threshold=0.5)) == "TTv"
    assert spelled(chosen(some, opening=[3, 3], room=21, threshold=0.5)) == "TTT"
    assert spelled(chosen(some, opening=[3, 3], room=20, threshold=0.5)) == "TTv"


@given(
    scores=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9]), max_size=8),
    costs=st.lists(st.integers(1, 9), min_size=8, max_size=8),
    room=st.integers(0, 40),
    threshold=st.sampled_from([None, 0.0, 0.4, 1.0]),
)
def test_what_is_chosen_fits_and_no_vector_goes_to_a_worse_piece(
    scores: list[float], costs: list[int], room: int, threshold: float | None
) -> None:
    some = [Part(0, ((0, 1),), score, cost) for score, cost in zip(scores, costs, strict=False)]
    forms = chosen(some, opening=[2], room=room, threshold=threshold)
    texts = [part.cost for part, form in zip(some, forms, strict=True) if form is Form.TEXT]
    assert sum(texts) + (2 if texts else 0) + sum(form is Form.VECTOR for form in forms) <= room
    left_out = [part.score for part, form in zip(some, forms, strict=True) if form is Form.NOTHING]
    vectors = [part.score for part, form in zip(some, forms, strict=True) if form is Form.VECTOR]
    assert not left_out or not vectors or max(left_out) <= min(vectors)
    if threshold is not None:
        texts_below = [p for p, form in zip(some, forms, strict=True) if form is Form.TEXT and p.score < threshold]
        assert not texts_below


# documents


def test_pieces_stand_in_their_order_as_text_or_vector() -> None:
    [context] = xrag().compress([Context.of("q", [Document(TEXT, title="Port", id="p")])])
    [piece] = context.pieces
    assert shown(piece) == [f"[{SENTENCES[0]}]", SENTENCES[1], f"[{SENTENCES[2]}]", f"[{SENTENCES[3]}]"]
    assert isinstance(piece, SoftTokens) and piece.embeddings.shape == (3, OUT)
    np.testing.assert_allclose(piece.embeddings[1], BRIDGE.project(Hashed().embed([SENTENCES[2]]))[0], atol=1e-6)
    assert [span.score for span in piece.spans] == [0.0, 0.1, 0.0]
    assert piece.expanded is not None and piece.expanded.text == SENTENCES[1]
    assert count_contexts([context], WORDS) == [3 + WORDS.count([f"Port\n{SENTENCES[1]}"])[0]]


def test_a_document_all_of_text_or_of_nothing_is_an_extract() -> None:
    documents = ["Stars ***** here.", "None here."]
    [context] = xrag(budget=3).compress([Context.of("q", documents)])
    first, second = context.pieces
    assert isinstance(first, Extract) and first.text == documents[0]
    assert isinstance(second, Extract) and second.dropped
    assert shown(xrag().compress([Context.of("q", documents)])[0].pieces[1]) == ["[None here.]"]


@settings(deadline=None, max_examples=60)
@given(
    stars=st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=4),
    budget=st.integers(1, 60),
    policy=st.sampled_from([Stars(), RankedStars()]),
)
def test_no_budget_is_exceeded_and_every_text_is_a_slice(
    stars: list[list[int]], budget: int, policy: ScoringCompressor
) -> None:
    documents = [
        Document(" ".join(f"Number {count} {'*' * count} is here." for count in some), title="a title")
        for some in stars
    ]
    [context] = xrag(expand=policy).compress([Context.of("q", documents)], budget=budget)
    assert count_contexts([context], WORDS)[0] <= budget
    for piece in context.pieces:
        if isinstance(piece, SoftTokens):
            taken = [(span.start, span.end) for span in piece.spans] + piece.expanded.slices()
            assert all(left[1] <= right[0] for left, right in zip(sorted(taken), sorted(taken)[1:], strict=False))
            assert all(run in piece.source.text for run in piece.runs() if isinstance(run, str))
    if any(stars) and budget < 60:
        said = any("fits" in warning for warning in context.warnings)
        assert said == (not any(isinstance(piece, SoftTokens) or piece.text for piece in context.pieces))


@pytest.mark.parametrize("expand", [None, Stars()])
def test_the_blank_line_between_two_documents_is_paid(expand: ScoringCompressor | None) -> None:
    context = Context.of("q", ["Gulls cry. Bakers rise.", "Ferries leave. Quays stay."])
    for budget, vectors in ((6, [2, 2]), (5, [2, 0] if expand is None else [2, 1]), (2, [2, 0])):
        [made] = xrag(expand=expand, counter=len).compress([context], budget=budget)
        assert [len(piece.embeddings) if isinstance(piece, SoftTokens) else 0 for piece in made.pieces] == vectors
        assert count_contexts([made], as_counter(len))[0] <= budget


def test_what_an_earlier_compressor_removed_stays_out() -> None:
    document = Document(TEXT)
    units = tuple(Span(start, end) for start, end in piece_offsets(TEXT, 50, "sentences"))
    narrowed = Extract(document, units, (True, False, True, True))
    [context] = xrag().compress([Context("q", (narrowed,))], threshold=0.1)
    [piece] = context.pieces
    assert shown(piece) == [f"[{SENTENCES[0]}]", SENTENCES[2], f"[{SENTENCES[3]}]"]
    cut = Extract(document, units, (True, False, True, False))
    assert stretches_of(cut, [(0, 5), (0, len(cut.text))]) == (
        ((0, 5),),
        ((units[0].start, units[0].end), (units[2].start, units[2].end)),
    )


def test_a_store_of_sentences_serves_it_and_one_cut_otherwise_does_not(tmp_path: Any) -> None:
    documents = [Document(TEXT, title="Port"), Document("Nothing to see.")]
    for titles in (False, True):
        folder = tmp_path / f"{titles}"
        VectorStore.build(folder, Hashed(), documents, shard_tokens=50, pieces="sentences", titles=titles)
        [context] = xrag(store=folder, encoder=None).compress([Context.of("q", documents)])
        texts = [text for text in shown(context.pieces[0]) if text[0] != "["]
        assert texts == [SENTENCES[1]]
        assert shown(context.pieces[1]) == ["[Nothing to see.]"]
    VectorStore.build(tmp_path / "runs", Hashed(), documents, shard_tokens=50)
    with pytest.raises(InputError, match="cuts documents into 'tokens', the bridge was trained on 'sentences'"):
        xrag(store=tmp_path / "runs")
    VectorStore.build(tmp_path / "short", Hashed(), documents, shard_tokens=4, pieces="sentences")
    with pytest.raises(InputError, match="a vector for 4 tokens of a document, the bridge reads one for 50"):
        xrag(store=tmp_path / "short")


def test_a_result_can_be_written_and_read_again() -> None:
    documents = [Document(TEXT, title="Port"), Document("Nothing to see.")]
    [result] = Pipeline(xrag()).run([Context.of("q", documents)])
    row = result.to_dict()
    first = row["documents"][0]
    assert first["text"] == SENTENCES[1] and [span["start"] for span in first["soft_spans"]] == [0, 53, 66]
    assert first["kept_spans"] == [{"start": 18, "end": 52, "score": 0.6}]
    again = CompressionResult.from_dict(row, documents).after.pieces[0]
    assert shown(again) == shown(result.after.pieces[0])
    lines = [(line.text, line.look) for line in result_lines(result, brief=False)]
    assert ("3 soft tokens for org/tiny", "kept") in lines and (SENTENCES[1], "kept") in lines
    assert SENTENCES[1] in result.to_html() and "soft_spans" not in result.to_dict(spans=False)["documents"][0]


# policies


@pytest.mark.parametrize("name", ["provence", "bm25-sentences", "lead"])
def test_any_compressor_that_scores_can_choose(name: str) -> None:
    policy = load(name)
    compressor = xrag(expand=name)
    assert compressor.about.needs_query == policy.needs_query and compressor.about.gives == "soft tokens"
    text = "When the ferry to the island leaves is told on the quay: at eight. Bakers rise early. Gulls are loud birds."
    [context] = compressor.compress([Context.of("When does the ferry leave?", [text])], budget=17)
    [piece] = context.pieces
    assert isinstance(piece, SoftTokens)
    assert shown(piece)[0] == text[: text.index(" Bakers")] and len(piece.spans) == 2


def test_a_policy_that_looks_at_the_question_needs_one() -> None:
    with pytest.raises(InputError, match="the query is empty"):
        Pipeline(xrag(expand="bm25-sentences")).run([Context.of(" ", [TEXT])], budget=9)
    assert not xrag(expand=None).about.needs_query


def test_the_score_from_which_a_piece_is_text_can_be_given() -> None:
    context = Context.of("q", [TEXT])
    [loose] = xrag().compress([context], threshold=0.1)
    assert shown(loose.pieces[0]) == [f"[{SENTENCES[0]}]", " ".join(SENTENCES[1:3]), f"[{SENTENCES[3]}]"]
    [strict] = xrag(expand=Stars(threshold=0.7)).compress([context])
    assert shown(strict.pieces[0]) == [f"[{each}]" for each in SENTENCES]


# bad input


def test_a_policy_without_scores_is_refused() -> None:
    with pytest.raises(InputError, match="expand='xrag' gives no scores to choose by"):
        xrag(expand=xrag(expand=None))
    with pytest.raises(InputError, match="text_top=1 beside expand= says twice"):
        xrag(text_top=1)
    with pytest.raises(InputError, match="document 0 has a score that is not a number at 0:17"):
        xrag(expand=NoNumbers()).compress([Context.of("q", [TEXT])])
    with pytest.raises(BudgetError, match="expand= only ranks, so a budget must say"):
        xrag(expand=RankedStars()).compress([Context.of("q", [TEXT])])
    with pytest.raises(InputError, match="ranked-stars scores are not probabilities, so threshold"):
        xrag(expand=RankedStars()).compress([Context.of("q", [TEXT])], threshold=0.2, budget=9)
    with pytest.raises(InputError, match=r"threshold must be in \[0, 1\], got 2"):
        xrag().compress([Context.of("q", [TEXT])], threshold=2)


def test_a_budget_below_one_vector_is_refused_and_one_that_is_taken_already_is_told() -> None:
    with pytest.raises(BudgetError, match="budget must be positive, got 0: one vector takes 1"):
        xrag().compress([Context.of("q", [TEXT])], budget=0)
    before = SoftTokens(np.zeros((4, OUT), np.float32), Document("x"), "org/tiny", 0)
    context = Context("q", (before, *Context.of("q", [TEXT]).pieces))
    [full] = xrag().compress([context], budget=4)
    assert full.pieces[0] is before and full.pieces[1].dropped
    assert full.warnings == ("no piece of a document fits the budget of 4 tokens beside what was there before",)
    [over] = xrag().compress([context], budget=3)
    assert over.warnings == ("the budget of 3 tokens is exceeded: summaries and soft tokens from before take 4",)


class Loose:
    """Vectors in a dictionary that do not say what each stands for."""

    dimension, embedder_name, shard_tokens, pieces = WIDTH, "hashed", 50, "sentences"

    def __init__(self, rows: int, *, fill: float | None = None) -> None:
        self.rows, self.fill = rows, fill

    def text_of(self, document: Document) -> str:
        return document.text

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> list[np.ndarray]:
        made = [Hashed().embed([f"{text}{row}" for row in range(self.rows)]) for text in texts]
        return made if self.fill is None else [np.full_like(each, self.fill) for each in made]


def test_vectors_whose_borders_are_not_known_are_not_expanded() -> None:
    assert isinstance(xrag(store=Loose(4), encoder=None).compress([Context.of("q", [TEXT])])[0].pieces[0], SoftTokens)
    with pytest.raises(InputError, match="the vectors of document 0 do not say which part of it each stands for"):
        xrag(store=Loose(3), encoder=None).compress([Context.of("q", [TEXT])])


@pytest.mark.parametrize(("fill", "message"), [(math.nan, "hold nan or infinity"), (0.0, "is all zeros")])
def test_vectors_of_nothing_are_refused(fill: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        xrag(store=Loose(4, fill=fill), encoder=None).compress([Context.of("q", [TEXT])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spans": (Span(0, 1),)}, "one span an embedding, got 1 spans and 2"),
        ({"spans": (Span(3, 5), Span(0, 1))}, "in order and must not overlap"),
        ({"spans": (Span(0, 1), Span(1, 99))}, "within the text of 5 characters"),
        ({"expanded": Extract(Document("stone"), (), ())}, "needs spans to stand between"),
        ({"spans": (Span(0, 1), Span(1, 2)), "expanded": Extract(Document("other"), (), ())}, "of the same document"),
    ],
)
def test_soft_tokens_name_parts_of_their_own_document(change: dict[str, Any], message: str) -> None:
    soft = SoftTokens(np.zeros((2, 3), np.float32), Document("stone"), "org/tiny")
    with pytest.raises(InputError, match=message):
        replace(soft, **change)
