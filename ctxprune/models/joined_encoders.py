"""Vectors with more of a text's words in them: means of single tokens' embeddings, several encoders' side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ctxprune.bundled import FOLDER
from ctxprune.errors import InputError
from ctxprune.models.sentence_encoders import RAW, BundledEncoder, Embedder, Vectors, load_embedder
from ctxprune.text.normal import readable
from ctxprune.tokens import DEFAULT_TOKENIZER

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
        """(n, dimension) float32."""
        encodings = self._tokenizer.encode_batch([readable(text) for text in texts], add_special_tokens=False)
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
        return table - table.mean(axis=0)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(DEFAULT_TOKENIZER))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _end(self) -> int:
        return int(self._tokenizer.token_to_id("[SEP]"))


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

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32."""
        blocks = [encoder.embed(texts) for encoder in self._encoders]
        joined: Vectors = np.concatenate(blocks, axis=1) / np.float32(math.sqrt(len(blocks)))
        return joined


def joined(name: str) -> Joined:
    """The encoders of a name such as "bundled+token-means", joined; raises InputError for an empty part."""
    parts = name.split(JOIN)
    if not all(parts):
        raise InputError(f"an encoder's name is missing in {name!r}; put one on each side of {JOIN!r}")
    return Joined([load_embedder(part) for part in parts])
