"""A training run that can be stopped and repeated: its batches, its schedule, its checkpoint. All trainers share it."""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast

from ctxprune.errors import CtxpruneError, GeneratorError
from ctxprune.trainers.provence.items import Encoded, batches


class Run:
    """The state of one training run: what is saved in a checkpoint and found again when the command is repeated.

    arguments: what `add_run_arguments` adds. steps: optimizer steps of the whole schedule.
    """

    def __init__(self, module: torch.nn.Module, arguments: argparse.Namespace, steps: int) -> None:
        self.arguments = arguments
        self.accelerator = Accelerator(
            mixed_precision=arguments.precision,
            gradient_accumulation_steps=arguments.accumulate,
            cpu=arguments.cpu,
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False)
            ],  # no trainer has buffers that change
        )
        if arguments.freeze_embeddings:
            for name, parameter in module.named_parameters():
                parameter.requires_grad &= "embeddings" not in name
        for part in module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = arguments.dropout
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=arguments.lr, weight_decay=0.01, fused=True)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.steps, self.step, self.seconds = steps, 0, 0.0
        self.history: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        """0 to 1: by steps, or by the time allowed when that runs out first."""
        allowed = self.arguments.max_minutes * 60
        return max(self.step / self.steps, self.seconds / allowed if allowed else 0.0)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps or self.progress >= 1

    def learning_rate(self) -> float:
        """Linear warm-up over the first twentieth, then a cosine to zero."""
        warm_up, progress = 0.05, min(self.progress, 1.0)
        if progress < warm_up:
            return float(self.arguments.lr * (progress + 1e-3) / warm_up)
        return float(self.arguments.lr * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))))

    def agreed(self, seconds: float) -> float:
        """The first process's time, so that all of them end the schedule at the same step."""
        return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=self.accelerator.device)))

    def save(self, path: Path) -> None:
        if self.accelerator.is_main_process:
            state = {
                "model": self.accelerator.unwrap_model(self.module).state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "history": self.history,
            }
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.accelerator.unwrap_model(self.module).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]

    def groups(self, plan: Sequence[Sequence[Encoded]]) -> Iterator[Sequence[Sequence[Encoded]]]:
        """The plan in groups of `accumulate` batches, those already trained on left out."""
        size = self.arguments.accumulate
        for begin in range(self.step * size, len(plan), size):
            yield plan[begin : begin + size]

    def share(self, batch: Sequence[Encoded]) -> Sequence[Encoded]:
        """This process's part of a batch; never empty, so that all processes take part in every step."""
        return batch[self.accelerator.process_index :: self.accelerator.num_processes] or batch[:1]


def schedule(items: Sequence[Encoded], arguments: argparse.Namespace) -> list[list[Encoded]]:
    """The batches of the whole run, the same at every start with the same seed."""
    rng = random.Random(arguments.seed)
    made = [batch for _ in range(arguments.epochs) for batch in batches(items, arguments.batch_size, rng)]
    return made[: arguments.max_steps * arguments.accumulate] if arguments.max_steps else made


def add_run_arguments(made: argparse.ArgumentParser, *, lr: float, max_length: int) -> None:
    """The options that a `Run` and its schedule read; lr, max_length: the defaults."""
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch-size", type=int, default=32, help="items a batch, over all processes")
    made.add_argument("--accumulate", type=int, default=1, help="batches a step")
    made.add_argument("--lr", type=float, default=lr)
    made.add_argument("--max-length", type=int, default=max_length, help="tokens a training item")
    made.add_argument("--max-steps", type=int, default=0, help="stop after so many steps (0: all)")
    made.add_argument("--max-minutes", type=float, default=0, help="end the schedule after this time (0: no limit)")
    made.add_argument("--dropout", type=float, default=0.0, help="drawing the masks takes most of the time on a CPU")
    made.add_argument("--freeze-embeddings", action="store_true", help="a third faster on a CPU")
    made.add_argument("--precision", choices=["no", "bf16", "fp16"], default="bf16")
    made.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is an accelerator")
    made.add_argument("--evaluate-every", type=int, default=250, help="steps between evaluations and checkpoints")
    made.add_argument("--seed", type=int, default=13)


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
