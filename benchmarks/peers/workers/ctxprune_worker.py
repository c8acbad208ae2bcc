"""ctxprune itself, or one of its baselines, at a budget of words."""

from __future__ import annotations

from typing import Any

from serve import Compress, serve

import ctxprune
from ctxprune.pipeline import Pipeline
from ctxprune.tokens import WordCounter
from ctxprune.types import Context


def load(task: dict[str, Any]) -> Compress:
    counter = WordCounter()
    pipeline = Pipeline(ctxprune.load(task["options"]["compressor"], counter=counter), counter=counter)

    def compress(question: str, texts: list[str], budget: int) -> str:
        return pipeline.run(Context.of(question, texts), budget=budget).text

    return compress


if __name__ == "__main__":
    serve(load)
