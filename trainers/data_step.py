"""How every program that makes training data with a language model ends: a report, or an error and what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctxprune.errors import CtxpruneError, GeneratorError


def data_step(work: Callable[[], Mapping[str, Any]], *, out: Path) -> int:
    """Do the work, which writes `out`; print its report and write it beside `out`. Returns the exit code."""
    try:
        shown = json.dumps(work(), indent=2)
        report_path(out).write_text(shown + "\n", encoding="utf-8")
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, GeneratorError):
            print("the answers so far are kept; run the same command to go on", file=sys.stderr)
        return 1
    print(shown)
    return 0


def report_path(out: Path) -> Path:
    """labels.jsonl, labels.jsonl.gz -> labels.report.json."""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".report.json")
