"""RECOMP's dual encoder, and the sentences of a document with a vector each, encoded once and then read from a cache.

A question and a sentence each become a vector, and their dot product is the score (Xu et al., "RECOMP: improving
retrieval-augmented LMs with compression and selective augmentation", ICLR 2024, section 3.1). Exports run without
torch; what else a source is follows from its files, never from its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from ctxprune.compressors.readings import DocumentCache, cache_key
from ctxprune.errors import CheckpointError
from ctxprune.files import batched
from ctxprune.models.formats import pair_format, plain_tokenizer
from ctxprune.models.sentence_encoders import MeanEncoder, Similarity, Vectors
from ctxprune.runtime import IntArray
from ctxprune.runtime.device import only_on_cpu
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.weights import model_file
from ctxprune.text import UnitKind, split_sentences
from ctxprune.text.normal import normalise
from ctxprune.timing import stage

CONFIG = "recomp.json"


class DualEncoder(Protocol):
    """Vectors whose dot product is the score; a text's vector does not depend on its neighbours.

    similarity: "cosine" where all vectors have length one, else "dot", which has no bounds. with_title: whether
    sentences were given after their document's title in training. default_threshold: a cosine, None where nobody chose
    one.
    """

    @property
    def name(self) -> str: ...

    @property
    def similarity(self) -> Similarity: ...

    @property
    def with_title(self) -> bool: ...

    @property
    def default_threshold(self) -> float | None: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        ...

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        ...


def load_dual_encoder(
    source: str | Path, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> DualEncoder:
    """The encoder in a folder or under a hub id.

    A folder with recomp.json is an export, run on the CPU. modules.json makes it a sentence-transformers model, with
    the pooling, normalisation, prompts and similarity of its own files. Anything else must be a bare encoder, as
    RECOMP published them: mean pooling, dot product. revision, device, dtype: for what runs on torch; a
    sentence-transformers model keeps its own dtype.
    Raises CheckpointError for what cannot be loaded or is another kind of model.
    """
    if (Path(source) / CONFIG).is_file():
        only_on_cpu(str(source), device=device, dtype=dtype, revision=revision)
        return load_export(Path(source))
    # both import torch, which exports do not need
    from ctxprune.models import sentence_encoders

    if sentence_encoders.has_modules(source, revision=revision):
        return sentence_encoders.SentenceTransformerPair(source, revision=revision, device=device)
    return _load_checkpoint(source, revision=revision, device=device, dtype=dtype)


def load_export(folder: Path, *, threads: int | None = None) -> MeanEncoder:
    """A folder with recomp.json, model.onnx (output "last_hidden_state") and tokenizer.json.

    Raises CheckpointError when one of them is missing or damaged, or asks for another pooling or similarity.
    """
    tokenizer = plain_tokenizer(model_file(folder, "tokenizer.json"))
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        options = _options(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} is missing or damaged ({error!r}); export again") from error
    return MeanEncoder(
        runtime=OnnxRuntime(folder / "model.onnx", threads=threads),
        tokenizer=tokenizer,
        layout=pair_format(tokenizer, type_ids=False, single_separator=True),
        **{"name": folder.name, **options},
    )


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of `MeanEncoder` that the file sets. Raises ValueError or KeyError for what is wrong or missing."""
    if settings["pooling"] != "mean":
        raise ValueError(f"pooling must be 'mean', got {settings['pooling']!r}")
    if settings["similarity"] not in get_args(Similarity):
        raise ValueError(f"similarity must be one of {', '.join(get_args(Similarity))}, got {settings['similarity']!r}")
    kinds = {"name": str, "query_prefix": str, "sentence_prefix": str, "with_title": bool}
    options = {field: kind(settings[field]) for field, kind in kinds.items() if field in settings}
    if settings.get("default_threshold") is not None:
        options["default_threshold"] = float(settings["default_threshold"])
    if (max_tokens := int(settings["max_tokens"])) < 3:
        raise ValueError(f"max_tokens must be at least 3, got {max_tokens}")
    return {**options, "similarity": settings["similarity"], "max_tokens": max_tokens}


def _load_checkpoint(source: str | Path, *, revision: str | None, device: str | None, dtype: str | None) -> MeanEncoder:
    from ctxprune.models.encoders import load_bare_encoder
    from ctxprune.runtime.torch import TorchRuntime

    loaded = load_bare_encoder(source, revision=revision)
    return MeanEncoder(
        name=str(source),
        runtime=TorchRuntime(loaded.module, device=device, dtype=dtype, max_batch_tokens=4096),
        tokenizer=loaded.tokenizer,
        layout=loaded.layout,
        max_tokens=loaded.max_tokens,
        similarity="dot",
    )


#: Changes when sentences are split or titled in another way, so that a cache never hands out other sentences' vectors.
UNITS_VERSION = "units-3"
#: Passages encoded and stored at a time: bounds the memory of an index run, and what an interrupted one loses.
_BATCH_PASSAGES = 256
#: A model is known by its vector of this sentence, in hundredths: that holds for any encoder, whatever it is called.
_PROBE = "In 1928 Alexander Fleming, a Scottish physician, discovered penicillin in London."


@dataclass(frozen=True, slots=True)
class Passage:
    """A text whose sentences are encoded one by one, and the title they are read after ("" for none).

    language: see `split_sentences`.
    """

    title: str
    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class SentenceVectors:
    """offsets: (n, 2) characters of the passage's text, in order. vectors: (n, dimension) float32."""

    offsets: IntArray
    vectors: Vectors


