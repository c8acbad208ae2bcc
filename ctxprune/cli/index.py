"""`ctxprune index`: word scores of documents ahead of time, so that no query waits for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ctxprune.batches import batched
from ctxprune.cli.inputs import read_documents
from ctxprune.cli.output import show_progress
from ctxprune.compressors.llmlingua2 import LLMLingua2
from ctxprune.compressors.word_model import BUNDLED, load_word_model
from ctxprune.errors import InputError

#: Documents scored, and written, together.
_BATCH = 32


def index_scores(paths: Sequence[Path], scores: Path, *, model: str | None) -> None:
    """Score every document whose scores the file lacks; raises InputError when there is none to score."""
    documents = read_documents(paths)
    if not documents:
        raise InputError(f"no document in {', '.join(map(str, paths))}; give text, Markdown or .jsonl files")
    compressor = LLMLingua2(load_word_model(model or BUNDLED), cache=scores)
    words = 0
    texts = [document.text for document in documents]
    for batch in show_progress(batched(texts, _BATCH), total=lambda: -(-len(texts) // _BATCH)):
        words += compressor.index(batch)
    sys.stderr.write(f"wrote the scores of {len(texts)} documents, {words} words, to {scores}\n")
