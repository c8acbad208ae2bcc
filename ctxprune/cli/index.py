"""`ctxprune index`: what is known of documents before any question, made ahead of time, so that no query waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ctxprune.cli.options import read_documents
from ctxprune.cli.output import plural, show_progress
from ctxprune.compressors.llmlingua.compressor import LLMLingua2
from ctxprune.compressors.llmlingua.model import BUNDLED, load_word_model
from ctxprune.compressors.recomp.extractive import RecompExtractive
from ctxprune.errors import InputError
from ctxprune.files import batched
from ctxprune.models.sentence_encoders import load_embedder
from ctxprune.types import Document
from ctxprune.vectors import VectorStore
from ctxprune.vectors.files import MANIFEST
from ctxprune.vectors.pieces import checked_piece_kind

#: Documents scored, and written, together.
_BATCH = 32
#: Documents after which a vector store is written: what an interruption loses at most.
_SEGMENT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOptions:
    """How `--vectors` embeds; None: as the store that is there, else the bundled encoder and one vector a document."""

    encoder: str | None = None
    shard_tokens: int | None = None
    pieces: str | None = None
    titles: bool | None = None


def documents_to_index(paths: Sequence[Path]) -> list[Document]:
    """Raises InputError when there is none."""
    documents = read_documents(paths)
    if not documents:
        raise InputError(f"no document in {', '.join(map(str, paths))}; give text, Markdown or .jsonl files")
    return documents


def index_scores(documents: Sequence[Document], scores: Path, *, model: str | None) -> None:
    """Score the words of every document whose scores the file lacks."""
    compressor = LLMLingua2(load_word_model(model or BUNDLED), cache=scores)
    words = _in_batches(documents, lambda batch: compressor.index([document.text for document in batch]))
    sys.stderr.write(
        f"wrote the scores of {plural(len(documents), 'document')}, {plural(words, 'word')}, to {scores}\n"
    )


def index_sentences(documents: Sequence[Document], sentences: Path) -> None:
    """Embed the sentences of every document whose vectors the file lacks, with the default model."""
    count = _in_batches(documents, RecompExtractive(cache=sentences).index)
    done = f"{plural(count, 'sentence')} of {plural(len(documents), 'document')}"
    sys.stderr.write(f"wrote the vectors of {done} to {sentences}\n")


def index_vectors(documents: Sequence[Document], folder: Path, options: VectorOptions) -> None:
    """Embed every document that the store lacks; a new store is made where there is none.

    Run again after an interruption, it goes on. Raises InputError for options that differ from the store's, and for
    what `VectorStore.append` refuses.
    """
    store = _opened(folder, options) if (folder / MANIFEST).exists() else None
    before = 0 if store is None else len(store)
    stream = show_progress(documents, total=lambda: len(documents))
    for _ in range(0, len(documents), _SEGMENT):
        some = islice(stream, _SEGMENT)
        if store is None:
            embedder = load_embedder(options.encoder or "bundled")
            store = VectorStore.build(
                folder,
                embedder,
                some,
                shard_tokens=options.shard_tokens,
                pieces=checked_piece_kind(options.pieces or "tokens"),
                titles=bool(options.titles),
            )
        else:
            store.append(some)
    assert store is not None, "documents_to_index gives at least one"
    added = plural(len(store) - before, "document")
    sys.stderr.write(f"added {added} to {folder}, now {len(store)} with {plural(store.vectors, 'vector')}\n")


def _opened(folder: Path, options: VectorOptions) -> VectorStore:
    embedder = None if options.encoder is None else load_embedder(options.encoder)
    store = VectorStore.open(folder, embedder=embedder)
    for name in ("shard_tokens", "pieces", "titles"):
        built, asked = getattr(store, name), getattr(options, name)
        if asked not in (None, built):
            raise InputError(
                f"{folder} was built with {name} = {built}, now it is {asked}; leave the option out, or choose another "
                "folder"
            )
    return store


def _in_batches(documents: Sequence[Document], index: Callable[[Sequence[Document]], int]) -> int:
    """The sum of what `index` returns."""
    batches = show_progress(batched(documents, _BATCH), total=lambda: -(-len(documents) // _BATCH))
    return sum(index(batch) for batch in batches)
