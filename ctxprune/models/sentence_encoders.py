"""Texts to unit vectors: the bundled encoder, means of token embeddings, sentence-transformers models, or several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ctxprune.bundled import FOLDER
from ctxprune.errors import CheckpointError, InputError
from ctxprune.files import batched
from ctxprune.models.formats import PairFormat
from ctxprune.runtime import EncoderOutput, EncoderRuntime, TokenSequence
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.runtime.weights import model_file
from ctxprune.text.normal import readable

Similarity = Literal["cosine", "dot"]
Vectors = npt.NDArray[np.float32]
#: Texts tokenised at a time, so that memory does not grow with their number.
BATCH_TEXTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEncoder:
    """A text's vector is the mean over the last hidden states of its tokens, special ones included.

    runtime: gives "mean" (dimension,) or "last_hidden_state" (seq, dimension). layout: the special tokens around a
    text. max_tokens: of an input; a longer text is read piece by piece and averaged by tokens, so its end counts too.
    query_prefix, sentence_prefix: put before every text of that kind, as in training.
    """

    name: str
    runtime: EncoderRuntime
    tokenizer: Tokenizer
    layout: PairFormat
    max_tokens: int
    similarity: Similarity
    with_title: bool = True
    default_threshold: float | None = None
    query_prefix: str = ""
    sentence_prefix: str = ""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, self.query_prefix)

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, self.sentence_prefix)

    def _embed(self, texts: Sequence[str], prefix: str) -> Vectors:
        blocks = [self._means([prefix + readable(text) for text in some]) for some in batched(texts, BATCH_TEXTS)]
        if not blocks:
            return np.zeros((0, 0), dtype=np.float32)
        means = np.concatenate(blocks)
        if self.similarity == "cosine":
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        vectors: Vectors = means.astype(np.float32)
        return vectors

    def _means(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(texts, dimension): over all tokens of all pieces of each text."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        pieces = [self._pieces(encoding.ids) for encoding in encodings]
        outputs = iter(self.runtime.forward([piece for some in pieces for piece in some]))
        return np.stack(
            [
                np.average([_mean(next(outputs)) for _ in some], axis=0, weights=[len(piece) for piece in some])
                for some in pieces
            ]
        )

    def _pieces(self, ids: list[int]) -> list[TokenSequence]:
        around = PairFormat(self.layout.prefix, (), self.layout.suffix)
        room = max(1, self.max_tokens - around.overhead)
        return [around.build((), ids[first : first + room]) for first in range(0, max(len(ids), 1), room)]


def _mean(output: EncoderOutput) -> npt.NDArray[np.float64]:
    if "mean" in output:
        return output["mean"].astype(np.float64)
    mean: npt.NDArray[np.float64] = output["last_hidden_state"].mean(axis=0, dtype=np.float64)
    return mean


BUNDLED_FOLDER = FOLDER / "minilm-encoder"
#: Before the name of an embedder whose vectors are not scaled to length one.
RAW = "raw:"
#: The model was trained on at most so many tokens, its two special tokens included.
WINDOW_TOKENS = 256
#: Windows run at a time, side by side on the CPUs; their hidden states take at most 400 kB each until they are pooled.
BATCH_WINDOWS = 32


class Embedder(Protocol):
    """Texts in, vectors out, of length one unless its name says otherwise; none depends on the text's neighbours."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        ...


class BundledEncoder:
    """all-MiniLM-L6-v2, int8, from the package: mean over the tokens' last hidden states, scaled to length one.

    A text longer than the window is embedded window by window and averaged by tokens, so its end counts too.
    runtime, tokenizer: for another export of the same kind (a BERT with `last_hidden_state`).
    """

    name = "all-MiniLM-L6-v2-int8"
    dimension = 384

    def __init__(self, *, runtime: EncoderRuntime | None = None, tokenizer: Tokenizer | None = None) -> None:
        self._runtime = runtime or _bundled_runtime()
        self._tokenizer = _bundled_tokenizer() if tokenizer is None else _uncut(tokenizer)
        self._cls, self._sep = (_special(self._tokenizer, token) for token in ("[CLS]", "[SEP]"))

    def embed(self, texts: Sequence[str]) -> Vectors:
        blocks = [np.zeros((0, self.dimension), dtype=np.float32)]
        for batch in batched(map(readable, texts), BATCH_TEXTS):
            encodings = self._tokenizer.encode_batch(batch, add_special_tokens=False)
            blocks.append(self._pooled([encoding.ids for encoding in encodings]))
        return np.concatenate(blocks)

    def _pooled(self, texts: Sequence[list[int]]) -> Vectors:
        """The mean over all tokens of all windows of each text, scaled to length one: (texts, dimension)."""
        totals = np.zeros((len(texts), self.dimension), dtype=np.float64)
        windows = ((row, window) for row, ids in enumerate(texts) for window in self._windows(ids))
        for some in batched(windows, BATCH_WINDOWS):
            outputs = self._runtime.forward([window for _, window in some])
            for (row, _), output in zip(some, outputs, strict=True):
                totals[row] += output["last_hidden_state"].sum(axis=0, dtype=np.float64)
        return np.stack([_unit_length(total) for total in totals])

    def _windows(self, ids: list[int]) -> Iterator[TokenSequence]:
        step = WINDOW_TOKENS - 2
        for first in range(0, max(len(ids), 1), step):
            tokens = np.array([self._cls, *ids[first : first + step], self._sep], dtype=np.int64)
            yield TokenSequence(tokens, np.zeros_like(tokens))


