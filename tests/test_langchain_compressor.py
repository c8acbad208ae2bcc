"""LangChain compressor, transformer, chain step: fresh documents, offsets, errors, callbacks, many calls at once."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from fixtures_scoring import LetterCompressor
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.language_models import FakeListLLM
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from ctxprune import Context, Pipeline, SoftTokens, Summary, load
from ctxprune.errors import InputError, UnknownNameError
from ctxprune.integrations.langchain import CtxPruneCompressor, joined
from ctxprune.integrations.langchain.conformance import CompressorConformance

QUERY = "When was the Harrow Bridge opened?"
BRIDGE = "The bridge is of granite. It was opened in 1911. Swallows nest under it."
FERRY = "The ferry runs every hour. Bicycles travel free."


def documents() -> list[Document]:
    return [
        Document(FERRY, id="f2", metadata={"title": "Ferries", "page": 3}),
        Document(BRIDGE, id="b7", metadata={"title": "Harrow Bridge", "tags": ["stone"]}),
    ]


class TestProvence(CompressorConformance):
    def compressor(self) -> BaseDocumentCompressor:
        return CtxPruneCompressor(threshold=0.3)


class TestTopDocuments(CompressorConformance):
    def compressor(self) -> BaseDocumentCompressor:
        return CtxPruneCompressor(compressor="bm25-sentences", budget=30, top_n=2)


class TestLead(CompressorConformance):
    def compressor(self) -> BaseDocumentCompressor:
        return CtxPruneCompressor(compressor="lead", budget=12)


class TestAfterFailure(CompressorConformance):
    def compressor(self) -> BaseDocumentCompressor:
        return CtxPruneCompressor(compressor=Failing(), on_error="passthrough")


class Failing(LetterCompressor):
    def score(self, contexts: Sequence[Context]) -> list[Context]:
        if contexts:
            raise RuntimeError("out of memory")
        return []


class FirstWords:
    """A summariser: the first two words of every document, in one text."""

    name = "first-words"

    def compress(self, contexts: Sequence[Context], *, budget: Any = None, threshold: Any = None) -> list[Context]:
        return [Context(each.query, (self._summary(each),)) for each in contexts]

    def _summary(self, context: Context) -> Summary:
        sources = tuple(extract.source for extract in context.extracts)
        return Summary(" ".join(word for source in sources for word in source.text.split()[:2]), sources)


class Vectors:
    name = "vectors"

    def compress(self, contexts: Sequence[Context], *, budget: Any = None, threshold: Any = None) -> list[Context]:
        import numpy as np

        row = np.zeros((1, 4), np.float32)
        return [
            Context(each.query, tuple(SoftTokens(row, extract.source, "some-llm") for extract in each.extracts))
            for each in contexts
        ]


def test_both_interfaces_and_what_the_metadata_says() -> None:
    compressor = CtxPruneCompressor(threshold=0.5)
    assert isinstance(compressor, BaseDocumentCompressor) and isinstance(compressor, BaseDocumentTransformer)
    ferry, bridge = compressor.compress_documents(documents(), QUERY)
    assert (ferry.id, ferry.page_content, ferry.metadata["page"]) == ("f2", "", 3)
    assert bridge.metadata["relevance_score"] > 0.5 > ferry.metadata["relevance_score"]
    report = bridge.metadata["ctxprune"]
    assert json.loads(json.dumps(report)) == report
    assert (report["compressor"], report["status"], report["index"]) == ("provence", "compressed", 1)
    assert report["tokens_after"] < report["tokens_before"] and report["exact"] is False
    kept = [BRIDGE[span["start"] : span["end"]] for span in report["kept_spans"]]
    assert " ".join(kept) == bridge.page_content and "It was opened in 1911." in kept


@settings(max_examples=40)
@given(st.lists(st.text("ab .\n", max_size=40), max_size=5), st.sampled_from([None, 1, 3]))
def test_every_text_is_slices_of_its_source_and_nothing_is_changed(texts: list[str], top_n: int | None) -> None:
    sources = [Document(text, metadata={"place": place}) for place, text in enumerate(texts)]
    before = copy.deepcopy(sources)
    compressor = CtxPruneCompressor(compressor=LetterCompressor(), top_n=top_n, title_key=None)
    out = compressor.compress_documents(sources, "q")
    assert sources == before
    assert len(out) == min(len(texts), top_n or len(texts))
    for document in out:
        report, text = document.metadata["ctxprune"], texts[document.metadata["place"]]
        assert report["index"] == document.metadata["place"]
        kept = [text[span["start"] : span["end"]] for span in report["kept_spans"]]
        assert all(each in document.page_content for each in kept)
        assert "".join("".join(kept).split()) == "".join(document.page_content.split())


def test_what_is_written_into_a_result_stays_there() -> None:
    lock, shared = threading.Lock(), {"pages": [4, 5], "seen": {"ann"}, "where": {"shelf": ["b"]}}
    shared["self"] = shared
    sources = [Document(text, metadata={"of": shared, "lock": lock, "pair": (1, 2)}) for text in (BRIDGE, FERRY)]
    first, second = CtxPruneCompressor(compressor=LetterCompressor(), threshold=0).compress_documents(sources, "q")
    inner = first.metadata["of"]
    assert inner is not shared and inner["self"] is inner and first.metadata["lock"] is lock
    inner["pages"].append(6)
    inner["seen"].add("bo")
    inner["where"]["shelf"].clear()
    for metadata in (sources[0].metadata, second.metadata):
        found = metadata["of"]
        assert (found["pages"], found["seen"], found["where"]) == ([4, 5], {"ann"}, {"shelf": ["b"]})
        assert metadata["pair"] == (1, 2)


def test_the_best_documents_share_the_whole_budget() -> None:
    sources = [Document("a b. " * 4), Document("a a. a c."), Document("b b. a b.")]
    [best] = CtxPruneCompressor(compressor=LetterCompressor(), threshold=0.1, budget=6, top_n=1).compress_documents(
        sources, "q"
    )
    assert best.page_content == "a a. a c."  # two sentences fit when no other document takes from the budget
    assert best.metadata["relevance_score"] == 1.0


def test_top_n_orders_by_relevance_and_takes_the_first_where_nothing_reads_the_question() -> None:
    sources = [Document("b b."), Document("a b."), Document("a a.")]
    ranked = CtxPruneCompressor(compressor=LetterCompressor(), top_n=2).compress_documents(sources, "q")
    assert [each.page_content for each in ranked] == ["a a.", "a b."]
    first = CtxPruneCompressor(compressor="lead", budget=100, top_n=2).compress_documents(sources, "q")
    assert [each.page_content for each in first] == ["b b.", "a b."]
    assert all("relevance_score" not in each.metadata for each in first)


def test_empty_documents_go_only_when_asked() -> None:
    sources = [Document("b b."), Document("a a."), Document("")]
    assert len(CtxPruneCompressor(compressor=LetterCompressor()).compress_documents(sources, "q")) == 3
    dropping = CtxPruneCompressor(compressor=LetterCompressor(), drop_empty=True)
    assert [each.page_content for each in dropping.compress_documents(sources, "q")] == ["a a."]


def test_a_summary_names_its_sources_and_keeps_a_single_ones_metadata() -> None:
    compressor = CtxPruneCompressor(compressor=FirstWords())
    [summary] = compressor.compress_documents([Document("one two three", id="x"), Document("four five six")], "q")
    assert summary.page_content == "one two four five" and summary.id is None
    assert summary.metadata["ctxprune"]["sources"] == [{"index": 0, "id": "x"}, {"index": 1, "id": ""}]
    assert summary.metadata["ctxprune"]["tokens_before"] > summary.metadata["ctxprune"]["tokens_after"]
    [single] = compressor.compress_documents([Document("one two three", id="x", metadata={"page": 3})], "q")
    assert (single.id, single.metadata["page"], single.page_content) == ("x", 3, "one two")


def test_budget_in_the_given_tokens() -> None:
    compressor = CtxPruneCompressor(compressor="lead", budget=7, tokenizer="words", title_key=None)
    out = compressor.compress_documents(documents(), "")
    assert len(joined(out).split()) <= 7
    assert out[0].metadata["ctxprune"]["tokenizer"] == "words" and out[0].metadata["ctxprune"]["over_budget"] is False


def test_a_failing_compressor_raises_or_lets_everything_through() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        CtxPruneCompressor(compressor=Failing()).compress_documents(documents(), QUERY)
    out = CtxPruneCompressor(compressor=Failing(), on_error="passthrough").compress_documents(documents(), QUERY)
    assert [each.page_content for each in out] == [FERRY, BRIDGE]
    assert out[0].metadata["ctxprune"]["status"] == "degraded" and "relevance_score" not in out[0].metadata
    assert "out of memory" in out[0].metadata["ctxprune"]["reason"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "xrag"}, "soft tokens"),
        ({"compressor": 3}, "must be a name or a ctxprune compressor, got int"),
        ({"compressor": "bm25-sentences"}, "needs a budget"),
        ({"compressor": LetterCompressor(), "budget": -3}, "budget must be positive, got -3"),
        ({"compressor": LetterCompressor(), "threshold": 3}, r"threshold must be in \[0, 1\]"),
        ({"operating_point": ""}, "must be safe, balanced or aggressive, got ''"),
        ({"operating_point": "safe", "threshold": 0.2}, r"operating_point='safe' and threshold=0\.2"),
        ({"compressor": LetterCompressor(), "operating_point": "safe"}, "letter has no operating points"),
        ({"compressor": LetterCompressor(), "budget": 9, "tokenizer": "words"}, "give both the same counter"),
        ({"compressor": LetterCompressor(), "calibration": "x.json"}, "calibration goes with a compressor's name"),
        ({"compressor": LetterCompressor(), "top_n": 0}, "at least 1, got 0"),
        ({"compressor": LetterCompressor(), "top_n": True}, "must be a whole number, got True"),
        ({"compressor": LetterCompressor(), "budget": True}, "must be a whole number, got True"),
        ({"compressor": LetterCompressor(), "budget": 30.5}, "must be a whole number, got 30.5"),
        ({"compressor": LetterCompressor(), "threshold": True}, "must be a number, got True"),
        ({"compressor": LetterCompressor(), "treshold": 0.2}, "treshold"),
    ],
)
def test_bad_options_fail_when_the_compressor_is_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtxPruneCompressor(**options)


@pytest.mark.parametrize("name", ["safe", "aggressive"])
def test_an_operating_point_is_the_librarys(name: str) -> None:
    out = CtxPruneCompressor(operating_point=name, title_key=None).compress_documents(documents(), QUERY)
    [expected] = Pipeline([load("provence")]).run([Context.of(QUERY, [FERRY, BRIDGE])], operating_point=name)
    assert [each.page_content for each in out] == [extract.text for extract in expected.after.extracts]
    best = CtxPruneCompressor(operating_point=name, top_n=1).compress_documents(documents(), QUERY)
    assert "1911" in best[0].page_content


def test_bad_input_is_named() -> None:
    with pytest.raises(UnknownNameError, match="known: provence"):
        CtxPruneCompressor(compressor="provense")
    compressor = CtxPruneCompressor(compressor=LetterCompressor())
    with pytest.raises(InputError, match="query is empty"):
        compressor.compress_documents(documents(), " ")
    with pytest.raises(InputError, match="got str"):
        compressor.compress_documents("text", "q")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"documents\[0\] must be"):
        compressor.compress_documents(["text"], "q")  # type: ignore[list-item]
    with pytest.raises(InputError, match="soft tokens"):
        CtxPruneCompressor(compressor=Vectors()).compress_documents(documents(), "q")


def test_transformer_mode_needs_a_query_from_somewhere() -> None:
    compressor = CtxPruneCompressor(compressor=LetterCompressor())
    with pytest.raises(InputError, match="letter prunes for a question"):
        compressor.transform_documents(documents())
    with pytest.raises(InputError, match="unknown keyword quary"):
        compressor.transform_documents(documents(), quary="q")
    asked = compressor.transform_documents(documents(), query="q")
    assert asked == CtxPruneCompressor(compressor=LetterCompressor(), query="q").transform_documents(documents())
    assert asked == asyncio.run(compressor.atransform_documents(documents(), query="q"))
    assert CtxPruneCompressor(compressor="lead", budget=5).transform_documents(documents())[0].page_content


def test_a_chain_from_question_to_answer() -> None:
    retriever = RunnableLambda(lambda _: documents())
    prompt = PromptTemplate.from_template("{context}\n\n{question}")
    compressor = CtxPruneCompressor(threshold=0.3)
    llm = FakeListLLM(responses=["1911"])
    chain = {"question": RunnablePassthrough(), "documents": retriever} | compressor | prompt
    text = chain.invoke(QUERY).to_string()
    assert "opened in 1911" in text and "ferry" not in text and text.endswith(QUERY)
    assert (chain | llm).invoke(QUERY) == asyncio.run((chain | llm).ainvoke(QUERY)) == "1911"
    # a list of documents in, a list out
    assert joined((retriever | compressor.bind(query=QUERY)).invoke("anything")) in text
    under_context = compressor.invoke({"input": QUERY, "context": documents()})
    assert under_context["context"] == compressor.compress_documents(documents(), QUERY)


def test_a_mapping_without_question_or_documents() -> None:
    compressor = CtxPruneCompressor(compressor=LetterCompressor())
    with pytest.raises(InputError, match="no question, a string, under any of question, query, input"):
        compressor.invoke({"documents": documents()})
    with pytest.raises(InputError, match="no list of documents under any of documents, context"):
        compressor.invoke({"question": "q", "context": "text"})


class Names(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[str] = []
        self.failed: list[BaseException] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **kwargs: Any) -> None:
        self.started.append(name)

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.failed.append(error)


def test_runs_show_in_callbacks() -> None:
    seen = Names()
    compressor = CtxPruneCompressor(compressor=LetterCompressor())
    compressor.compress_documents(documents(), "q", [seen])
    asyncio.run(compressor.acompress_documents(documents(), "q", [seen]))
    compressor.invoke({"question": "q", "documents": documents()}, {"callbacks": [seen], "run_name": "prune"})
    assert seen.started == ["CtxPruneCompressor", "CtxPruneCompressor", "prune"]
    with pytest.raises(InputError):
        compressor.compress_documents(documents(), "", [seen])
    assert len(seen.failed) == 1


def test_thirty_two_at_once_are_as_one_by_one() -> None:
    compressor = CtxPruneCompressor(threshold=0.3)
    inputs = [{"question": f"{QUERY} {place % 3}", "documents": documents()} for place in range(32)]
    alone = [compressor.invoke(each) for each in inputs[:3]]
    assert asyncio.run(compressor.abatch(inputs)) == [alone[place % 3] for place in range(32)]


class Waiting(LetterCompressor):
    """Goes on only when somebody else says so, as a model does that works outside of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        assert not contexts or self.told.wait(60), "nobody could say so: the event loop stands still"
        return super().score(contexts)


