"""The LlamaIndex postprocessor: fresh nodes under their ids, a query engine, async, and saving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fixtures_scoring import LetterCompressor

from ctxprune.errors import InputError

pytest.importorskip("llama_index.core", reason="needs the extra llamaindex")

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from ctxprune.integrations.llamaindex import CtxPrunePostprocessor

QUERY = "which letter?"


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text="b b. a b.", id_="same", metadata={"title": "B", "page": 3}), score=0.9),
        NodeWithScore(node=TextNode(text="a a. b b.", id_="same", excluded_llm_metadata_keys=["page"]), score=0.1),
        NodeWithScore(node=ImageNode(image_url="https://example.org/x.png", id_="image"), score=0.5),
        NodeWithScore(node=TextNode(text="", id_="empty")),
    ]


def postprocessor(**options: Any) -> CtxPrunePostprocessor:
    return CtxPrunePostprocessor(compressor=LetterCompressor(), **options)


def test_fresh_nodes_under_their_ids() -> None:
    given, before = nodes(), [node.to_json() for node in nodes()]
    out = postprocessor().postprocess_nodes(given, query_str=QUERY)
    assert [node.to_json() for node in given] == before
    assert [each.node.node_id for each in out] == ["same", "same", "empty", "image"]
    first, second, *_, image = out
    assert (first.node.get_content(), first.score, first.node.metadata["page"]) == ("a b.", 0.5, 3)
    assert (second.node.get_content(), second.score) == ("a a.", 1.0)
    assert first.node.metadata["ctxprune"]["kept_spans"] == [{"start": 5, "end": 9, "score": 0.5}]
    assert image.node is given[2].node and image.score == 0.5


def test_what_is_written_into_a_result_stays_there() -> None:
    source = NodeWithScore(node=TextNode(text="a a.", metadata={"pages": [4]}, relationships={}), score=0.1)
    [out] = postprocessor().postprocess_nodes([source], query_str=QUERY)
    out.node.metadata["pages"].append(5)
    out.node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="book")
    assert source.node.metadata == {"pages": [4]} and source.node.relationships == {}


@pytest.mark.parametrize(
    "node",
    [
        IndexNode(text="b b. a b.", index_id="chapter", id_="n"),
        ImageNode(text="b b. a b.", image_url="https://example.org/a.png", id_="n"),
        Document(text="b b. a b.", id_="n"),
    ],
    ids=lambda node: type(node).__name__,
)
def test_every_type_with_text_is_pruned_and_stays_what_it_is(node: Any) -> None:
    before = node.to_dict()
    [scored] = postprocessor().postprocess_nodes([NodeWithScore(node=node, score=0.2)], query_str=QUERY)
    pruned = scored.node
    assert type(pruned) is type(node) and node.to_dict() == before
    assert (pruned.get_content(MetadataMode.NONE), pruned.node_id, scored.score) == ("a b.", "n", 0.5)
    assert pruned.metadata["ctxprune"]["kept_spans"] == [{"start": 5, "end": 9, "score": 0.5}]
    for field in ("index_id", "image_url"):
        assert getattr(pruned, field, None) == getattr(node, field, None)


def test_a_copy_with_other_options_prunes_by_them() -> None:
    first = postprocessor()
    copied = first.model_copy(update={"top_n": 1})
    assert [each.node.get_content() for each in copied.postprocess_nodes(nodes()[:2], query_str=QUERY)] == ["a a."]
    assert len(first.postprocess_nodes(nodes()[:2], query_str=QUERY)) == 2
    with pytest.raises(ValueError, match="number of documents must be at least 1"):
        first.model_copy(update={"top_n": 0})


def test_our_metadata_stays_out_of_prompts_and_embeddings() -> None:
    first = postprocessor().postprocess_nodes(nodes(), query_str=QUERY)[0].node
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        text = first.get_content(mode)
        assert "page: 3" in text and "ctxprune" not in text and "relevance_score" not in text


def test_top_n_and_empty_nodes() -> None:
    best = postprocessor(top_n=1).postprocess_nodes(nodes()[:2], query_str=QUERY)
    assert [each.node.get_content() for each in best] == ["a a."]
    kept = postprocessor(drop_empty=True).postprocess_nodes(nodes(), query_str=QUERY)
    assert [each.node.node_id for each in kept] == ["same", "same", "image"]
    first = CtxPrunePostprocessor(compressor="lead", budget=2, tokenizer="words", title_key=None)
    assert first.postprocess_nodes(nodes())[0].score == 0.9  # a compressor that does not judge leaves the score


def test_nodes_that_can_be_read_once_and_what_is_none() -> None:
    expected = postprocessor().postprocess_nodes(nodes(), query_str=QUERY)
    out = postprocessor().postprocess_nodes((each for each in nodes()), query_str=QUERY)  # type: ignore[arg-type]
    assert [each.node.node_id for each in out] == [each.node.node_id for each in expected]
    for wrong, message in ((["a"], r"nodes\[0\] must be a NodeWithScore, got str: 'a'"), ("a", "wrap it in a list")):
        with pytest.raises(InputError, match=message):
            postprocessor().postprocess_nodes(wrong, query_str=QUERY)  # type: ignore[arg-type]


def test_a_query_is_needed() -> None:
    with pytest.raises(InputError, match="query is empty"):
        postprocessor().postprocess_nodes(nodes())
    assert postprocessor().postprocess_nodes([]) == []
    for wrong in ({"budget": True}, {"top_n": False}, {"threshold": True}):
        with pytest.raises(ValueError, match=r"must be a .*number, got (True|False)"):
            postprocessor(**wrong)
    with pytest.raises(ValueError, match="soft tokens"):
        CtxPrunePostprocessor(compressor="xrag")


class Fixed(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # the engine itself leaves out a second node of the same id
        return [NodeWithScore(node=TextNode(text=text)) for text in ("b b. a b.", "a a. b b.")]


def test_a_query_engine_reads_the_pruned_text() -> None:
    engine = RetrieverQueryEngine.from_args(Fixed(), llm=MockLLM(), node_postprocessors=[postprocessor()])
    response = engine.query(QUERY)
    assert [each.node.get_content() for each in response.source_nodes] == ["a b.", "a a."]
    assert "a b." in str(response) and "b b." not in str(response)  # the mock model repeats its prompt
    assert str(asyncio.run(engine.aquery(QUERY))) == str(response)


def test_saving() -> None:
    made = CtxPrunePostprocessor(compressor="lead", budget=9, tokenizer="words")
    again = CtxPrunePostprocessor.from_dict(made.to_dict())
    assert (again.compressor, again.budget, again.tokenizer) == ("lead", 9, "words")
    assert again.postprocess_nodes(nodes())[0].node.get_content() == "b b. a b."
    with pytest.raises(ValueError, match="LetterCompressor cannot be saved"):
        postprocessor().to_dict()
