"""The Haystack component: fresh documents under their ids, a real pipeline, async, and saving."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from fixtures_scoring import LetterCompressor

from ctxprune.errors import InputError

pytest.importorskip("haystack", reason="needs the extra haystack")

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ctxprune.integrations.haystack import CtxPruneCompressor

QUERY = "which letter?"


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haystack.telemetry._telemetry.telemetry", None)


def documents() -> list[Document]:
    return [
        Document(content="b b. a b.", id="same", meta={"title": "B", "page": 3}, score=0.9, embedding=[1.0]),
        Document(content="a a. b b.", id="same", meta={"title": 7}),
        Document(content=None, id="blob"),
        Document(content="", id="empty"),
    ]


def compressor(**options: Any) -> CtxPruneCompressor:
    return CtxPruneCompressor(LetterCompressor(), **options)


def test_what_is_written_into_a_result_stays_there() -> None:
    source = Document(content="a a.", meta={"pages": [4]})
    [out] = compressor().run(QUERY, [source])["documents"]
    out.meta["pages"].append(5)
    assert source.meta == {"pages": [4]}


def test_fresh_documents_under_their_ids() -> None:
    given = documents()
    before = copy.deepcopy(given)
    out = compressor().run(QUERY, given)["documents"]
    assert given == before
    assert [each.id for each in out] == ["same", "same", "empty", "blob"]
    assert (out[0].content, out[0].score, out[0].meta["page"], out[0].embedding) == ("a b.", 0.5, 3, [1.0])
    assert out[0].meta["ctxprune"]["kept_spans"] == [{"start": 5, "end": 9, "score": 0.5}]
    assert out[3] is given[2]
    assert asyncio.run(compressor().run_async(QUERY, given))["documents"] == out


def test_copies_and_pickles_prune_alike() -> None:
    original = CtxPruneCompressor("lead", budget=6, tokenizer="words")
    expected = [each.content for each in original.run(QUERY, documents())["documents"]]
    for copied in (copy.deepcopy(original), copy.copy(original), pickle.loads(pickle.dumps(original))):
        assert [each.content for each in copied.run(QUERY, documents())["documents"]] == expected


def test_top_k_as_rankers_have_it_and_empty_documents() -> None:
    assert [each.content for each in compressor(top_k=1).run(QUERY, documents())["documents"]] == ["a a.", None]
    assert [each.content for each in compressor().run(QUERY, documents()[:2], top_k=1)["documents"]] == ["a a."]
    kept = compressor(drop_empty=True).run(QUERY, documents())["documents"]
    assert [each.id for each in kept] == ["same", "same", "blob"]


def test_documents_that_can_be_read_once_and_what_is_none() -> None:
    expected = compressor().run(QUERY, documents())
    assert compressor().run(QUERY, (each for each in documents())) == expected  # type: ignore[arg-type]
    for wrong, message in (
        (["a"], r"documents\[0\] must be a Document, got str: 'a'"),
        (None, "documents must be a sequence of documents, got one NoneType"),
    ):
        with pytest.raises(InputError, match=message):
            compressor().run(QUERY, wrong)
    for options, message in (
        ({"title_key": 3}, "title_key must be"),
        ({"drop_empty": "no"}, "drop_empty must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            compressor(**options).warm_up()


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="query is empty"):
        compressor().run("", documents())
    assert compressor().run("", []) == {"documents": []}
    for wrong in ({"top_k": True}, {"top_k": 1.5}, {"budget": True}, {"threshold": True}):
        with pytest.raises(ValueError, match=r"must be a .*number"):
            compressor(**wrong).warm_up()
    with pytest.raises(TypeError, match="top_n"):
        compressor(top_n=1)
    with pytest.raises(InputError, match="soft tokens"):
        CtxPruneCompressor("xrag").warm_up()


def connected(pipeline: Any) -> Any:
    store = InMemoryDocumentStore()
    store.write_documents([Document(content="Ferries run. Bridges stand."), Document(content="Ferries sail.")])
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("pruner", CtxPruneCompressor("bm25-sentences", budget=2, tokenizer="words"))
    pipeline.add_component(
        "prompt",
        PromptBuilder("{% for d in documents %}{{ d.content }}|{% endfor %}{{ query }}", required_variables="*"),
    )
    pipeline.connect("retriever.documents", "pruner.documents")
    pipeline.connect("pruner.documents", "prompt.documents")
    return pipeline


def test_a_pipeline_from_retriever_to_prompt_and_saved() -> None:
    inputs = {name: {"query": "Do bridges stand?"} for name in ("retriever", "pruner", "prompt")}
    pipeline = connected(Pipeline())
    prompt = pipeline.run(inputs)["prompt"]["prompt"]
    assert "Bridges stand." in prompt and "Ferries" not in prompt
    assert asyncio.run(connected(Pipeline()).run_async(inputs))["prompt"]["prompt"] == prompt
    saved = CtxPruneCompressor.from_dict(pipeline.get_component("pruner").to_dict())
    assert saved.to_dict() == pipeline.get_component("pruner").to_dict()
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["ctxprune.integrations.haystack"])
    assert again.get_component("pruner").to_dict() == saved.to_dict()
    with pytest.raises(InputError, match="LetterCompressor cannot be saved"):
        compressor().to_dict()
