"""The arms of the comparison, from the question alone to all of the text: what is asked in each, its cost, figures."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Bootstrap, Task, machine, speed_up, stopwatch, time_in_turn
from benchmarks.soft.names import CLOSED, CONSTANT, LENT, MIXED, PRUNED, SENTENCE, SHUFFLED, TEXT, XRAG
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.xrag import compressor
from ctxprune.compressors.xrag.bridge import Bridge
from ctxprune.errors import InputError
from ctxprune.generators import LocalGenerator
from ctxprune.models.sentence_encoders import Embedder
from ctxprune.types import Context, Document, SoftTokens
from ctxprune.vectors import shard_text

#: What was measured of one item, or figures of many, as JSON has it; intervals as `Interval` spells its fields.
Row: TypeAlias = dict[str, Any]
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


_SOFT = {"constant": CONSTANT, "shuffled": SHUFFLED, "true": XRAG}


def arms(asked: Asked, tokens: TextTokens) -> dict[str, str | Context]:
    """What is asked in each arm: the question alone, or with one thing in its documents' place.

    The constant token is there where the bridge has one, sentences and pruned text where there is a policy.
    """
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


@dataclass(frozen=True, slots=True)
class CostMeasure:
    """Times the arms in turn, one question at a time. The documents' vectors are at hand, as a store has them; their
    projection counts as part of xRAG, and no time of a policy's counts."""

    bridge: Bridge
    embedder: Embedder
    tokens: TextTokens
    generator: Callable[[], LocalGenerator]
    max_new_tokens: int
    rounds: int

    def seconds(self, groups: Sequence[Sequence[Asked]]) -> list[Row]:
        """One row a group of questions, each arm's seconds for the whole group. "prefill": until the first token."""
        return [self._row(group) for group in groups]

    def _row(self, group: Sequence[Asked]) -> Row:
        config = self.bridge.config
        pieces = [
            [piece for text in each.documents for piece in shard_text(text, config.shard_tokens, config.pieces)]
            for each in group
        ]
        vectors = [self.embedder.embed(some) for some in pieces]
        embed: Task = stopwatch(lambda: self.embedder.embed([piece for some in pieces for piece in some]))
        lengths = {"prefill": 1, "whole": self.max_new_tokens}
        prompts = [arms(each, self.tokens) for each in group]
        timed = [arm for arm in _ARMS if arm in prompts[0]]

        def answer(arm: str, limit: int) -> None:
            for prompt, found in zip(prompts, vectors, strict=True):
                self._answer(arm, prompt[arm], found, limit)

        timings = time_in_turn(
            {f"{arm} {part}": stopwatch(partial(answer, arm, lengths[part])) for arm in timed for part in lengths}
            | {"embed": embed},
            rounds=self.rounds,
        )
        timed_arms = {
            arm: {
                part: timings[f"{arm} {part}"].to_dict()
                | {"faster": speed_up(timings[f"{arm} {part}"], timings[f"{TEXT} {part}"])}
                for part in lengths
            }
            for arm in timed
        }
        embedding = {"encoder": self.embedder.name, **timings["embed"].to_dict()}
        return {"questions": len(group), "machine": machine(), "arms": timed_arms, "embedding": embedding}

    def _answer(self, arm: str, prompt: str | Context, vectors: Any, limit: int) -> None:
        generator = self.generator()
        if isinstance(prompt, str):
            generator.replies([prompt], max_new_tokens=limit)
            return
        if arm in (XRAG, MIXED):
            self.bridge.project(vectors)
        generator.context_replies([prompt], template=self.bridge.config.template, max_new_tokens=limit)


def cost_figures(row: Row, lengths: Sequence[Mapping[str, int]], size: ModelSize) -> dict[str, Any]:
    """The timings with the means of prompt tokens and prefill operations. lengths: prompt tokens by arm, a question."""
    costs = {
        arm: {
            **timings,
            "prompt_tokens": float(np.mean([each[arm] for each in lengths])),
            "flops": float(np.mean([size.prefill_flops(each[arm]) for each in lengths])),
        }
        for arm, timings in row["arms"].items()
    }
    return {**row, "arms": costs, "size": asdict(size)}


Values: TypeAlias = Sequence[float]


def passage_figures(rows: Sequence[Row], draw: Bootstrap) -> Row:
    """Nats per token of a passage by what stands for it, and how much more the controls take than the true token."""
    nats = {name: [row["nats"][name] / row["tokens"] for row in rows] for name in rows[0]["nats"]}
    controls = [name for name in nats if name != "true"]
    return {
        "passages": len(rows),
        "tokens": sum(row["tokens"] for row in rows),
        "nats": {name: draw.mean(values) for name, values in nats.items()},
        "minus_true": {name: draw.difference(nats[name], nats["true"]) for name in controls},
        "true_better": {
            name: draw.mean([float(own < other) for own, other in zip(nats["true"], nats[name], strict=True)])
            for name in controls
        },
    }


def identification_figures(rows: Sequence[Row], draw: Bootstrap) -> Row:
    """The share of passages that their own token makes likelier than any other token of the group does."""
    right = [float(row["nats"][row["own"]] < min(_others(row))) for row in rows]
    return {"passages": len(rows), "candidates": len(rows[0]["nats"]) if rows else 0, "right": draw.mean(right)}


def _others(row: Row) -> list[float]:
    return [nats for place, nats in enumerate(row["nats"]) if place != row["own"]]


def answer_figures(likelihoods: Sequence[Row], predictions: Sequence[Row], draw: Bootstrap) -> Row:
    """By arm: nats per token of the accepted answer, match, prompt tokens; xRAG's paired differences; resilience and
    boost of xRAG and text."""
    names = list(likelihoods[0]["nats"])
    nats = {arm: [row["nats"][arm] / row["tokens"] for row in likelihoods] for arm in names}
    match = {arm: [row["match"][arm] for row in predictions] for arm in names}
    lengths = {arm: [row["prompt_tokens"][arm] for row in likelihoods] for arm in names}
    return {
        "questions": len(likelihoods),
        "arms": {
            arm: {
                "nats": draw.mean(nats[arm]),
                "match": draw.mean(match[arm]),
                "prompt_tokens": float(np.mean(lengths[arm])),
            }
            for arm in names
        },
        "xrag_minus": {
            arm: {"nats": draw.difference(nats[XRAG], nats[arm]), "match": draw.difference(match[XRAG], match[arm])}
            for arm in names
            if arm != XRAG
        },
        "mixed_minus": {
            arm: {"nats": draw.difference(nats[MIXED], nats[arm]), "match": draw.difference(match[MIXED], match[arm])}
            for arm in (SENTENCE, LENT, PRUNED, TEXT)
            if MIXED in names
        },
        "kept": {arm: _kept(match[CLOSED], match[arm], draw) for arm in (SHUFFLED, XRAG, MIXED, TEXT) if arm in names},
    }


def _kept(without: Values, with_context: Values, draw: Bootstrap) -> Row:
    """resilience: the share right with a context of those right without; boost: of those wrong without."""
    paired = list(zip(without, with_context, strict=True))
    return {
        "resilience": draw.mean([after if before else math.nan for before, after in paired]),
        "boost": draw.mean([math.nan if before else after for before, after in paired]),
    }
