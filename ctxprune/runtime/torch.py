"""Runs an encoder with torch: similar lengths share a batch under a token budget, one transfer back, one lock."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ctxprune.errors import InputError, check_choice
from ctxprune.files import CopiedLock
from ctxprune.runtime import EncoderOutput, TokenSequence
from ctxprune.runtime.device import DTYPES, best_device, best_dtype
from ctxprune.timing import watched


class TorchRuntime:
    """An `EncoderRuntime` over a torch module.

    module: called as module(input_ids, attention_mask, token_type_ids), all (batch, seq), returns tensors by name whose
    first axis is the batch. It is moved to the device and dtype, and to eval mode, in place. max_batch_tokens: limit of
    a batch with its padding; a longer sequence runs alone. per_token: outputs with a second axis along the tokens,
    which is cut to each sequence's length.
    Raises InputError for a device or dtype that is unknown or not there.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int = 16384,
        per_token: Collection[str] = ("token_logits", "answer_logits"),
    ) -> None:
        if max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens must be positive, got {max_batch_tokens}")
        self._device = device or best_device()
        self._dtype = dtype or best_dtype(self._device)
        check_choice("dtype", self._dtype, DTYPES)
        try:
            self._module = module.to(device=self._device, dtype=getattr(torch, self._dtype)).eval()
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
            raise InputError(f"device {self._device!r} is not usable here ({error}); try device='cpu'") from error
        self._max_batch_tokens = max_batch_tokens
        self._per_token = frozenset(per_token)
        self._lock = CopiedLock()

    @property
    def device(self) -> str:
        return self._device

    @property
    def dtype(self) -> str:
        return self._dtype

    def forward(self, sequences: Sequence[TokenSequence]) -> list[EncoderOutput]:
        """Outputs of each sequence in the order given, in fp32, without padding. InputError for an empty sequence."""
        if any(len(sequence) == 0 for sequence in sequences):
            raise InputError("a sequence holds no tokens; every input needs at least its special tokens")
        batches = list(batch_by_length([len(sequence) for sequence in sequences], self._max_batch_tokens))
        with self._lock, torch.inference_mode():
            runs = (self._run([sequences[index] for index in batch]) for batch in batches)
            computed = list(watched(runs, len(batches)))
            arrays = _to_host(computed)
        results: list[EncoderOutput] = [{} for _ in sequences]
        for batch, outputs in zip(batches, arrays, strict=True):
            for name, values in outputs.items():
                for row, index in enumerate(batch):
                    length = len(sequences[index]) if name in self._per_token else None
                    # a copy, so that one kept result does not keep the whole transfer alive
                    results[index][name] = values[row, :length].copy() if length else values[row].copy()
        return results

    def _run(self, sequences: Sequence[TokenSequence]) -> dict[str, Tensor]:
        longest = max(len(sequence) for sequence in sequences)
        inputs = np.zeros((3, len(sequences), longest), dtype=np.int64)  # ids, mask, types: one transfer there as well
        for row, sequence in enumerate(sequences):
            inputs[0, row, : len(sequence)] = sequence.ids
            inputs[1, row, : len(sequence)] = 1
            inputs[2, row, : len(sequence)] = sequence.type_ids
        ids, mask, types = torch.from_numpy(inputs).to(self._device)
        outputs: dict[str, Tensor] = self._module(ids, mask, types)
        return outputs


def batch_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that rows of a batch differ little and the largest batch comes first.

    Rows times the longest row stays within max_tokens; a row longer than that is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _to_host(
    computed: Sequence[dict[str, Tensor]],
) -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Every tensor as an fp32 array, fetched from the device in one piece."""
    if not computed:
        return []
    flat = torch.cat([tensor.float().reshape(-1) for outputs in computed for tensor in outputs.values()]).cpu().numpy()
    position, arrays = 0, []
    for outputs in computed:
        views = {}
        for name, tensor in outputs.items():
            size = math.prod(tensor.shape)
            views[name] = flat[position : position + size].reshape(tensor.shape)
            position += size
        arrays.append(views)
    return arrays
