"""llmlingua's LLMLingua-2 with random weights in the shape of our encoder: its speed, nothing of its quality."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

from serve import Compress, random_bert, serve


class Thirds:
    """A token for three characters: stands for the encoding that llmlingua would fetch."""

    def encode(self, text: str) -> range:
        return range(-(-len(text) // 3))


def load(task: dict[str, Any]) -> Compress:
    sys.modules["tiktoken"] = SimpleNamespace(encoding_for_model=lambda name: Thirds())  # type: ignore[assignment]
    import llmlingua

    # llmlingua tells the tokenizer's kind by this name
    folder = Path(mkdtemp()) / "bert-base-multilingual-cased"
    random_bert(task, folder, head="BertForTokenClassification", labels=2)
    made = llmlingua.PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)

    def compress(question: str, texts: list[str], budget: int) -> str:
        rate = min(1.0, budget / max(1, sum(len(text.split()) for text in texts)))
        return str(made.compress_prompt(texts, rate=rate)["compressed_prompt"])

    return compress


if __name__ == "__main__":
    serve(load)
