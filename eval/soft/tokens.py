"""The soft tokens of held-out texts, and the controls: another text's, and one that knows of no text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ctxprune.compressors import xrag
from ctxprune.embedders import Embedder
from ctxprune.errors import InputError
from ctxprune.eval.store import key
from ctxprune.models.xrag import Bridge
from ctxprune.types import Context, Document, SoftTokens

Vectors: TypeAlias = npt.NDArray[np.float32]


class TextTokens:
    """Soft tokens of texts, made as the compressor makes them; each text's "shuffled" ones are those of another text.

    texts: at least two distinct ones. seed: of the order in which texts lend each other their tokens.
    """

    def __init__(self, bridge: Bridge, embedder: Embedder, texts: Sequence[str], *, seed: int) -> None:
        distinct = list(dict.fromkeys(texts))
        if len(distinct) < 2:
            raise InputError(f"soft tokens can be shuffled among 2 texts or more, got {len(distinct)}")
        contexts = xrag.XRAG(bridge, encoder=embedder).compress([Context.of("", distinct)])
        self._own: Mapping[str, Vectors] = {
            piece.source.text: piece.embeddings for piece in contexts[0].pieces if isinstance(piece, SoftTokens)
        }
        order = random.Random(seed).sample(distinct, len(distinct))
        self._other = dict(zip(order, [*order[1:], order[0]], strict=True))
        self._constant = None if bridge.constant is None else bridge.constant[None]
        self.generator = bridge.config.generator

    def of(self, text: str) -> dict[str, Vectors]:
        """(n, d_model) by name: "true", "shuffled", and "constant" where the bridge has one."""
        found = {"true": self._own[text], "shuffled": self._own[self._other[text]]}
        return found if self._constant is None else found | {"constant": self._constant}

    def context(self, question: str, tokens: Vectors) -> Context:
        """The question with these soft tokens in a document's place."""
        return Context(question, (SoftTokens(tokens, Document(""), self.generator),))


def bridge_digest(bridge: Bridge) -> str:
    """Of everything in a bridge, so that one trained on in the same folder is not taken for the old one."""
    arrays = [value.numpy() for value in bridge.projector.state_dict().values()]
    arrays += [] if bridge.constant is None else [bridge.constant]
    digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    return key(asdict(bridge.config), digests)
