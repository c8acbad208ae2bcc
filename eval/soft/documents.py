"""Does a soft token say what its passage says? How likely it makes the passage, and which of 32 it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctxprune.errors import InputError
from ctxprune.eval.soft.likelihood import SoftLikelihood
from ctxprune.eval.soft.rows import Row
from ctxprune.eval.soft.tokens import TextTokens

#: Passages to tell apart, and how much of each is read to tell; chance is 1 / CANDIDATES.
CANDIDATES, READ_TOKENS = 32, 32


class PassageMeasure:
    """Measures passages by their places; each gets one of the paraphrase prompts that bridges are trained with.

    model: gives the language model, called when something is left to measure.
    """

    def __init__(self, passages: Sequence[str], tokens: TextTokens, model: Callable[[], SoftLikelihood]) -> None:
        self._passages = passages
        self._tokens = tokens
        self._model = model

    def likelihoods(self, places: Sequence[int]) -> list[Row]:
        """Nats of each passage after its own token, another's, the constant one and none, and its number of tokens."""
        model = self._model()
        targets = [model.text_ids(self._passages[place]) for place in places]
        soft = [{**self._tokens.of(self._passages[place]), "none": None} for place in places]
        prompts = [
            {name: model.paraphrase_parts(place, vectors) for name, vectors in named.items()}
            for place, named in zip(places, soft, strict=True)
        ]
        return [
            {"passage": place, "tokens": len(target), "nats": nats}
            for place, target, nats in zip(places, targets, model.nats(prompts, targets), strict=True)
        ]

    def identifications(self, places: Sequence[int]) -> list[Row]:
        """Nats of each passage's beginning after the token of every passage in its group of `CANDIDATES`.

        Raises InputError for a place in a group that is not full.
        """
        model = self._model()
        targets = [model.text_ids(self._passages[place])[:READ_TOKENS] for place in places]
        prompts = [
            {str(at): model.paraphrase_parts(place, self._tokens.of(text)["true"]) for at, text in self._group(place)}
            for place in places
        ]
        return [
            {"passage": place, "own": place % CANDIDATES, "nats": list(nats.values())}
            for place, nats in zip(places, model.nats(prompts, targets), strict=True)
        ]

    def _group(self, place: int) -> list[tuple[int, str]]:
        group = self._passages[place // CANDIDATES * CANDIDATES :][:CANDIDATES]
        if len(group) < CANDIDATES:
            raise InputError(f"passage {place} stands in a group of {len(group)}, {CANDIDATES} are needed; take more")
        return list(enumerate(group))
