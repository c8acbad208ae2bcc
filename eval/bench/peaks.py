"""The machine's measured matmul peak by number format: what a model's speed is a share of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ctxprune.errors import MissingExtraError
from ctxprune.eval.bench.torch import TorchWorker


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
