"""Any text compressor of ctxprune as a LlamaIndex node postprocessor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field, PrivateAttr, field_serializer

from ctxprune.documents import text_of
from ctxprune.errors import InputError, MissingExtraError
from ctxprune.integrations.adapter import Adapter, Compressed, CopiesBuiltAnew, all_of, own_metadata
from ctxprune.integrations.numbers import Number, Whole
from ctxprune.pipeline import OnError
from ctxprune.plain import finite
from ctxprune.text import UnitKind
from ctxprune.types import Document

try:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, Node, NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise MissingExtraError("the LlamaIndex node postprocessor", "llamaindex") from error

_log = logging.getLogger(__name__)

#: Our entries of the metadata, which neither the LLM nor an embedding model should read.
ADDED = ("ctxprune", "relevance_score")


class CtxPrunePostprocessor(CopiesBuiltAnew, BaseNodePostprocessor):
    """Prunes the nodes with text that a query found, of any type: text, index and image nodes, whole documents.

    Images and other nodes without text go through as they are, after those with text; how many is logged.

    The options are those of `ctxprune.integrations.langchain.CtxPruneCompressor`. Nodes come out fresh under their ids,
    with the relevance as their score where the compressor judges documents, and `metadata["ctxprune"]` (kept_spans into
    the text that came in, tokens before and after, status), which is kept out of prompts and embeddings. Saving with
    `to_dict` works for compressors and tokenizers given by name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    # frozen one by one: the framework sets its callback_manager on the postprocessor
    compressor: Any = Field("provence", frozen=True)
    threshold: Number | None = Field(None, frozen=True)
    operating_point: str | None = Field(None, frozen=True)
    budget: Whole | None = Field(None, frozen=True)
    top_n: Whole | None = Field(None, frozen=True)
    tokenizer: Any = Field(None, frozen=True)
    calibration: str | None = Field(None, frozen=True)
    language: str | None = Field(None, frozen=True)
    units: UnitKind | None = Field(None, frozen=True)
    drop_empty: bool = Field(False, frozen=True)
    title_key: str | None = Field("title", frozen=True)
    on_error: OnError = Field("raise", frozen=True)

    _adapter: Adapter = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._adapter = Adapter.of(self)

    @classmethod
    def class_name(cls) -> str:
        return "CtxPrunePostprocessor"

    @field_serializer("compressor", "tokenizer")
    def _by_name(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        raise InputError(f"{type(value).__name__} cannot be saved; give the compressor and the tokenizer by name")

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """Raises InputError without a query where the compressor needs one. Runs in a thread when called async."""
        nodes = all_of(NodeWithScore, nodes, name="nodes")
        texts = [node for node in nodes if _has_text(node)]
        documents = [_document(node, self.title_key) for node in texts]
        compressed = self._adapter.compress(query_bundle.query_str if query_bundle else "", documents)
        pruned = [_node(each, [texts[index] for index in each.indices]) for each in compressed]
        others = [node for node in nodes if not _has_text(node)]
        if others:
            _log.info("passed on as they came, for they have no text: %d of %d nodes", len(others), len(nodes))
        return pruned + others


def _has_text(scored: NodeWithScore) -> bool:
    node = scored.node
    if isinstance(node, ImageNode):
        return bool(node.text)
    if isinstance(node, Node):
        return node.text_resource is not None and node.text_resource.text is not None
    return isinstance(node, TextNode)


def _document(scored: NodeWithScore, title_key: str | None) -> Document:
    node = scored.node
    title = "" if title_key is None else text_of(node.metadata.get(title_key))
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return Document(text, id=node.node_id, title=title, score=finite(scored.score))


def _node(compressed: Compressed, sources: Sequence[NodeWithScore]) -> NodeWithScore:
    added: dict[str, Any] = {"ctxprune": compressed.report}
    if compressed.score is not None:
        added["relevance_score"] = compressed.score
    if len(sources) != 1:
        return NodeWithScore(node=_new(compressed.text, added), score=compressed.score)
    node = sources[0].node
    update = {
        **_text_fields(node, compressed.text),
        "metadata": {**own_metadata(node.metadata), **added},
        "relationships": dict(node.relationships),
        "excluded_llm_metadata_keys": _excluded(node.excluded_llm_metadata_keys),
        "excluded_embed_metadata_keys": _excluded(node.excluded_embed_metadata_keys),
    }
    score = sources[0].score if compressed.score is None else compressed.score
    return NodeWithScore(node=node.model_copy(update=update), score=score)


def _text_fields(node: BaseNode, text: str) -> dict[str, Any]:
    """What of a node holds its text, with another text."""
    if isinstance(node, Node) and node.text_resource is not None:
        return {"text_resource": node.text_resource.model_copy(update={"text": text})}
    return {"text": text}


def _new(text: str, metadata: dict[str, Any]) -> TextNode:
    """A summary's node, which is none of its sources."""
    excluded = list(ADDED)
    return TextNode(
        text=text, metadata=metadata, excluded_llm_metadata_keys=excluded, excluded_embed_metadata_keys=excluded
    )


def _excluded(keys: Sequence[str]) -> list[str]:
    return [*keys, *(key for key in ADDED if key not in keys)]
