"""The torch peers of the benchmark, in a process of their own: the same network, and the machine's matmul peak."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ctxprune.runtime.base import TokenSequence

if TYPE_CHECKING:
    from ctxprune.runtime.torch_runtime import TorchRuntime

_BATCH = 32
PADDED = f"torch fp32, padded in input order, batches of {_BATCH}"
#: Peers by name, with the number format each computes in.
PEERS = {PADDED: "float32", "torch fp32, batches by length": "float32", "torch bf16, batches by length": "bfloat16"}


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """The shape of a BERT encoder. width: of a hidden state; inner: of the feed-forward layer."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int

    def flops(self, lengths: Sequence[int]) -> float:
        """Floating-point operations of one pass over unpadded sequences of these lengths, matrix products only.

        A layer multiplies each of its n tokens with four width x width and two width x inner matrices, and with n keys
        and n values of that width; a multiply-add counts two. Embeddings, norms, softmax and heads are left out.
        """
        weights = 4 * self.width**2 + 2 * self.width * self.inner
        return float(sum(2 * self.layers * length * (weights + 2 * length * self.width) for length in lengths))


#: all-MiniLM-L6-v2, the size of the bundled pruner.
MINILM = EncoderSize(layers=6, width=384, heads=12, inner=1536, vocabulary=30522)


class TorchWorker:
    """A process that keeps the torch peers ready, so that this one never imports torch. Use as a context manager."""

    def __init__(self, size: EncoderSize = MINILM) -> None:
        self.size = size
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def seconds(self, peer: str, sequences: Sequence[TokenSequence]) -> float:
        """What the peer takes from token ids to logits in numpy, its first pass ever not counted."""
        return self._pool.submit(_peer_seconds, peer, self.size, list(sequences)).result()

    def matmul_peak(self, dtype: str, *, sides: Sequence[int], repeats: int) -> float:
        """Best floating-point operations a second of square matrix products with these sides."""
        return self._pool.submit(_matmul_peak, dtype, tuple(sides), repeats).result()

    def threads(self) -> int:
        """Threads that torch computes with."""
        return self._pool.submit(_threads).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@lru_cache
def _module(dtype: str, size: EncoderSize) -> Any:
    """A pruner with random weights: the work for a token is the same as with trained ones."""
    import torch
    from transformers import BertConfig

    from ctxprune.models import backbones
    from ctxprune.models.provence import Pruner

    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
    )
    encoder = backbones.build(config, labels=1, pooled=False, attn_implementation="sdpa")
    return Pruner(encoder, answer_head=True).to(dtype=getattr(torch, dtype)).eval()


@lru_cache
def _by_length(dtype: str, size: EncoderSize) -> TorchRuntime:
    from ctxprune.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(_module(dtype, size), device="cpu", dtype=dtype)


def _peer_seconds(peer: str, size: EncoderSize, sequences: list[TokenSequence]) -> float:
    dtype = PEERS[peer]
    module = _module(dtype, size)
    forward = _by_length(dtype, size).forward
    started = time.perf_counter()
    if peer == PADDED:
        forward_padded(module, sequences)
    else:
        forward(sequences)
    return time.perf_counter() - started


def forward_padded(module: Any, sequences: Sequence[TokenSequence]) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The usual loop: batches in input order, each padded to its longest. Returns arrays by name, one dict a batch."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    results = []
    with torch.inference_mode():
        for first in range(0, len(sequences), _BATCH):
            batch = sequences[first : first + _BATCH]
            ids = pad_sequence([torch.from_numpy(sequence.ids) for sequence in batch], batch_first=True)
            types = pad_sequence([torch.from_numpy(sequence.type_ids) for sequence in batch], batch_first=True)
            mask = pad_sequence([torch.ones(len(sequence), dtype=torch.long) for sequence in batch], batch_first=True)
            outputs = module(ids, mask, types)
            results.append({name: tensor.numpy() for name, tensor in outputs.items()})
    return results


def _matmul_peak(dtype: str, sides: tuple[int, ...], repeats: int) -> float:
    import torch

    best = 0.0
    for side in sides:
        left, right = (torch.randn(side, side).to(getattr(torch, dtype)) for _ in range(2))
        result = torch.empty_like(left)
        for _ in range(repeats):
            started = time.perf_counter()
            torch.matmul(left, right, out=result)
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best
