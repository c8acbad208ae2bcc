"""What a run ran on: versions of what decides the figures, and the machine, which decides only the seconds."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ctxprune import __version__

_DECIDING = ("torch", "transformers", "onnxruntime", "tokenizers", "sentencex", "numpy", "bm25s", "faiss-cpu")


def versions() -> dict[str, str]:
    """ctxprune, Python and the libraries that can change a figure."""
    found = {"ctxprune": __version__, "python": platform.python_version()}
    for name in _DECIDING:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """The versions and the machine: processor, cores, memory in bytes."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
