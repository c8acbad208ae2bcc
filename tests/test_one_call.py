"""`ctxprune.prune`, documents in every form, mistakes that are answered with the next step, and choosing again."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument

import ctxprune
from ctxprune import Context, Document, Pipeline, load, load_counter, prune
from ctxprune.errors import CtxpruneError, InputError, MissingExtraError, UnknownNameError, UnknownOptionError
from ctxprune.tokens import FunctionCounter, WordCounter

QUESTION = "Who built the mill?"
TEXT = "The mill stands on the Orle. It was built by Anna Pohl in 1802. Ducks swim below the wheel. Flour is sold."
OTHER = "Buses leave at noon. The driver sells tickets."
NEEDED = "It was built by Anna Pohl in 1802."


def test_the_text_of_the_result_is_what_was_kept() -> None:
    result = prune(QUESTION, [TEXT, OTHER], budget=14)
    assert str(result) == result.text
    assert NEEDED in str(result) and "Ducks" not in str(result)
    assert result.tokens_after <= 14


FORMS: list[Any] = [
    TEXT,
    {"text": TEXT},
    {"page_content": TEXT, "metadata": {}},
    {"content": TEXT, "meta": {}},
    Document(TEXT),
    LangChainDocument(page_content=TEXT),
    (LangChainDocument(page_content=TEXT), 0.5),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_one_or_many_documents_of_any_form(form: Any) -> None:
    for documents in (form, [form], (each for each in [form, form]), (form, OTHER)):
        result = prune(QUESTION, documents, budget=14)
        assert NEEDED in result.text
        assert all(extract.source.text in (TEXT, OTHER) for extract in result.after.extracts)


@pytest.mark.parametrize(
    "form",
    [
        {"text": "t", "id": 7, "title": "A", "score": 0.25, "page": 3},
        {"contents": "t", "_id": "7", "metadata": {"title": "A", "page": 3}, "relevance_score": 0.25},
        LangChainDocument(page_content="t", id="7", metadata={"title": "A", "score": 0.25, "page": 3}),
    ],
)
def test_fields_of_every_form(form: Any) -> None:
    document = Document.of(form)
    assert (document.text, document.id, document.title, document.score) == ("t", "7", "A", 0.25)
    assert document.metadata["page"] == 3


def test_documents_of_frameworks_are_not_changed() -> None:
    source = LangChainDocument(page_content=TEXT, metadata={"page": 1})
    before = source.model_dump()
    prune(QUESTION, source)
    assert source.model_dump() == before


@pytest.mark.parametrize("value", [None, 3, b"text", {"titel": "x"}, {"text": 3}, SimpleNamespace(text="x"), ["x"], {}])
def test_what_holds_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="document"):
        Document.of(value)


def test_no_documents_leave_no_text() -> None:
    assert str(prune(QUESTION, [])) == ""


def test_a_compressor_stays_loaded() -> None:
    assert prune(QUESTION, TEXT, compressor="lead", budget=9).compressor == "lead"
    loaded = load("lead")
    assert (
        prune(QUESTION, TEXT, compressor=loaded, budget=9).text
        == prune(QUESTION, TEXT, compressor="lead", budget=9).text
    )
    with pytest.raises(InputError, match="language"):
        prune(QUESTION, TEXT, compressor=loaded, language="de")


def test_a_pipeline_of_one_and_a_context_of_one() -> None:
    pipeline = Pipeline(load("bm25-sentences"))
    context = Context(QUESTION, [TEXT, OTHER])
    [listed] = pipeline.run([context], budget=14)
    single = pipeline.run(context, budget=14)
    assert single.text == listed.text
    with pytest.raises(InputError, match="no compressor"):
        Pipeline(["provence"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "option", "meant"),
    [
        ("provence", "treshold", "threshold"),
        ("lead", "bugdet", "budget"),
        ("recomp-extractive", "topn", "top_n"),
        ("llmlingua2", "force_token", "force_tokens"),
    ],
)
def test_an_option_with_a_slip_of_the_pen(name: str, option: str, meant: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"'{option}'; did you mean '{meant}'") as caught:
        load(name, **{option: 1})
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, CtxpruneError)


def test_an_option_like_no_other() -> None:
    with pytest.raises(UnknownOptionError, match="'frobnicate'; leave it out"):
        load("random", frobnicate=1)


def test_a_function_counts_tokens() -> None:
    result = prune(QUESTION, TEXT, counter=len, budget=40, compressor="bm25-sentences")
    assert result.tokens_before == len(TEXT) and len(result.text) <= 40
    assert (result.tokenizer, result.exact) == ("len", True)


@pytest.mark.parametrize("answer", [None, -1, 1.5, "3", True])
def test_a_function_that_does_not_count(answer: Any) -> None:
    with pytest.raises(InputError, match="whole number"):
        FunctionCounter(lambda text: answer).count(["a"])


def test_two_lambdas_are_two_counters() -> None:
    words = FunctionCounter(lambda text: len(text.split()))
    letters = FunctionCounter(lambda text: len(text))
    assert words.name != letters.name
    assert isinstance(load("lead", counter="words", budget=3).counter, WordCounter)  # type: ignore[attr-defined]


def test_models_of_openai_are_counted_by_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    asked: list[str] = []

    class Letters:
        def encode_ordinary_batch(self, text: list[str]) -> list[list[int]]:
            return [list(range(len(each))) for each in text]

    def fetched(name: str) -> Letters:
        asked.append(name)
        return Letters()

    # the encodings themselves come over the network
    monkeypatch.setattr(tiktoken, "encoding_for_model", fetched)
    assert load_counter("gpt-4o").count(["abc"]) == [3]
    assert asked == ["gpt-4o"]
    with pytest.raises(UnknownNameError, match="gpt-4o"):
        load_counter("gtp4o")


def test_without_tiktoken_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tiktoken", None)
    for name in ("gpt-4o", "o3-mini", "cl100k_base", "text-embedding-3-small"):
        with pytest.raises(MissingExtraError, match="tokens"):
            load_counter(name)
    with pytest.raises(UnknownNameError):
        load_counter("bert")


@pytest.mark.parametrize("name", ["provence", "llmlingua2", "recomp-extractive", "dslr"])
def test_another_threshold_without_the_model(name: str) -> None:
    pipeline = Pipeline(load(name))
    context = Context(QUESTION, [TEXT, OTHER])
    first = pipeline.run(context, threshold=0.9)
    for limits in ({"threshold": 0.0}, {"threshold": 0.3}, {"budget": 12}, {}):
        fresh, again = pipeline.run(context, **limits), first.at(**limits)  # type: ignore[arg-type]
        assert (again.text, again.status, again.reason, again.budget) == (
            fresh.text,
            fresh.status,
            fresh.reason,
            fresh.budget,
        )
        assert {**again.to_dict(), "seconds": 0} == {**fresh.to_dict(), "seconds": 0}


@given(st.lists(st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.95]), min_size=1, max_size=4))
def test_choosing_again_forgets_the_choices_before(thresholds: list[float]) -> None:
    result = _RESULT
    for threshold in thresholds:
        result = result.at(threshold=threshold)
    assert result.text == _RESULT.at(threshold=thresholds[-1]).text


_RESULT = Pipeline(load("provence")).run(Context(QUESTION, [TEXT, OTHER]), threshold=0.5)


def test_choosing_again_in_a_chain_moves_the_last_choice_only() -> None:
    chain = Pipeline([load("lead", budget=30), load("provence")])
    result = chain.run(Context(QUESTION, [TEXT, OTHER]), threshold=0.9)
    everything = result.at(threshold=0.0)
    assert NEEDED in everything.text and "driver" not in everything.text
    assert everything.text == chain.run(Context(QUESTION, [TEXT, OTHER]), threshold=0.0).text


def test_a_result_travels_with_its_scores() -> None:
    result = prune(QUESTION, [TEXT, OTHER], budget=14)
    copied = pickle.loads(pickle.dumps(result))
    assert copied.at(budget=30).text == result.at(budget=30).text


def test_where_nothing_was_scored_there_is_nothing_to_choose() -> None:
    with pytest.raises(InputError, match="no scores"):
        Pipeline([]).run(Context(QUESTION, [TEXT])).at(budget=5)
    with pytest.raises(InputError, match="threshold"):
        prune(QUESTION, TEXT, compressor="lead", budget=9).at(threshold=0.5)


def test_a_result_shows_itself_in_a_line() -> None:
    shown = repr(prune(QUESTION, [TEXT * 20, OTHER], budget=30))
    assert shown.startswith("<CompressionResult compressed by provence: ") and "1 of 2 documents" in shown
    assert len(shown) < 120 and "\n" not in shown


def test_the_call_is_public() -> None:
    assert ctxprune.prune is prune
