"""xRAG (Cheng et al., NeurIPS 2024): each document as one soft token a piece, projected from its retrieval vectors.

The vectors are looked up in a store, or made on the spot where that is allowed. With a policy, the pieces that matter
go as text instead (see `ctxprune.compressors.xrag.expand`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.xrag.bridge import DEFAULT_BRIDGE, Bridge, load_bridge
from ctxprune.compressors.xrag.expand import Choice, Softened, checked_policy, parts_of, relevant_score, stretches_of
from ctxprune.compressors.xrag.reader import DocumentVectors, VectorReader, Vectors
from ctxprune.errors import BudgetError, InputError
from ctxprune.models.sentence_encoders import Embedder, embedder_name
from ctxprune.plain import plain_budget, plain_threshold
from ctxprune.prompt import count_contexts, piece_text
from ctxprune.timing import stage
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import About, Compressor, Context, Extract, Piece, SoftTokens


class XRAG:
    """Turns documents into soft tokens for the one generator that its bridge was trained for.

    model: a bridge's folder, hub id, or a loaded `Bridge`, or a bundled one, both for SmolLM2-135M-Instruct: the
    default, "xrag-smollm2-mini", has one vector a document, "xrag-smollm2-pieces" one for each 16 tokens.
    store: vectors made ahead of time (a `VectorStore`, its folder, or any `DocumentVectors`), so that nothing is
    encoded at query time; a document that it lacks is an error, unless `encoder` is given. encoder: an `Embedder` or
    its name; None: with a store none, else the bridge's own. text_top: so many of the best documents stay text.
    expand: a compressor that scores, or its name: its scores choose which pieces of the documents stay text, which
    become one soft token each, and which go. budget: used when `compress` is called without; counter measures the text,
    a soft token counts one.

    The best documents are those of the highest score, the first where nothing scored them. What an earlier compressor
    kept of a document is encoded anew, as a store knows only whole ones; what it dropped stays out, and so does a
    document without text. Raises InputError for a store or encoder that does not fit the bridge, for a compressor that
    gives no scores, and for text_top beside expand.
    """

    name: ClassVar[str] = "xrag"
    #: What comes out is for the generator only: the pipeline lets no compressor follow.
    gives_soft_tokens: ClassVar[bool] = True

    def __init__(
        self,
        model: str | Path | Bridge | None = None,
        *,
        store: DocumentVectors | str | Path | None = None,
        encoder: Embedder | str | None = None,
        text_top: int = 0,
        expand: Compressor | str | None = None,
        budget: int | None = None,
        counter: CounterLike | None = None,
    ) -> None:
        if text_top < 0:
            raise InputError(f"text_top must be 0 or more documents, got {text_top}")
        if text_top and expand is not None:
            raise InputError(f"text_top={text_top} beside expand= says twice what stays text; leave one of them out")
        self.policy = None if expand is None else checked_policy(load(expand) if isinstance(expand, str) else expand)
        self._check(budget, None)
        self.bridge = model if isinstance(model, Bridge) else load_bridge(DEFAULT_BRIDGE if model is None else model)
        self.text_top = text_top
        self.budget = budget
        self.counter = None if counter is None else as_counter(counter)
        config = self.bridge.config
        embedder = embedder_name(config.encoder, unit=config.normalised)
        self._reader = VectorReader(
            embedder, config.d_retriever, config.shard_tokens, config.pieces, store=store, encoder=encoder
        )

    @property
    def template(self) -> str:
        """The prompt that the soft tokens were trained in: the `template` to give to `generate_contexts`."""
        return self.bridge.config.template

    @property
    def needs_query(self) -> bool:
        """Vectors are of documents alone; only a policy may look at the question."""
        return self.policy is not None and self.policy.needs_query

    @property
    def about(self) -> About:
        parts = {} if self.policy is None else {"scorer": self.policy}
        return About(
            needs_query=self.needs_query,
            gives="soft tokens",
            budget=self.budget,
            counts=True,
            counter=self.counter,
            parts=parts,
        )

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        """Soft tokens in the documents' places, but for the `text_top` best.

        With a budget (generator tokens for the whole context) the best documents get their soft tokens first; then, in
        their order, the `text_top` best become text where what is left suffices for that. Documents that do not fit are
        dropped. Summaries and soft tokens pass through and take their share; a warning says so when they exceed the
        budget.

        With `expand` the choice is among the documents' pieces: see `ctxprune.compressors.xrag.expand.chosen`.
        threshold: from which score of that compressor a piece is worth its text, in place of its own.

        Raises InputError for a threshold where nothing is scored, and for vectors that are missing, of another width,
        zero or not finite; BudgetError for a budget below 1, and for none where scores only rank.
        """
        self._check(budget, threshold)
        budget = self.budget if budget is None else budget
        if self.policy is not None:
            return self._expanded(contexts, self.policy, budget, threshold)
        ranked = [_ranked(context) for context in contexts]
        # with a budget, which documents stay text is not known yet
        texts = 0 if budget is not None else self.text_top
        read = self._read(contexts, [sorted(ranks[texts:]) for ranks in ranked])
        soft: list[dict[int, Piece]] = [
            {place: each.whole(self.reads) for place, each in some.items()} for some in read
        ]
        with stage("select"):
            if budget is None:
                return [_replaced(context, some) for context, some in zip(contexts, soft, strict=True)]
            return [self._fitted(*each, budget) for each in zip(contexts, ranked, soft, strict=True)]

    @property
    def reads(self) -> str:
        """What the soft tokens call the model that they are for; `known_as` of one loaded under another name."""
        return self.bridge.config.reads

    def _read(self, contexts: Sequence[Context], places: Sequence[Sequence[int]]) -> list[dict[int, Softened]]:
        """For each context the documents at these places with their soft tokens."""
        wanted = [
            extract
            for context, some in zip(contexts, places, strict=True)
            for extract in (context.pieces[place] for place in some)
            if isinstance(extract, Extract)
        ]
        pieces = self._reader.read(wanted)
        with stage("infer"):
            embeddings = self._projected([each.vectors for each in pieces])
        made = (
            Softened(extract, tokens, stretches_of(extract, each.offsets))
            for extract, each, tokens in zip(wanted, pieces, embeddings, strict=True)
        )
        return [{place: next(made) for place in some} for some in places]

    def _expanded(
        self, contexts: Sequence[Context], policy: ScoringCompressor, budget: int | None, threshold: float | None
    ) -> list[Context]:
        """Compress, sense, expand: the documents' pieces in the forms that the policy's scores choose."""
        read = self._read(contexts, [sorted(_ranked(context)) for context in contexts])
        scored = policy.score(contexts)
        with stage("select"):
            return [
                self._chosen(context, sensed, some, budget, relevant_score(policy, sensed, threshold))
                for context, sensed, some in zip(contexts, scored, read, strict=True)
            ]

    def _chosen(
        self,
        context: Context,
        sensed: Context,
        read: Mapping[int, Softened],
        budget: int | None,
        threshold: float | None,
    ) -> Context:
        """The documents of one context, with what the policy made of it."""
        counter = self.counter or default_counter()
        emptied = _replaced(context, {place: _dropped(context.pieces[place]) for place in read})
        used = count_contexts([emptied], counter)[0]
        if budget is not None and used > budget:
            return emptied.warn(_exceeded(budget, used))
        parts = [
            part
            for number, (place, each) in enumerate(read.items())
            for part in parts_of(number, each, sensed.pieces[place])
        ]
        choice = Choice(parts, [*read.values()], counter, threshold=threshold)
        room = None if budget is None else budget - used
        while True:
            made = choice.pieces(room, self.reads)
            after = _replaced(context, dict(zip(read, made, strict=True)))
            # a text is tokenised as a whole, which may take some tokens more than its parts
            over = 0 if budget is None else count_contexts([after], counter)[0] - budget
            if over <= 0:
                return after if any(map(_is_there, made)) or not made else after.warn(_too_small(budget))
            room = (room or 0) - over

    def _check(self, budget: int | None, threshold: float | None) -> None:
        budget, threshold = plain_budget(budget), plain_threshold(threshold)
        if threshold is not None and (self.policy is None or self.policy.default_threshold is None):
            what = "xrag scores nothing" if self.policy is None else f"{self.policy.name} scores are not probabilities"
            raise InputError(
                f"{what}, so threshold={threshold} means nothing; pass budget=, or drop documents with a compressor "
                "before it"
            )
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"threshold must be in [0, 1], got {threshold}")
        if budget is not None and budget <= 0:
            raise BudgetError(
                f"budget must be positive, got {budget}: one vector takes 1; leave it out to keep every document"
            )

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
            return _replaced(context, chosen).warn(_exceeded(budget, used))
        wanted = [(place, soft[place]) for place in ranks]
        wanted += [(place, context.pieces[place]) for place in ranks[: self.text_top]]
        for place, piece in wanted:
            trial = chosen | {place: piece}
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


def _is_there(piece: Piece) -> bool:
    return bool(_length(piece) or piece_text(piece))


def _exceeded(budget: int, used: int) -> str:
    return f"the budget of {budget} tokens is exceeded: summaries and soft tokens from before take {used}"


def _too_small(budget: int | None) -> str:
    return f"no piece of a document fits the budget of {budget} tokens beside what was there before"
