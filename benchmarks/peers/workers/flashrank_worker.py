"""FlashRank's reranker, passages in its order; its package brings no model, it fetches one."""

from __future__ import annotations

from typing import Any

from serve import Compress, NoModelError, serve


def load(task: dict[str, Any]) -> Compress:
    from flashrank import Ranker, RerankRequest

    try:
        ranker = Ranker(cache_dir=task["folder"])
    except Exception as error:
        raise NoModelError(f"its default model cannot be fetched ({type(error).__name__}: {error})") from error

    def compress(question: str, texts: list[str], budget: int) -> str:
        passages = [{"id": place, "text": text} for place, text in enumerate(texts)]
        return "\n\n".join(each["text"] for each in ranker.rerank(RerankRequest(query=question, passages=passages)))

    return compress


if __name__ == "__main__":
    serve(load)
