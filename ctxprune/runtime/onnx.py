"""Runs an exported encoder on the CPU with ONNX Runtime: one unpadded sequence a call, sequences side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np

from ctxprune.bundled import FOLDER
from ctxprune.errors import CheckpointError, InputError
from ctxprune.runtime import EncoderOutput, TokenSequence
from ctxprune.runtime.device import cpus
from ctxprune.runtime.weights import check_digest, shared_tables
from ctxprune.timing import watched

#: Keys in the file's metadata: number format of the weights, and the longest input in tokens.
DTYPE, MAX_LENGTH = "ctxprune.dtype", "ctxprune.max_length"
#: The fused kernel took 0.33 ms for 166 x 384 values, the two it replaces 0.1 ms (ONNX Runtime 1.32, one core).
SLOW_FUSIONS = ("SkipLayerNormFusion",)
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}

# Its official builds report to Microsoft from 1.32 on, with an identifier kept in ~/.cache, unless this is set before
# the library is first imported; whoever sets it to 0 has chosen otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class OnnxRuntime:
    """An `EncoderRuntime` over an ONNX file with inputs among input_ids, attention_mask, token_type_ids: (batch, seq).

    threads: sequences computed at a time, whoever asks (default: the CPUs that this process may use). Each runs on one
    core by itself: int8 activations take their scale from all they share a call with, so neighbours in a batch would
    change each other's scores, and side by side is faster than several threads on one sequence. So memory is that of
    the model and of `threads` sequences, however many callers there are.
    Raises CheckpointError when the file is missing, damaged, not the one that digests.json beside it names, or no such
    encoder; InputError for threads below 1.
    """

    device = "cpu"
    _pool: ThreadPoolExecutor | None
    _process: int

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}; leave it out to use every CPU")
        self.path = Path(path)
        self.threads = threads or cpus()
        self._session: Any = _open(self.path)
        self._input_names = {node.name for node in self._session.get_inputs()}
        if "input_ids" not in self._input_names or not self._input_names <= _INPUTS:
            names = ", ".join(sorted(self._input_names))
            raise CheckpointError(
                f"{path} takes {names}; an encoder takes {', '.join(sorted(_INPUTS))} or some of them"
            )
        self._output_names = [node.name for node in self._session.get_outputs()]
        self.metadata: Mapping[str, str] = MappingProxyType(self._session.get_modelmeta().custom_metadata_map)
        self._max_length = int(self.metadata[MAX_LENGTH]) if MAX_LENGTH in self.metadata else None
        self._start_over()

    @property
    def dtype(self) -> str:
        """ "int8" or "float32", as the export recorded it ("float32" for files without a record)."""
        return self.metadata.get(DTYPE, "float32")

    def forward(self, sequences: Sequence[TokenSequence]) -> list[EncoderOutput]:
        """The outputs of each sequence, in the order given, fp32, without the batch axis.

        Raises InputError for an empty sequence and for one that is longer than the model's positions.
        """
        for sequence in sequences:
            self._check(sequence)
        if len(sequences) < 2 or self.threads == 1:
            return list(watched(map(self._run, sequences), len(sequences)))
        longest_first = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
        outputs = self._workers().map(self._run, [sequences[index] for index in longest_first])
        results: list[EncoderOutput] = [{} for _ in sequences]
        for index, output in zip(longest_first, watched(outputs, len(sequences)), strict=True):
            results[index] = output
        return results

    def close(self) -> None:
        """End the worker threads and give the model's memory back. A closed runtime raises InputError when used."""
        with self._lock:
            self._session, pool, self._pool = None, self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.shutdown(cancel_futures=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle or a deep copy opens the file again: by name where it came with the package, else by its path."""
        if self._session is None:
            raise InputError(f"the runtime of {self.path} is closed and cannot be copied; copy it before close()")
        bundled = FOLDER
        path = self.path.absolute()
        inside = path.is_relative_to(bundled)
        return _reopened, (type(self), str(path.relative_to(bundled) if inside else path), inside, self.threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, sequence: TokenSequence) -> None:
        if len(sequence) == 0:
            raise InputError("a sequence holds no tokens; every input needs at least its special tokens")
        if self._max_length is not None and len(sequence) > self._max_length:
            raise InputError(
                f"a sequence has {len(sequence)} tokens, {self.path} takes {self._max_length}; cut windows"
            )

    def _run(self, sequence: TokenSequence) -> EncoderOutput:
        arrays = {"input_ids": sequence.ids, "token_type_ids": sequence.type_ids}
        if "attention_mask" in self._input_names:
            arrays["attention_mask"] = np.ones(len(sequence), dtype=np.int64)
        feeds = {
            name: np.ascontiguousarray(array, dtype=np.int64)[None]
            for name, array in arrays.items()
            if name in self._input_names
        }
        self._notice_fork()
        with self._slots:
            session = self._session
            if session is None:
                raise InputError(f"the runtime of {self.path} is closed; open the file again")
            try:
                outputs = session.run(self._output_names, feeds)
            except Exception as error:  # the library's errors share no class of their own
                raise CheckpointError(f"{self.path} fails on a sequence of {len(sequence)} tokens: {error}") from error
        return {
            name: np.asarray(values[0], dtype=np.float32)
            for name, values in zip(self._output_names, outputs, strict=True)
        }

    def _workers(self) -> ThreadPoolExecutor:
        """The worker threads, started by the first call that needs them; they end with this object."""
        self._notice_fork()
        with self._lock:
            if self._session is None:
                raise InputError(f"the runtime of {self.path} is closed; open the file again")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="ctxprune-onnx")
            return self._pool

    def _notice_fork(self) -> None:
        """A forked process has neither the parent's worker threads nor the right to its locks."""
        if self._process != os.getpid():
            self._start_over()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self.threads)
        self._pool = None
        self._process = os.getpid()


def _reopened(kind: type[OnnxRuntime], path: str, bundled: bool, threads: int) -> OnnxRuntime:
    return kind(FOLDER / path if bundled else path, threads=threads)


def _open(path: Path) -> Any:
    """A session on one thread: `threads` of them side by side need no threads within."""
    import onnxruntime

    if not path.is_file():
        raise CheckpointError(f"no model file {path}; check the path, or reinstall ctxprune-rag if it is its own")
    check_digest(path)
    tables = shared_tables(path.parent)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    # the last level adds layout changes, which an encoder has no use for
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.enable_mem_pattern = False  # a plan of memory for every length ever seen, of no use where lengths vary
    # "session.x64quantprecision" stays off: x86 processors without VNNI saturate one in 100,000 sums of two products,
    # which about doubles the small int8 error (simulated), while the exact way takes 1.8 times as long on all others
    settings.log_severity_level = 4  # what fails is raised, so nothing need be written to stderr
    try:
        if tables:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(table) for table in tables.values()]
            settings.add_external_initializers(list(tables), values)
        return onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
        )
    except Exception as error:  # the library's errors share no class of their own
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is no usable ONNX model ({reason}); export or download it again") from error
