"""LangChain's EmbeddingsFilter: documents by the similarity of their embedding to the question's, best first."""

from __future__ import annotations

from typing import Any

from serve import Compress, serve


def load(task: dict[str, Any]) -> Compress:
    from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=task["embedder"], model_kwargs={"device": "cpu"})

    def compress(question: str, texts: list[str], budget: int) -> str:
        ranked = EmbeddingsFilter(embeddings=embeddings, k=len(texts)).compress_documents(
            [Document(page_content=text) for text in texts], question
        )
        return "\n\n".join(document.page_content for document in ranked)

    return compress


if __name__ == "__main__":
    serve(load)