class SentenceTransformerEncoder:
    """A sentence-transformers model by hub id or path; texts beyond its own window are cut by the model.

    unit: scale vectors to length one. False leaves them as the model pools them, which some xRAG bridges were trained
    on; the name then begins with "raw:". Raises CheckpointError when it cannot be loaded.
    """

    def __init__(self, name: str, *, device: str | None = None, batch_size: int = 32, unit: bool = True) -> None:
        from sentence_transformers.sentence_transformer.modules import Normalize

        self.name = name if unit else f"{RAW}{name}"
        self.batch_size = batch_size
        self._unit = unit
        self._model = sentence_transformer(name, device=device)
        for place in reversed(range(0 if unit else len(self._model))):
            if isinstance(self._model[place], Normalize):
                del self._model[place]

    @cached_property
    def dimension(self) -> int:
        dimension = self._model.get_embedding_dimension()
        return int(dimension) if dimension else int(self.embed([""]).shape[1])

    @property
    def window(self) -> int | None:
        """Tokens of its own that it reads of a text; None where it does not say."""
        window: int | None = self._model.max_seq_length
        return window

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        options: dict[str, Any] = {"batch_size": self.batch_size, "show_progress_bar": False}
        vectors = self._model.encode([*map(readable, texts)], normalize_embeddings=self._unit, **options)
        return np.asarray(vectors, dtype=np.float32)


#: What stands between the names of encoders whose vectors are joined.
JOIN = "+"
#: Ids below are special tokens, single characters and marks; above, words come in the order of their frequency.
_FIRST_WORD = 1996


class TokenMeans:
    """The mean of the bundled encoder's token embeddings, before any layer has mixed them, scaled to length one.

    The rarer a token, the more it weighs: ln(1 + rank), as in model2vec. A text without tokens gets the mean of nothing
    but its end, so that no vector is zero.
    """

    name = "token-means"
    dimension = BundledEncoder.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        encodings = _bundled_tokenizer().encode_batch([readable(text) for text in texts], add_special_tokens=False)
        rows = [self._mean(encoding.ids or [self._end]) for encoding in encodings]
        return np.array(rows, np.float32).reshape(len(texts), self.dimension)

    def _mean(self, ids: list[int]) -> npt.NDArray[np.float32]:
        weights = np.log1p(np.maximum(np.array(ids) - _FIRST_WORD, 1)).astype(np.float32)
        total = weights @ self._table[ids]
        mean: npt.NDArray[np.float32] = total / np.linalg.norm(total)
        return mean

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        """(vocabulary, dimension)."""
        from safetensors import safe_open

        with safe_open(FOLDER / "shared" / "minilm-l6.safetensors", "np") as file:
            weights, scale = file.get_tensor("word_embeddings.weight"), file.get_tensor("word_embeddings.scale")
        table: npt.NDArray[np.float32] = weights.astype(np.float32) * scale
        table -= table.mean(axis=0)
        return table

    @cached_property
    def _end(self) -> int:
        return _special(_bundled_tokenizer(), "[SEP]")


class Joined:
    """The vectors of several encoders side by side, each of length one, the whole scaled to length one.

    name: the encoders' names with "+" between them. Raises InputError for fewer than two, and for one whose vectors
    keep their own length: it would drown the others.
    """

    def __init__(self, encoders: Sequence[Embedder]) -> None:
        self.name = JOIN.join(encoder.name for encoder in encoders)
        if len(encoders) < 2:
            raise InputError(f"two encoders or more can be joined, got {self.name!r}")
        if raw := [encoder.name for encoder in encoders if encoder.name.startswith(RAW)]:
            raise InputError(f"only vectors of length one can be joined, not those of {raw[0]!r}; leave {RAW!r} out")
        self._encoders = tuple(encoders)

    @property
    def dimension(self) -> int:
        return sum(encoder.dimension for encoder in self._encoders)

    @property
    def window(self) -> int | None:
        """The smallest of the encoders' windows."""
        windows = [window for encoder in self._encoders if (window := getattr(encoder, "window", None))]
        return min(windows, default=None)

    def embed(self, texts: Sequence[str]) -> Vectors:
        blocks = [encoder.embed(texts) for encoder in self._encoders]
        joined: Vectors = np.concatenate(blocks, axis=1) / np.float32(math.sqrt(len(blocks)))
        return joined