def test_the_event_loop_keeps_beating() -> None:
    waiting = Waiting()
    compressor = CtxPruneCompressor(compressor=waiting)
    inputs = [{"question": "q", "documents": documents()} for _ in range(32)]

    async def beat() -> list[Any]:
        work = asyncio.ensure_future(compressor.abatch(inputs))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not work.done()
        waiting.told.set()  # from the loop itself: were it blocked, this would never come
        return await work

    assert len(asyncio.run(beat())) == 32


def test_a_mapping_in_a_chain_takes_no_keywords() -> None:
    asked = {"question": QUERY, "documents": documents()}
    for keywords in ({"top_k": 1}, {"query": "another question"}):
        with pytest.raises(InputError, match=f"unknown keyword {next(iter(keywords))}; a mapping brings its question"):
            CtxPruneCompressor(compressor=LetterCompressor()).invoke(asked, **keywords)


def test_a_list_that_changes_while_it_is_pruned_changes_nothing() -> None:
    given = [Document(BRIDGE, metadata={"page": 1}), Document(FERRY, metadata={"page": 2})]

    class Meddling(LetterCompressor):
        def score(self, contexts: Any) -> Any:
            if contexts:  # options are looked at with none
                given.insert(0, Document("new", metadata={"page": 0}))
            return super().score(contexts)

    expected = CtxPruneCompressor(compressor=LetterCompressor()).compress_documents(list(given), "q")
    out = CtxPruneCompressor(compressor=Meddling()).compress_documents(given, "q")
    assert out == expected and [each.metadata["page"] for each in out] == [1, 2]
    assert len(given) == 3


def test_keys_that_are_no_strings_are_named() -> None:
    compressor = CtxPruneCompressor(compressor=LetterCompressor())
    with pytest.raises(InputError, match="the input's keys are 1, None"):
        compressor.invoke({1: 2, None: 3})
    with pytest.raises(InputError, match=r"the input's keys are \(none\)"):
        compressor.invoke({})
