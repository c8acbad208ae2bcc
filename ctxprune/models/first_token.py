"""Decide by its probability, not by greedy choice, whether a model says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxprune.errors import InputError

if TYPE_CHECKING:
    import torch


class FirstTokenThreshold:
    """A logits processor for one call of transformers' `generate`.

    The first new token is `token` where that has at least the probability `threshold`, elsewhere the likeliest other
    one. Greedy decoding compares `token`, which alone says "nothing helps", with every first word of a summary singly:
    it falls silent where a summary is likelier as a whole, and the less sure the model is of the words, the sooner.
    """

    def __init__(self, token: int, threshold: float) -> None:
        self._token = token
        self._threshold = threshold
        self._width: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: (b, tokens so far). scores: (b, vocabulary) logits."""
        if self._width is None:
            self._width = input_ids.shape[1]
        if input_ids.shape[1] > self._width:
            return scores
        silent = scores.float().softmax(dim=-1)[:, self._token] >= self._threshold
        decided = scores.clone()
        decided[silent] = -float("inf")
        decided[:, self._token] = -float("inf")
        decided[silent, self._token] = 0.0
        return decided


def check_empty_threshold(value: float | None) -> None:
    """Raises InputError unless it is None or a probability above 0."""
    if value is not None and not 0 < value <= 1:
        raise InputError(
            f"empty_threshold must be above 0 and at most 1, got {value}; leave it out for greedy decoding"
        )
