"""Cold start: what a shell user waits for and what memory it takes, from process start to exit."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ctxprune.errors import CtxpruneError
from ctxprune.eval.bench.measure import Timing, run_child
from ctxprune.eval.bench.passages import passages
from ctxprune.samples import sample_questions

#: Packages that take seconds to import; none may be loaded on the way to a result of the bundled model.
HEAVY = frozenset(
    ["torch", "transformers", "sentence_transformers", "datasets", "faiss", "bm25s", "langchain_core", "fastapi"]
)


def cold_start(compressor: str, options: Sequence[str] = (), *, runs: int) -> dict[str, Any]:
    """`ctxprune compress` on 5 passages of 100 words beside the floor under it, with a warm disk cache.

    options: more of the command's own. Returns "rows" of name, seconds and peak_mb, and "heavy": which of HEAVY got
    imported. Raises CtxpruneError when the command is not installed or fails.
    """
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.txt" for place in range(5)]
        for file, text in zip(files, passages(5), strict=True):
            file.write_text(text, encoding="utf-8")
        asked = ["-q", sample_questions()[0].question, "--compressor", compressor, *options]
        compress = [_script(), "compress", *asked, *map(str, files)]
        heavy = imported(compress) & HEAVY  # also the run that warms the disk cache
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
            "import ctxprune": [sys.executable, "-c", "import ctxprune"],
            f"ctxprune compress --compressor {compressor}": [sys.executable, *compress],
        }
        measured = [{name: run_child(command) for name, command in commands.items()} for _ in range(runs)]
    rows = [
        {
            "name": name,
            "seconds": Timing(tuple(turn[name][0] for turn in measured)).to_dict(),
            "peak_mb": max(turn[name][1] for turn in measured),
        }
        for name in commands
    ]
    return {"rows": rows, "heavy": sorted(heavy)}


def imported(script: Sequence[str]) -> frozenset[str]:
    """Top-level names of every module that a Python script imports, as `python -X importtime` lists them.

    script: its path and arguments. Raises CtxpruneError when it fails.
    """
    done = subprocess.run([sys.executable, "-X", "importtime", *script], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    if done.returncode:
        said = "\n".join(line for line in lines if not line.startswith("import time:"))
        raise CtxpruneError(f"{' '.join(script)} ended with exit status {done.returncode}: {said[-500:]}")
    names = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return frozenset(name.partition(".")[0] for name in names)


def _script() -> str:
    path = Path(sysconfig.get_path("scripts")) / "ctxprune"
    if not path.is_file():
        raise CtxpruneError(f"no command at {path}; install the package into this environment first")
    return str(path)