def titled(title: str, sentence: str) -> str:
    """A sentence as the encoder reads it: the title first, for sentences that say only "he"."""
    return f"{title}\n{sentence}" if title else sentence


class SentenceReader:
    """Encodes what the cache lacks. With a cache every vector is rounded to float16, whether it was known or not.

    cache: any `DocumentCache`, or None. A document is one entry: its offsets, then its vectors. units: see
    `split_sentences`; another kind of units has entries of its own.
    """

    def __init__(self, model: DualEncoder, cache: DocumentCache | None = None, *, units: UnitKind = "auto") -> None:
        self.model, self.cache, self.units = model, cache, units

    def read(self, passages: Sequence[Passage]) -> dict[Passage, SentenceVectors]:
        """The sentences of every passage; equal passages are read once."""
        return {passage: found for some in self._batches(passages) for passage, found in self._read(some).items()}

    def index(self, passages: Sequence[Passage]) -> int:
        """Fill the cache; returns the number of sentences of the distinct passages."""
        return sum(len(each.offsets) for some in self._batches(passages) for each in self._read(some).values())

    def _batches(self, passages: Sequence[Passage]) -> Iterator[list[Passage]]:
        return batched(dict.fromkeys(passages), _BATCH_PASSAGES)

    def _read(self, passages: Sequence[Passage]) -> dict[Passage, SentenceVectors]:
        if self.cache is None:
            return self._encoded(passages)
        keys = {passage: self._key(passage) for passage in passages}
        entries = zip(passages, self.cache.get(list(keys.values())), strict=True)
        read = {passage: self._stored(passage, entry) for passage, entry in entries if entry is not None}
        known = {passage: vectors for passage, vectors in read.items() if vectors is not None}
        fresh = self._encoded([passage for passage in passages if passage not in known])
        stored = {passage: _packed(each, self.model.name) for passage, each in fresh.items()}
        if stored:
            self.cache.put({keys[passage]: entry for passage, entry in stored.items()})
        return known | {passage: _unpacked(entry, self._dimension) for passage, entry in stored.items()}

    def _encoded(self, passages: Sequence[Passage]) -> dict[Passage, SentenceVectors]:
        """All sentences of all passages go to the encoder together, equal ones once."""
        with stage("tokenize"):
            spans = [split_sentences(passage.text, language=passage.language, units=self.units) for passage in passages]
            texts = [
                [
                    titled(passage.title, sentence)
                    for sentence in normalise(passage.text).read([(span.start, span.end) for span in some])
                ]
                for passage, some in zip(passages, spans, strict=True)
            ]
            row = {text: place for place, text in enumerate(dict.fromkeys(text for some in texts for text in some))}
        with stage("infer"):
            vectors = self.model.embed_sentences(list(row))
        return {
            passage: SentenceVectors(
                np.array([(span.start, span.end) for span in some], dtype=np.int64).reshape(-1, 2),
                vectors[[row[text] for text in mine]],
            )
            for passage, some, mine in zip(passages, spans, texts, strict=True)
        }

    def _stored(self, passage: Passage, entry: bytes) -> SentenceVectors | None:
        """What a cache gave for the passage; None when it cannot be of this text, whatever cache keeps it."""
        if len(entry) % (8 + 2 * self._dimension):
            return None
        vectors = _unpacked(entry, self._dimension)
        bounds = vectors.offsets.ravel()
        whole = bool((np.diff(bounds, prepend=0, append=len(passage.text)) >= 0).all())
        return vectors if whole and bool(np.isfinite(vectors.vectors).all()) else None

    def _key(self, passage: Passage) -> bytes:
        read = f"{len(passage.title)} {passage.title} {passage.text}"  # the length keeps title and text apart
        return cache_key(f"{UNITS_VERSION} {passage.language or ''} {self.units} {self._fingerprint}", read)

    @cached_property
    def _probe(self) -> Vectors:
        """(dimension,)"""
        vector: Vectors = self.model.embed_sentences([_PROBE])[0]
        return vector

    @property
    def _dimension(self) -> int:
        return len(self._probe)

    @cached_property
    def _fingerprint(self) -> str:
        hundredths = np.rint(self._probe * 100).astype(np.int64)
        return f"{self.model.similarity} {hashlib.blake2b(hundredths.tobytes(), digest_size=16).hexdigest()}"


def _packed(sentences: SentenceVectors, model: str) -> bytes:
    """n pairs of uint32 offsets, then n rows of float16."""
    with np.errstate(over="ignore"):  # what overflows is reported below
        vectors = sentences.vectors.astype("<f2")
    if not np.isfinite(vectors).all():
        raise CheckpointError(
            f"{model} gives sentence vectors with nan, infinity or values beyond 65504, which float16 cannot hold; "
            "check the checkpoint, or pass cache=None if the values are meant"
        )
    return sentences.offsets.astype("<u4").tobytes() + vectors.tobytes()


def _unpacked(entry: bytes, dimension: int) -> SentenceVectors:
    count = len(entry) // (8 + 2 * dimension)
    offsets = np.frombuffer(entry, "<u4", 2 * count).astype(np.int64).reshape(count, 2)
    vectors = np.frombuffer(entry, "<f2", count * dimension, offset=8 * count).reshape(count, dimension)
    return SentenceVectors(offsets, vectors.astype(np.float32))
