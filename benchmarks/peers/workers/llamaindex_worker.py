"""LlamaIndex's SentenceEmbeddingOptimizer: the sentences nearest to the question, all documents as one node."""

from __future__ import annotations

import re
from typing import Any

from serve import Compress, serve


def _sentences(text: str) -> list[str]:
    """By full stops and line breaks; its own splitter, nltk's punkt, would be fetched."""
    return [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def load(task: dict[str, Any]) -> Compress:
    from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=task["embedder"], device="cpu")

    def compress(question: str, texts: list[str], budget: int) -> str:
        text = "\n".join(texts)
        # so many sentences that they hold the budget's words on average, twice over; the runner cuts them
        share = min(1.0, 2 * budget / max(1, len(text.split())))
        optimizer = SentenceEmbeddingOptimizer(
            embed_model=model, percentile_cutoff=share, tokenizer_fn=_sentences, context_before=0, context_after=0
        )
        nodes = [NodeWithScore(node=TextNode(text=text), score=1.0)]
        return str(optimizer.postprocess_nodes(nodes, QueryBundle(question))[0].node.get_content())

    return compress


if __name__ == "__main__":
    serve(load)
