"""RECOMP extractive: sentences by a dual encoder, their vectors made once a document (Xu et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np

from ctxprune.bundled import bundled_folder
from ctxprune.compressors.base import Choice, ScoringCompressor, narrow, with_extracts
from ctxprune.compressors.readings import DocumentCache, open_cache
from ctxprune.compressors.recomp.vectors import (
    CONFIG,
    DualEncoder,
    Passage,
    SentenceReader,
    SentenceVectors,
    load_dual_encoder,
    load_export,
)
from ctxprune.errors import InputError
from ctxprune.models.formats import check_source
from ctxprune.models.sentence_encoders import BundledEncoder, Embedder, Similarity, Vectors, load_embedder
from ctxprune.runtime.device import only_on_cpu
from ctxprune.select import Policy
from ctxprune.timing import stage
from ctxprune.types import Context, Document, Extract, Span

#: What `load("recomp-extractive")` runs: a folder among the bundled models.
DEFAULT_MODEL = "recomp-mini"


class RecompExtractive(ScoringCompressor):
    """Keeps the sentences whose vectors are nearest to the question's; a document scores as its best sentence does.

    model: see `load_model`. top_n: keep so many best sentences of the whole context, in document order; the paper keeps
    1, or 2 where two passages must be joined (short for `Policy(top_n=...)`). with_title: read a sentence after its
    document's title (default: as the model was trained). cache: where sentence vectors stay for the next question:
    "memory", the path of an SQLite file, a `DocumentCache`, or None; with one, vectors are rounded to float16.
    A score is a cosine, and so is a threshold; a model compared by dot product, which has no bounds, takes none and
    needs top_n or a budget. With none of the three, the model's own cosine holds, or `default_cosine`.
    """

    name = "recomp-extractive"
    default_companions = False
    splits_units = True
    #: For a cosine model that names none: with the bundled encoder and titles, 61 of 63 sentences with the answer
    #: scored 0.4 or more on 75 questions of SQuAD, SelQA and multi-hop training data, and 40% of the others.
    default_cosine: ClassVar[float | None] = 0.4

    def __init__(
        self,
        model: DualEncoder | None = None,
        *,
        top_n: int | None = None,
        with_title: bool | None = None,
        cache: DocumentCache | str | Path | None = "memory",
        **choice: Unpack[Choice],
    ) -> None:
        self.model: DualEncoder = model or load_model(DEFAULT_MODEL)
        self.default_threshold = self._default_threshold()
        if top_n is not None:
            choice["policy"] = replace(choice.get("policy") or Policy(), top_n=top_n)
        super().__init__(**choice)
        self.with_title = self.model.with_title if with_title is None else with_title
        self.sentences = SentenceReader(self.model, open_cache(cache), units=self.units)

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        extracts = [extract for context in contexts for extract in context.extracts]
        known = self.sentences.read([passage for extract in extracts for _, passage in self._passages(extract)])
        with stage("infer"):
            row = {query: place for place, query in enumerate(dict.fromkeys(context.query for context in contexts))}
            queries = self.model.embed_queries(list(row))
            return [self._scored(context, queries[row[context.query]], known) for context in contexts]

    def index(self, documents: Sequence[Document | str]) -> int:
        """Encode documents ahead of time, one entry of the cache each; returns how many sentences they have.

        Titles count where the model reads them. Raises InputError without a cache.
        """
        if self.sentences.cache is None:
            raise InputError("indexing sentences needs somewhere to keep them; pass cache='memory' or a file's path")
        context = Context.of("", documents)
        return self.sentences.index([passage for each in context.extracts for _, passage in self._passages(each)])

    def _default_threshold(self) -> float | None:
        if self.model.similarity == "dot":
            return None
        return self.default_cosine if self.model.default_threshold is None else self.model.default_threshold

    def _passages(self, extract: Extract) -> list[tuple[int, Passage]]:
        """What is kept of a document (the whole text, unless an earlier compressor cut it), and where it starts."""
        title = extract.source.title if self.with_title else ""
        text = extract.source.text
        return [(start, Passage(title, text[start:end], self.language)) for start, end in extract.slices()]

    def _scored(self, context: Context, query: Vectors, known: Mapping[Passage, SentenceVectors]) -> Context:
        fresh = []
        for extract in context.extracts:
            units = [
                Span(int(begin) + start, int(end) + start, score)
                for start, passage in self._passages(extract)
                for (begin, end), score in zip(known[passage].offsets, _scores(known[passage], query), strict=True)
            ]
            fresh.append(narrow(extract, units, score=max((unit.score for unit in units), default=None)))
        return with_extracts(context, fresh)


def _scores(sentences: SentenceVectors, query: Vectors) -> list[float]:
    if not len(sentences.offsets):  # without any text in the batch the encoder has not even said its dimension
        return []
    products: list[float] = (sentences.vectors @ query).astype(np.float64).tolist()
    return products


class EmbedderPair:
    """Any `Embedder` as a dual encoder: questions and sentences go the same way, and vectors have length one."""

    similarity: Similarity = "cosine"
    with_title = True
    default_threshold: float | None = None

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def name(self) -> str:
        return self.embedder.name

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embedder.embed(texts)

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        return self.embedder.embed(texts)


def load_model(
    source: str = DEFAULT_MODEL, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> DualEncoder:
    """A bundled selector by its folder's name, the bundled encoder ("bundled"), or what `load_dual_encoder` takes.

    What is bundled runs on the CPU, and warns of revision, device and dtype. Raises UnknownNameError for a path that is
    not there, CheckpointError for what cannot be loaded.
    """
    exported = bundled_folder(source, CONFIG)
    encoder = source in ("bundled", BundledEncoder.name)
    if exported or encoder:
        only_on_cpu(source, device=device, dtype=dtype, revision=revision)
    if encoder:
        return EmbedderPair(load_embedder(source))
    if exported:
        return load_export(exported)
    check_source(source, bundled="bundled")
    return load_dual_encoder(source, revision=revision, device=device, dtype=dtype)


def recomp_extractive(
    *,
    model: str = DEFAULT_MODEL,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> RecompExtractive:
    """model: see `load_model`. options: see `RecompExtractive`."""
    return RecompExtractive(load_model(model, revision=revision, device=device, dtype=dtype), **options)


class EmbeddingSentences(RecompExtractive):
    """`RecompExtractive` over an embedder that nobody trained to choose sentences, so its cosines only rank.

    embedder: an `Embedder`, "bundled", or a sentence-transformers id or path. with_title: embed a sentence after its
    document's title. cache: see `RecompExtractive`.
    """

    name = "embedding-sentences"
    default_cosine: ClassVar[float | None] = None

    def __init__(
        self,
        embedder: Embedder | str = "bundled",
        *,
        with_title: bool = False,
        cache: DocumentCache | str | Path | None = None,
        **choice: Unpack[Choice],
    ) -> None:
        embedder = load_embedder(embedder) if isinstance(embedder, str) else embedder
        super().__init__(EmbedderPair(embedder), with_title=with_title, cache=cache, **choice)
