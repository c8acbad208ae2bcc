"""One contender on one load of the comparison with llmlingua, in a process whose time and memory are its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Literal

from ctxprune.errors import CtxpruneError
from ctxprune.runtime.device import memory_mb

_FIRST = "The first call of a process is slower than those that follow."
_WORD, _LABEL = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """model: a folder. texts: compressed by one call, or by a call each.

    unknown_ends: see `ctxprune.integrations.llmlingua.compressor`.
    """

    package: Literal["llmlingua", "ctxprune"]
    model: str
    texts: Sequence[str]
    together: bool
    rate: float
    unknown_ends: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """seconds: without loading. peak_mb: resident, loading included (None where it cannot be read).

    flags: of every call, "1" for each word that stays and "0" for the others.
    """

    seconds: float
    peak_mb: float | None
    flags: tuple[str, ...]


class ThirdsCounter:
    """One token for three characters begun: stands for GPT-3.5's encoding, which would be fetched over the network."""

    name = "thirds"
    exact = True

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encode(text)) for text in texts]

    def encode(self, text: str) -> range:
        """As many items as tokens, which is all that llmlingua looks at."""
        return range(-(-len(text) // 3))


def run_task(task: Task, *, limit_seconds: float) -> Outcome | None:
    """Do the task in a child process; None when it takes longer than the limit, which includes loading.

    Raises CtxpruneError with the end of what the child wrote when it fails.
    """
    command = [sys.executable, "-m", "benchmarks.llmlingua_task"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(task)), capture_output=True, text=True, timeout=limit_seconds
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise CtxpruneError(f"{task.package} on {task.model} failed: {done.stderr.strip()[-800:]}")
    seconds, peak_mb, flags = json.loads(done.stdout.splitlines()[-1])
    return Outcome(seconds, peak_mb, tuple(flags))


def perform(task: Task) -> Outcome:
    """Do the task in this process."""
    compress = _compressor(task)
    calls = [list(task.texts)] if task.together else [[text] for text in task.texts]
    compress([_FIRST])
    started = time.perf_counter()
    labelled = [compress(call) for call in calls]
    seconds = time.perf_counter() - started
    memory = memory_mb()
    return Outcome(seconds, memory["peak"] if memory else None, tuple(map(_flags, labelled)))


def _compressor(task: Task) -> Callable[[list[str]], str]:
    """Texts to llmlingua's labelled words."""
    made = _llmlingua(task) if task.package == "llmlingua" else _ctxprune(task)
    options = {"rate": task.rate, "return_word_label": True, "word_sep": _WORD, "label_sep": _LABEL}

    def compress(texts: list[str]) -> str:
        return str(made.compress_prompt(texts, **options)["fn_labeled_original_prompt"])

    return compress


def _llmlingua(task: Task) -> Any:
    stand_in: Any = SimpleNamespace(encoding_for_model=lambda name: ThirdsCounter())
    sys.modules["tiktoken"] = stand_in  # llmlingua fetches the encoding while it is set up
    import llmlingua

    return llmlingua.PromptCompressor(task.model, device_map="cpu", use_llmlingua2=True)


def _ctxprune(task: Task) -> Any:
    from ctxprune.integrations.llmlingua.compressor import PromptCompressor

    config = {"unknown_ends": task.unknown_ends}
    return PromptCompressor(task.model, "cpu", llmlingua2_config=config, counter=ThirdsCounter())


def _flags(labelled: str) -> str:
    return "".join(word.rpartition(_LABEL)[2] for word in labelled.split(_WORD))


def main() -> None:
    outcome = perform(Task(**json.load(sys.stdin)))
    print(json.dumps([outcome.seconds, outcome.peak_mb, outcome.flags]))


if __name__ == "__main__":
    main()
