"""What is asked in each arm of the comparison: from the question alone to all of the text, with soft tokens between."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.xrag import compressor
from ctxprune.compressors.xrag.bridge import Bridge
from ctxprune.errors import InputError
from ctxprune.models.sentence_encoders import Embedder
from ctxprune.types import Context, Document, SoftTokens

SoftVectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its accepted answers, and the texts of its documents, one of which holds an answer."""

    id: str
    question: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TextTokens:
    """Soft tokens of texts, made as the compressor makes them; each text's "shuffled" ones are those of another text.

    texts: at least two distinct ones. seed: of the order in which texts lend each other their tokens. policy: whose
    best sentence stands as text in `expanded`.
    """

    def __init__(
        self,
        bridge: Bridge,
        embedder: Embedder,
        texts: Sequence[str],
        *,
        seed: int,
        policy: Callable[[], ScoringCompressor] | None = None,
    ) -> None:
        distinct = list(dict.fromkeys(texts))
        if len(distinct) < 2:
            raise InputError(f"soft tokens can be shuffled among 2 texts or more, got {len(distinct)}")
        self._bridge, self._embedder, self.policy = bridge, embedder, policy
        [context] = compressor.XRAG(bridge, encoder=embedder).compress([Context.of("", distinct)])
        self._own = {piece.source.text: piece for piece in context.pieces if isinstance(piece, SoftTokens)}
        order = random.Random(seed).sample(distinct, len(distinct))
        self._other = dict(zip(order, [*order[1:], order[0]], strict=True))
        self._constant = None if bridge.constant is None else bridge.constant[None]

    def of(self, text: str) -> dict[str, SoftVectors]:
        """(n, d_model) by name: "true", "shuffled", and "constant" where the bridge has one."""
        return {name: piece.embeddings for name, piece in self._named(text).items()}

    def contexts(self, question: str, documents: Sequence[str]) -> dict[str, Context]:
        """The question with the soft tokens of all documents in their places, by the names of `of`."""
        named = [self._named(text) for text in documents]
        return {name: Context(question, tuple(each[name] for each in named)) for name in named[0]}

    def expanded(self, question: str, documents: Sequence[str], policy: ScoringCompressor) -> Context:
        """The policy's best sentence of all as text, in whole pieces, and the other pieces as vectors."""
        context = Context.of(question, documents)
        [scored] = policy.score([context])
        best = max((unit.score for extract in scored.extracts for unit in extract.kept_units()), default=0.0)
        xrag = compressor.XRAG(self._bridge, encoder=self._embedder, expand=_Known(scored))
        [made] = xrag.compress([context], threshold=best)
        return made

    def lent(self, context: Context) -> Context:
        """The same context with another text's soft tokens in the place of each document's, as many as there were."""
        pieces = [self._lent(piece) if isinstance(piece, SoftTokens) else piece for piece in context.pieces]
        return Context(context.query, pieces)

    def _lent(self, piece: SoftTokens) -> SoftTokens:
        other = self._own[self._other[piece.source.text]].embeddings
        # the rows of the other from the start again where it has fewer
        return replace(piece, embeddings=other[np.arange(len(piece.embeddings)) % len(other)])

    def _named(self, text: str) -> Mapping[str, SoftTokens]:
        own = self._own[text]
        lent = self._own[self._other[text]]
        found = {"true": own, "shuffled": replace(lent, index=own.index)}
        if self._constant is None:
            return found
        return found | {"constant": SoftTokens(self._constant, Document(text), own.generator)}


class _Known(ScoringCompressor):
    """A policy whose scores of one context are known already, so that nothing is read twice."""

    name = "known"
    default_threshold = 0.5

    def __init__(self, scored: Context) -> None:
        super().__init__()
        self._scored = scored

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return [self._scored for _ in contexts]


#: Names of the arms, from nothing to everything; `TextTokens` may lack the constant one, and a policy.
CLOSED, CONSTANT, SHUFFLED, XRAG = "closed book", "constant token", "shuffled token", "xRAG"
SENTENCE, LENT, MIXED = "best sentence", "best sentence + shuffled", "best sentence + xRAG"
PRUNED, TEXT = "pruned text", "text"
_SOFT = {"constant": CONSTANT, "shuffled": SHUFFLED, "true": XRAG}


def arms(asked: Asked, tokens: TextTokens) -> dict[str, str | Context]:
    """What is asked in each arm: the question alone, or with one thing in its documents' place."""
    soft = tokens.contexts(asked.question, asked.documents)
    found: dict[str, str | Context] = {CLOSED: asked.question}
    found |= {arm: soft[name] for name, arm in _SOFT.items() if name in soft}
    if tokens.policy is not None:
        policy, whole = tokens.policy(), Context.of(asked.question, asked.documents)
        mixed = tokens.expanded(asked.question, asked.documents, policy)
        found |= {SENTENCE: text_alone(mixed), LENT: tokens.lent(mixed), MIXED: mixed}
        found |= {PRUNED: policy.compress([whole])[0]}
    return found | {TEXT: Context.of(asked.question, asked.documents)}


def text_alone(context: Context) -> Context:
    """The same text without any soft tokens."""
    pieces = (
        (piece.expanded or replace(Context.of("", [piece.source]).extracts[0], kept=(False,)))
        if isinstance(piece, SoftTokens)
        else piece
        for piece in context.pieces
    )
    return Context(context.query, tuple(pieces))
