"""What a prompt costs before and while it is answered: operations of the prefill, and seconds beside the text's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Task, machine, speed_up, stopwatch, time_in_turn
from benchmarks.soft.arms import CLOSED, MIXED, PRUNED, TEXT, XRAG, Asked, TextTokens, arms
from benchmarks.soft.measure import Row
from ctxprune.compressors.xrag.bridge import Bridge
from ctxprune.generators import LocalGenerator
from ctxprune.models.sentence_encoders import Embedder
from ctxprune.types import Context
from ctxprune.vectors import shard_text

_ARMS = (CLOSED, XRAG, MIXED, PRUNED, TEXT)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """parameters: all but the token embeddings and the head. attention_width: of all query heads together."""

    parameters: int
    layers: int
    attention_width: int
    width: int
    vocabulary: int

    @classmethod
    def of(cls, path_or_id: str) -> ModelSize:
        """From the model's config; no weights are read."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                AutoConfig.from_pretrained(path_or_id)
            )
        config = model.config.get_text_config()
        tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
        inner = (each.numel() for each in model.parameters() if not any(each is table for table in tables))
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        layers = config.num_hidden_layers
        return cls(sum(inner), layers, heads * head_width, config.hidden_size, config.vocab_size)

    def prefill_flops(self, tokens: int) -> float:
        """Floating-point operations of reading a prompt, a multiply-add counting two.

        2 * parameters * T for T tokens; 2 * layers * attention_width * T * (T + 1) for causal attention, as token t
        meets t keys and t values; 2 * width * vocabulary for the head at the last token.
        """
        attention = 2 * self.layers * self.attention_width * tokens * (tokens + 1)
        return float(2 * self.parameters * tokens + attention + 2 * self.width * self.vocabulary)


class CostMeasure:
    """Times the arms in turn, one question at a time. The documents' vectors are at hand, as a store has them; their
    projection counts as part of xRAG, and no time of a policy's counts."""

    def __init__(
        self,
        bridge: Bridge,
        embedder: Embedder,
        tokens: TextTokens,
        generator: Callable[[], LocalGenerator],
        *,
        max_new_tokens: int,
        rounds: int,
    ) -> None:
        self._bridge, self._embedder, self._tokens, self._generator = bridge, embedder, tokens, generator
        self._max_new_tokens, self._rounds = max_new_tokens, rounds

    def seconds(self, groups: Sequence[Sequence[Asked]]) -> list[Row]:
        """One row a group of questions, each arm's seconds for the whole group. "prefill": until the first token."""
        return [self._row(group) for group in groups]

    def _row(self, group: Sequence[Asked]) -> Row:
        config = self._bridge.config
        pieces = [
            [piece for text in each.documents for piece in shard_text(text, config.shard_tokens, config.pieces)]
            for each in group
        ]
        vectors = [self._embedder.embed(some) for some in pieces]
        embed: Task = stopwatch(lambda: self._embedder.embed([piece for some in pieces for piece in some]))
        lengths = {"prefill": 1, "whole": self._max_new_tokens}
        prompts = [arms(each, self._tokens) for each in group]
        timed = [arm for arm in _ARMS if arm in prompts[0]]

        def answer(arm: str, limit: int) -> None:
            for prompt, found in zip(prompts, vectors, strict=True):
                self._answer(arm, prompt[arm], found, limit)

        timings = time_in_turn(
            {f"{arm} {part}": stopwatch(partial(answer, arm, lengths[part])) for arm in timed for part in lengths}
            | {"embed": embed},
            rounds=self._rounds,
        )
        timed_arms = {
            arm: {
                part: timings[f"{arm} {part}"].to_dict()
                | {"faster": speed_up(timings[f"{arm} {part}"], timings[f"{TEXT} {part}"])}
                for part in lengths
            }
            for arm in timed
        }
        embedding = {"encoder": self._embedder.name, **timings["embed"].to_dict()}
        return {"questions": len(group), "machine": machine(), "arms": timed_arms, "embedding": embedding}

    def _answer(self, arm: str, prompt: str | Context, vectors: Any, limit: int) -> None:
        generator = self._generator()
        if isinstance(prompt, str):
            generator.replies([prompt], max_new_tokens=limit)
            return
        if arm in (XRAG, MIXED):
            self._bridge.project(vectors)
        generator.context_replies([prompt], template=self._bridge.config.template, max_new_tokens=limit)


def cost_figures(row: Row, lengths: Sequence[Mapping[str, int]], size: ModelSize) -> dict[str, Any]:
    """The timings with the means of prompt tokens and prefill operations. lengths: prompt tokens by arm, a question."""
    arms = {
        arm: {
            **timings,
            "prompt_tokens": float(np.mean([each[arm] for each in lengths])),
            "flops": float(np.mean([size.prefill_flops(each[arm]) for each in lengths])),
        }
        for arm, timings in row["arms"].items()
    }
    return {**row, "arms": arms, "size": asdict(size)}
