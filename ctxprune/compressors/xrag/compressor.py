"""xRAG (Cheng et al., NeurIPS 2024): each document as one soft token a shard, projected from its retrieval vectors.

The vectors are looked up in a store, or made on the spot where that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.bundled import FOLDER
from ctxprune.compressors.xrag.bridge import Bridge, load_bridge
from ctxprune.errors import BudgetError, InputError
from ctxprune.models.sentence_encoders import RAW, BundledEncoder, Embedder, embedder_name, load_embedder
from ctxprune.prompt import count_contexts, piece_text
from ctxprune.timing import stage
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import About, Context, Document, Extract, Piece, SoftTokens
from ctxprune.vectors import VectorStore, shard_text

Vectors: TypeAlias = npt.NDArray[np.float32]


@runtime_checkable
class DocumentVectors(Protocol):
    """Vectors made ahead of time, such as a `ctxprune.vectors.VectorStore`."""

    @property
    def dimension(self) -> int: ...

    @property
    def embedder_name(self) -> str: ...

    @property
    def shard_tokens(self) -> int | None:
        """How long the texts of single vectors are; None for one vector a document."""
        ...

    def text_of(self, document: Document) -> str:
        """What was embedded of a document: what `lookup` knows it by."""
        ...

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> Sequence[Vectors | None]:
        """For each text its vectors, (shards, dimension), or None when it is not there."""
        ...


class VectorReader:
    """embedder_name, dimension, shard_tokens: of the vectors that the bridge was trained with.

    store: a `DocumentVectors` or a vector store's folder. encoder: for what the store lacks; without a store None loads
    the embedder of that name. An encoder given by the caller may have another name than `embedder_name`, and so may a
    store that was built with it. Raises InputError for a store or an encoder of something else.
    """

    def __init__(
        self,
        embedder_name: str,
        dimension: int,
        shard_tokens: int | None,
        *,
        store: DocumentVectors | str | Path | None = None,
        encoder: Embedder | str | None = None,
    ) -> None:
        self._dimension, self._shard_tokens = dimension, shard_tokens
        self._store = VectorStore.open(store) if isinstance(store, (str, Path)) else store
        if encoder is None and store is None:
            encoder = embedder_name
        self._encoder = load_embedder(encoder) if isinstance(encoder, str) else encoder
        if self._encoder is not None:
            self._check_dimension(f"the encoder {self._encoder.name!r}", self._encoder.dimension)
        if self._store is not None:
            self._check_store(self._store, embedder_name)

    def read(self, extracts: Sequence[Extract]) -> list[Vectors]:
        """(shards, dimension) each. A text that an earlier compressor narrowed is always encoded.

        Raises InputError for vectors that are missing where there is no encoder, of another width, or not finite.
        """
        with stage("tokenize"):
            texts = [self._text(extract) for extract in extracts]
        with stage("infer"):
            vectors = self._stored(extracts, texts)
            missing = [place for place, found in enumerate(vectors) if found is None]
            if missing:
                self._require_encoder([extracts[place] for place in missing])
            for place, found in zip(missing, self._encoded([texts[place] for place in missing]), strict=True):
                vectors[place] = found
        return [self._checked(found, extract) for found, extract in zip(vectors, extracts, strict=True)]

    def _text(self, extract: Extract) -> str:
        kept = extract.source if all(extract.kept) else replace(extract.source, text=extract.text)
        return kept.text if self._store is None else self._store.text_of(kept)

    def _stored(self, extracts: Sequence[Extract], texts: Sequence[str]) -> list[Vectors | None]:
        vectors: list[Vectors | None] = [None] * len(extracts)
        whole = [place for place, extract in enumerate(extracts) if all(extract.kept)]
        if self._store is not None and whole:
            ids = [extracts[place].source.id for place in whole]
            for place, found in zip(whole, self._store.lookup([texts[place] for place in whole], ids), strict=True):
                vectors[place] = found
        return vectors

    def _encoded(self, texts: Sequence[str]) -> list[Vectors]:
        if self._encoder is None or not texts:
            return []
        shards = [shard_text(text, self._shard_tokens) for text in texts]
        vectors = self._encoder.embed([shard for some in shards for shard in some])
        return np.split(vectors, np.cumsum([len(some) for some in shards])[:-1])

    def _require_encoder(self, missing: Sequence[Extract]) -> None:
        if self._encoder is not None:
            return
        first = missing[0]
        named = f"{len(missing)} documents have no vectors in the store, the first is document {first.index}"
        if not all(first.kept):
            raise InputError(
                f"{named}, of which an earlier compressor kept a part, and the store knows whole documents only; "
                "pass encoder=, or put xrag first"
            )
        raise InputError(
            f"{named} with id {first.source.id!r} ({first.source.text!r:.60}); add it to the store, or pass encoder="
        )

    def _checked(self, vectors: Vectors | None, extract: Extract) -> Vectors:
        found = np.asarray(vectors)
        if found.ndim != 2 or len(found) == 0 or found.shape[1] != self._dimension:
            raise InputError(
                f"the vectors of document {extract.index} have the shape {found.shape}, expected (shards, "
                f"{self._dimension}); look at the store or the encoder"
            )
        if not np.isfinite(found).all():
            raise InputError(
                f"the vectors of document {extract.index} with id {extract.source.id!r} hold nan or infinity; "
                "embed the document again"
            )
        return found.astype(np.float32, copy=False)

    def _check_dimension(self, what: str, dimension: int) -> None:
        if dimension != self._dimension:
            raise InputError(f"{what} has {dimension} dimensions, the bridge was trained on {self._dimension}")

    def _check_store(self, store: DocumentVectors, embedder_name: str) -> None:
        self._check_dimension("the store", store.dimension)
        known = {_canonical(embedder_name)} | ({self._encoder.name} if self._encoder else set())
        if _canonical(store.embedder_name) not in known:
            raise InputError(
                f"the store was built with {store.embedder_name!r}, the bridge was trained on {embedder_name!r}; build "
                "the store with that, or pass the store's own embedder as encoder= if they are the same"
            )
        if store.shard_tokens != self._shard_tokens:
            raise InputError(
                f"the store has a vector for {store.shard_tokens or 'all'} tokens of a document, the bridge reads one "
                f"for {self._shard_tokens or 'all'}; build the store with shard_tokens={self._shard_tokens}"
            )


def _canonical(name: str) -> str:
    """The name of the model alone; the length of vectors is checked where they are read."""
    return BundledEncoder.name if name == "bundled" else name.removeprefix(RAW)


BUNDLED_BRIDGE = FOLDER / "xrag-smollm2-mini"


class XRAG:
    """Turns documents into soft tokens for the one generator that its bridge was trained for.

    model: a bridge's folder, hub id, or a loaded `Bridge`; None for the bundled one, for SmolLM2-135M-Instruct.
    store: vectors made ahead of time (a `VectorStore`, its folder, or any `DocumentVectors`), so that nothing is
    encoded at query time; a document that it lacks is an error, unless `encoder` is given. encoder: an `Embedder` or
    its name; None: with a store none, else the bridge's own. text_top: so many of the best documents stay text.
    budget: used when `compress` is called without; counter measures the text, a soft token counts one.

    The best documents are those of the highest score, the first where nothing scored them. What an earlier compressor
    kept of a document is encoded anew, as a store knows only whole ones; what it dropped stays out, and so does a
    document without text. Raises InputError for a store or encoder that does not fit the bridge.
    """

    name: ClassVar[str] = "xrag"
    #: Vectors are of documents alone; the question changes nothing.
    needs_query: ClassVar[bool] = False
    #: What comes out is for the generator only: the pipeline lets no compressor follow.
    gives_soft_tokens: ClassVar[bool] = True

    def __init__(
        self,
        model: str | Path | Bridge | None = None,
        *,
        store: DocumentVectors | str | Path | None = None,
        encoder: Embedder | str | None = None,
        text_top: int = 0,
        budget: int | None = None,
        counter: CounterLike | None = None,
    ) -> None:
        if text_top < 0:
            raise InputError(f"text_top must be 0 or more documents, got {text_top}")
        _check(budget, None)
        self.bridge = model if isinstance(model, Bridge) else load_bridge(BUNDLED_BRIDGE if model is None else model)
        self.text_top = text_top
        self.budget = budget
        self.counter = None if counter is None else as_counter(counter)
        config = self.bridge.config
        embedder = embedder_name(config.encoder, unit=config.normalised)
        self._reader = VectorReader(embedder, config.d_retriever, config.shard_tokens, store=store, encoder=encoder)

    @property
    def template(self) -> str:
        """The prompt that the soft tokens were trained in: the `template` to give to `generate_contexts`."""
        return self.bridge.config.template

    @property
    def about(self) -> About:
        return About(needs_query=False, gives="soft tokens", budget=self.budget, counts=True, counter=self.counter)

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        """Soft tokens in the documents' places, but for the `text_top` best.

        With a budget (generator tokens for the whole context) the best documents get their soft tokens first; then, in
        their order, the `text_top` best become text where what is left suffices for that. Documents that do not fit are
        dropped. Summaries and soft tokens pass through and take their share; a warning says so when they exceed the
        budget. Raises InputError for a threshold, as nothing is scored here, and for vectors that are missing, of
        another width or not finite; BudgetError for a budget below 1.
        """
        _check(budget, threshold)
        budget = self.budget if budget is None else budget
        ranked = [_ranked(context) for context in contexts]
        # with a budget, which documents stay text is not known yet
        texts = 0 if budget is not None else self.text_top
        soft = self._soften(contexts, [sorted(ranks[texts:]) for ranks in ranked])
        with stage("select"):
            if budget is None:
                return [_replaced(context, some) for context, some in zip(contexts, soft, strict=True)]
            return [self._fitted(*each, budget) for each in zip(contexts, ranked, soft, strict=True)]

    def _soften(self, contexts: Sequence[Context], places: Sequence[Sequence[int]]) -> list[dict[int, Piece]]:
        """For each context the soft tokens of the documents at these places."""
        wanted = [
            extract
            for context, some in zip(contexts, places, strict=True)
            for extract in (context.pieces[place] for place in some)
            if isinstance(extract, Extract)
        ]
        vectors = self._reader.read(wanted)
        with stage("infer"):
            embeddings = self._projected(vectors)
        generator = self.bridge.config.generator
        pieces = (
            SoftTokens(tokens, extract.source, generator, extract.index)
            for extract, tokens in zip(wanted, embeddings, strict=True)
        )
        return [{place: next(pieces) for place in some} for some in places]

    def _projected(self, vectors: Sequence[Vectors]) -> list[Vectors]:
        """(shards, d_retriever) each to (shards, d_model) each."""
        if not vectors:
            return []
        rows = np.concatenate(vectors)
        if not self.bridge.config.normalised and np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-3):
            name = embedder_name(self.bridge.config.encoder, unit=False)
            raise InputError(
                "all vectors have length one, the bridge was trained on vectors as its encoder gives them; pass "
                f"encoder={name!r}, or a store that was built with it"
            )
        return np.split(self.bridge.project(rows), np.cumsum([len(each) for each in vectors])[:-1])

    def _fitted(self, context: Context, ranks: Sequence[int], soft: Mapping[int, Piece], budget: int) -> Context:
        """Soft tokens of the best documents within the budget, then text for the best where it still fits."""
        counter = self.counter or default_counter()
        chosen = {place: _dropped(context.pieces[place]) for place in ranks}
        used = count_contexts([_replaced(context, chosen)], counter)[0]
        if used > budget:
            return _replaced(context, chosen).warn(
                f"the budget of {budget} tokens is exceeded: summaries and soft tokens from before take {used}"
            )
        for place in ranks:
            if used + _length(soft[place]) <= budget:
                chosen[place] = soft[place]
                used += _length(soft[place])
        for place in ranks[: self.text_top]:
            trial = chosen | {place: context.pieces[place]}
            if count_contexts([_replaced(context, trial)], counter)[0] <= budget:
                chosen = trial
        if ranks and not any(_length(piece) or piece_text(piece) for piece in chosen.values()):
            least = min(_length(piece) for piece in soft.values())
            context = context.warn(f"no document fits the budget of {budget} tokens: the shortest takes {least} more")
        return _replaced(context, chosen)


def _ranked(context: Context) -> list[int]:
    """Places of the documents that have text, the best first."""
    places = [place for place, piece in enumerate(context.pieces) if isinstance(piece, Extract) and piece.text.strip()]
    return sorted(places, key=lambda place: _rank(context.pieces[place]))


def _rank(piece: Piece) -> float:
    score = piece.score if isinstance(piece, Extract) else None
    return math.inf if score is None or math.isnan(score) else -score


def _replaced(context: Context, pieces: Mapping[int, Piece]) -> Context:
    """The context with these pieces in place, and documents without text marked as dropped."""
    return replace(context, pieces=tuple(pieces.get(at) or _with_text(each) for at, each in enumerate(context.pieces)))


def _with_text(piece: Piece) -> Piece:
    return piece if isinstance(piece, SoftTokens) or piece.text.strip() else _dropped(piece)


def _length(piece: Piece) -> int:
    return len(piece.embeddings) if isinstance(piece, SoftTokens) else 0


def _dropped(piece: Piece) -> Piece:
    return replace(piece, kept=(False,) * len(piece.kept)) if isinstance(piece, Extract) else piece


def _check(budget: int | None, threshold: float | None) -> None:
    if threshold is not None:
        raise InputError(
            f"xrag scores nothing, so threshold={threshold} means nothing; pass budget=, or drop documents with a "
            "compressor before it"
        )
    if budget is not None and budget <= 0:
        raise BudgetError(f"budget must be positive, got {budget}; leave it out to keep every document")
