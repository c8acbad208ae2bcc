"""The torch peers of the benchmark, in a process of their own: the same network, and the machine's matmul peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from benchmarks.measure import Timing, contexts, speed_up, stopwatch, time_in_turn
from ctxprune.compressors.provence.compressor import Provence
from ctxprune.errors import MissingExtraError
from ctxprune.models.formats import lay_windows, pair_format, plain_tokenizer
from ctxprune.pipeline import Pipeline
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.weights import shared_tables
from ctxprune.text import model_text
from ctxprune.tokens import DEFAULT_TOKENIZER
from ctxprune.types import Context

if TYPE_CHECKING:
    from ctxprune.runtime.torch import TorchRuntime

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

    from ctxprune.compressors.provence.model import Pruner
    from ctxprune.models import encoders

    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
    )
    encoder = encoders.build(config, labels=1, pooled=False, attn_implementation="sdpa")
    return Pruner(encoder, answer_head=True).to(dtype=getattr(torch, dtype)).eval()


@lru_cache
def _by_length(dtype: str, size: EncoderSize) -> TorchRuntime:
    from ctxprune.runtime.torch import TorchRuntime

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


WHOLE = "ctxprune, the whole pipeline: text to kept sentences"
ONE_LOOK = "the same with second_look=none"
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
    (None without a worker). Contenders but the whole pipeline, with a second look and without, start from token ids.
    """
    batch = contexts(count)
    model = compressor.model if isinstance(compressor := pipeline.compressors[-1], Provence) else None
    inputs = model_inputs(batch, max_length=model.max_length if model else _MAX_LENGTH)
    dtypes, tasks = {WHOLE: "any"}, {WHOLE: stopwatch(lambda: pipeline.run(batch))}
    if model is not None:
        runtime, one_look = model.runtime, Pipeline([Provence(model, second_look="none")])
        dtypes |= {WHOLE: runtime.dtype, ONE_LOOK: runtime.dtype, RUNTIME: runtime.dtype}
        tasks[ONE_LOOK] = stopwatch(lambda: one_look.run(batch))
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

    settings = onnxruntime.SessionOptions()
    if tables := shared_tables(path.parent):  # a bundled model is not whole without them
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(table) for table in tables.values()]
        settings.add_external_initializers(list(tables), values)
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
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


def matmul_peaks(worker: TorchWorker | None, *, sides: Sequence[int], repeats: int) -> dict[str, float]:
    """Operations a second by number format: int8 in ONNX Runtime and, with a worker, bfloat16 and float32 in torch.

    Each is the best of `repeats` square products of every side, on all cores. Raises MissingExtraError without the
    `onnx` package, which builds the int8 graph.
    """
    peaks = {"int8": int8_peak(sides=sides, repeats=repeats)}
    if worker is not None:
        peaks |= {dtype: worker.matmul_peak(dtype, sides=sides, repeats=repeats) for dtype in ("bfloat16", "float32")}
    return peaks


def int8_peak(*, sides: Sequence[int], repeats: int) -> float:
    """Best operations a second of uint8 x int8 products in ONNX Runtime; see `matmul_peaks`."""
    rng, best = np.random.default_rng(0), 0.0
    for side in sides:
        run = _int8_matmul(side, rng)
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def _int8_matmul(side: int, rng: np.random.Generator) -> Callable[[], None]:
    """One MatMulInteger with constant weights, as quantised models have it, into memory that is already there."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("measuring the int8 peak", "train") from error
    import onnxruntime

    shape = [side, side]
    weights = numpy_helper.from_array(rng.integers(-127, 128, shape, dtype=np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["input", "weights"], ["output"])],
        "peak",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("output", TensorProto.INT32, shape)],
        [weights],
    )
    # versions that ONNX Runtime has long known, whatever the `onnx` package would write by default
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("input", rng.integers(0, 256, shape, dtype=np.uint8))
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.int32))
    binding.bind_ortvalue_output("output", output)
    return lambda: session.run_with_iobinding(binding)