def load_embedder(name: str) -> Embedder:
    """ "bundled" (or the bundled encoder's own name), "token-means", several with "+" between them, else a
    sentence-transformers id or path, after "raw:" for vectors that are not scaled to length one.

    Raises InputError for a name with nothing on one side of a "+"."""
    if name in ("bundled", BundledEncoder.name):
        return BundledEncoder()
    if name == TokenMeans.name:
        return TokenMeans()
    if JOIN in name and not Path(name).exists():
        if not all(parts := name.split(JOIN)):
            raise InputError(f"an encoder's name is missing in {name!r}; put one on each side of {JOIN!r}")
        return Joined([load_embedder(part) for part in parts])
    return SentenceTransformerEncoder(name.removeprefix(RAW), unit=not name.startswith(RAW))


def check_window(encoder: Embedder, tokens: int | None) -> None:
    """Raises InputError for pieces of more tokens than the encoder reads, the rest of which it would not see."""
    window = getattr(encoder, "window", None)
    if tokens is not None and window and tokens > window:
        raise InputError(
            f"pieces of {tokens} tokens are longer than the {window} that {encoder.name!r} reads; take shard_tokens of "
            f"{window} at most"
        )


def embedder_name(encoder: str, *, unit: bool) -> str:
    """How `load_embedder` is asked for an encoder with vectors of length one, or (False) as the model pools them."""
    return encoder if unit or encoder.startswith(RAW) else f"{RAW}{encoder}"


def _special(tokenizer: Tokenizer, token: str) -> int:
    place = tokenizer.token_to_id(token)
    if place is None:
        raise CheckpointError(f"the encoder's tokenizer has no {token}; it must be a BERT tokenizer")
    return int(place)


def _unit_length(total: npt.NDArray[np.float64]) -> Vectors:
    vector: Vectors = (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
    return vector


@lru_cache(maxsize=1)
def _bundled_runtime() -> EncoderRuntime:
    from ctxprune.runtime.onnx import OnnxRuntime

    return OnnxRuntime(BUNDLED_FOLDER / "model.onnx")


@lru_cache(maxsize=1)
def _bundled_tokenizer() -> Tokenizer:
    path = model_file(BUNDLED_FOLDER, "tokenizer.json")
    try:
        return _uncut(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises a bare Exception for a missing and for a damaged file
        raise CheckpointError(f"cannot read the bundled tokenizer {path}: {error}; reinstall ctxprune-rag") from error


def _uncut(tokenizer: Tokenizer) -> Tokenizer:
    # set once, before any thread can see it: windows are ours to cut
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


#: The file that tells a sentence-transformers model from a bare encoder.
MODULES = "modules.json"
_BATCH_TEXTS = 32


class SentenceTransformerPair:
    """Question and sentence go through the model's own prompts for queries and documents, where it has them.

    Texts beyond the model's window are cut by the model. Raises CheckpointError when it cannot be loaded, is no dense
    encoder, or compares vectors by a distance.
    """

    with_title = True
    default_threshold: float | None = None

    def __init__(self, source: str | Path, *, revision: str | None = None, device: str | None = None) -> None:
        self.name = str(source)
        self._model = sentence_transformer(self.name, revision=revision, device=device)
        self.similarity = _similarity(self._model.similarity_fn_name, self.name)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embedded(self._model.encode_query, texts)

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        return self._embedded(self._model.encode_document, texts)

    def _embedded(self, encode: Any, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        vectors = encode(
            [*map(readable, texts)],
            batch_size=_BATCH_TEXTS,
            show_progress_bar=False,
            normalize_embeddings=self.similarity == "cosine",
        )
        return np.asarray(vectors, dtype=np.float32)


def sentence_transformer(name: str, **options: Any) -> Any:
    """The `SentenceTransformer` of a folder or hub id. Raises CheckpointError when it cannot be loaded."""
    from sentence_transformers import SentenceTransformer

    try:
        with no_bars_off_terminal():
            return SentenceTransformer(name, trust_remote_code=False, **options)
    except Exception as error:  # missing path, no network, foreign layout: each its own type in another library
        raise CheckpointError(f"cannot load the sentence-transformers model {name!r}: {error}") from error


def _similarity(name: str, source: str) -> Similarity:
    if name in get_args(Similarity):
        return cast(Similarity, name)
    raise CheckpointError(f"{source} compares vectors by {name}; supported are cosine and dot")


def has_modules(source: str | Path, *, revision: str | None = None) -> bool:
    """Whether a folder or hub id holds a sentence-transformers model; False for what is not there or not reachable."""
    if Path(source).expanduser().is_dir():
        return (Path(source).expanduser() / MODULES).is_file()
    if isinstance(source, Path) or source.startswith((".", "/", "~")):
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(source, MODULES, revision=revision)
    except (HfHubHTTPError, OSError, ValueError):  # absent, no network, no such id: the loader says which
        return False
    return True
