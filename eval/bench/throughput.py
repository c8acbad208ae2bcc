"""Throughput of the bundled model beside the same network in torch and a plain ONNX Runtime loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ctxprune.compressors.provence import Provence
from ctxprune.eval.bench.measure import Timing, speed_up, stopwatch, time_in_turn
from ctxprune.eval.bench.passages import contexts
from ctxprune.eval.bench.torch import MINILM, PADDED, PEERS, TorchWorker
from ctxprune.models.formats import pair_format, plain_tokenizer
from ctxprune.pipeline import Pipeline
from ctxprune.runtime.base import TokenSequence
from ctxprune.runtime.windows import lay_windows
from ctxprune.text import model_text
from ctxprune.tokens import DEFAULT_TOKENIZER
from ctxprune.types import Context

WHOLE = "ctxprune, the whole pipeline: text to kept sentences"
RUNTIME = "ctxprune runtime: token ids to logits"
PLAIN = "plain ONNX Runtime loop, default settings, one by one"
#: Tokens of an input where the contender has no model of its own to say.
_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The sequences that a pruner reads for some contexts; passage_tokens: without question and special tokens."""

    sequences: tuple[TokenSequence, ...]
    passage_tokens: int

    @property
    def model_tokens(self) -> int:
        return sum(map(len, self.sequences))


def model_inputs(batch: Sequence[Context], *, max_length: int = _MAX_LENGTH) -> ModelInputs:
    """Question and passage pairs in the bundled tokenizer's ids, laid out as the pipeline does."""
    tokenizer = plain_tokenizer(DEFAULT_TOKENIZER)
    layout = pair_format(tokenizer, type_ids=True)

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(model_text(text), add_special_tokens=False).ids)

    pairs = [(ids(context.query), ids(extract.source.text)) for context in batch for extract in context.extracts]
    windows = [lay_windows(question, [], passage, layout=layout, max_length=max_length) for question, passage in pairs]
    return ModelInputs(
        tuple(sequence for laid in windows for sequence in laid.sequences), sum(len(passage) for _, passage in pairs)
    )


def throughput(pipeline: Pipeline, *, count: int, rounds: int, worker: TorchWorker | None) -> dict[str, Any]:
    """All contenders in turn, `rounds` times, on `count` passages of 100 words, ten to a question.

    Rows give seconds, words and passage tokens a second, FLOP a second, and "speed_up" over the padded torch loop
    (None without a worker). Contenders but the whole pipeline start from token ids.
    """
    batch = contexts(count)
    model = compressor.model if isinstance(compressor := pipeline.compressors[-1], Provence) else None
    inputs = model_inputs(batch, max_length=model.max_length if model else _MAX_LENGTH)
    dtypes, tasks = {WHOLE: "any"}, {WHOLE: stopwatch(lambda: pipeline.run(batch))}
    if model is not None:
        runtime = model.runtime
        dtypes |= {WHOLE: runtime.dtype, RUNTIME: runtime.dtype}
        tasks[RUNTIME] = stopwatch(lambda: runtime.forward(inputs.sequences))
        if isinstance(path := getattr(runtime, "path", None), Path):
            dtypes[PLAIN] = runtime.dtype
            tasks[PLAIN] = stopwatch(plain_loop(path, inputs.sequences))
    if worker is not None:
        dtypes |= PEERS
        tasks |= {peer: partial(worker.seconds, peer, inputs.sequences) for peer in PEERS}
    timings = time_in_turn(tasks, rounds=rounds)
    flops = MINILM.flops([len(sequence) for sequence in inputs.sequences])
    rows = [
        _row(name, dtypes[name], timing, timings.get(PADDED), 100 * count, inputs.passage_tokens, flops)
        for name, timing in timings.items()
    ]
    sizes = {"passages": count, "words": 100 * count, "passage_tokens": inputs.passage_tokens}
    return {**sizes, "model_tokens": inputs.model_tokens, "flops": flops, "rows": rows}


def _row(
    name: str, dtype: str, timing: Timing, padded: Timing | None, words: int, tokens: int, flops: float
) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": dtype,
        "seconds": timing.to_dict(),
        "words_per_second": words / timing.median,
        "passage_tokens_per_second": tokens / timing.median,
        "flops_per_second": flops / timing.median,
        "speed_up": speed_up(timing, padded) if padded else None,
    }


def plain_loop(path: Path, sequences: Sequence[TokenSequence]) -> Callable[[], None]:
    """What anybody would write first: a session with default settings, one sequence after another."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}

    def loop() -> None:
        for sequence in sequences:
            arrays = {
                "input_ids": sequence.ids,
                "attention_mask": np.ones_like(sequence.ids),
                "token_type_ids": sequence.type_ids,
            }
            session.run(None, {name: array[None] for name, array in arrays.items() if name in names})

    return loop
