"""Which device and number format a torch model runs on by default, and what this machine offers."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LIGHT = "ctxprune-rag-light"
_PACKAGES = ("ctxprune-rag", "numpy", "tokenizers", "onnxruntime", "torch", "transformers")
DTYPES = ("float32", "bfloat16", "float16")
_STATUS = Path("/proc/self/status")


def best_device() -> str:
    """ "cuda" or "mps" when torch can use one, else "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def best_dtype(device: str) -> str:
    """bfloat16 on CUDA devices that compute in it, float32 elsewhere.

    float16 is never chosen by itself, as its range overflows in DeBERTa's attention; bfloat16 on a CPU is left to
    whoever asks, as many CPUs emulate it slowly.
    """
    import torch

    native = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def only_on_cpu(name: str, *, device: str | None, dtype: str | None, revision: str | None = None) -> None:
    """Warn of options that say nothing to an export, which runs on the CPU with the numbers in its file."""
    asked = {"device": None if device == "cpu" else device, "dtype": dtype, "revision": revision}
    if without := [f"{option}={value!r}" for option, value in asked.items() if value is not None]:
        message = f"{name} is an export for the CPU: {', '.join(without)} changes nothing; name a checkpoint to use it"
        warnings.warn(message, stacklevel=4)


def cpus() -> int:
    """Processors that this process may use, which in a container are fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def describe(*, probe_torch: bool = False) -> dict[str, Any]:
    """What `ctxprune doctor` reports: versions (None: not installed), processors and, if asked, torch's devices.

    probe_torch: imports torch, which takes seconds, and adds "devices", "device" and "dtype".
    """
    names = _PACKAGES if _version(_LIGHT) is None else (_LIGHT, *_PACKAGES[1:4])
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": cpus(),
        "packages": {name: _version(name) for name in names},
    }
    return report | _torch_report() if probe_torch else report


def _torch_report() -> dict[str, Any]:
    import torch

    device = best_device()
    names = ["cpu", *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return {"devices": names, "device": device, "dtype": best_dtype(device), "torch_threads": torch.get_num_threads()}


def _version(package: str) -> str | None:
    from importlib import metadata  # 10 ms that reading texts does not need

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def no_bars_off_terminal() -> Iterator[None]:
    """While it lasts, transformers draws no loading bars unless stderr is a terminal; its setting is put back."""
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def memory_mb() -> dict[str, float] | None:
    """Resident memory of this process in MB (10^6 bytes), now and at its peak; None where there is no /proc."""
    if not _STATUS.is_file():
        return None
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return {name: int(fields[key].split()[0]) * 1024 / 1e6 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
