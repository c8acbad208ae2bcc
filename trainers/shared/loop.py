"""The one training loop: a run that can be stopped and repeated, with its batches, schedule, steps and checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor
from transformers import TrainerCallback

from ctxprune.errors import InputError

#: The label of tokens that no loss looks at: question, title, special tokens, padding.
IGNORE = -100


class HasIds(Protocol):
    """Any encoded training item: token ids of shape (n,), and whatever labels its trainer needs."""

    @property
    def ids(self) -> np.ndarray[Any, Any]: ...


Encoded = TypeVar("Encoded", bound=HasIds)


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """total: scalar, to be minimised. parts: what it is made of, for the running means; NaN where a batch has none."""

    total: Tensor
    parts: Mapping[str, float]


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

    def train(
        self,
        plan: Sequence[Sequence[Encoded]],
        loss: Callable[[Sequence[Encoded]], BatchLoss],
        evaluate: Callable[[Mapping[str, float]], Mapping[str, float]],
        checkpoint: Path,
        *,
        newest: float = 0.02,
    ) -> None:
        """Go through the plan from where the run stands; evaluate and save every `--evaluate-every` steps.

        loss: of this process's share of a batch. evaluate: takes the running means of the loss's parts and returns the
        figures of a line of the history, none for no line. newest: a batch's weight in the running means.
        """
        self.module.train()
        means: dict[str, float] = {}
        for group in self.groups(plan):
            started = time.monotonic()
            for rate_group in self.optimizer.param_groups:
                rate_group["lr"] = self.learning_rate()
            for batch in group:
                for name, value in self._learn(loss, self.share(batch)).items():
                    if not math.isnan(value):
                        means[name] = (1 - newest) * means.get(name, value) + newest * value
            self.step += 1
            self.seconds += self.agreed(time.monotonic() - started)
            if self.step % 20 == 0:
                shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
                self._tell(f"step {self.step}/{self.steps} {self.seconds:.0f} s lr {self.learning_rate():.2e} {shown}")
            if self.step % self.arguments.evaluate_every == 0 or self.finished:
                self._record(evaluate(means))
                self.save(checkpoint)
            if self.finished:
                return

    def _learn(self, loss: Callable[[Sequence[Encoded]], BatchLoss], batch: Sequence[Encoded]) -> Mapping[str, float]:
        """One backward pass, and an optimizer step with the last batch of a group. Returns the loss's parts."""
        with self.accelerator.accumulate(self.module):
            found = loss(batch)
            self.accelerator.backward(found.total)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return found.parts

    def _record(self, measured: Mapping[str, float]) -> None:
        if measured:
            self.history.append({"step": self.step, "seconds": self.seconds, **measured})
            rounded = {name: round(value, 4) for name, value in self.history[-1].items()}
            self._tell(f"validation {json.dumps(rounded)}")

    def _tell(self, line: str) -> None:
        if self.accelerator.is_main_process:
            print(line, flush=True)

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
        progress = min(self.progress, 1.0)
        if progress < WARM_UP:
            return float(self.arguments.lr * (progress + 1e-3) / WARM_UP)
        return float(self.arguments.lr * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))))

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

    def resume(self, path: Path) -> None:
        """Go on from the checkpoint, where there is one. Raises InputError for one of another model or trainer."""
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.accelerator.unwrap_model(self.module).load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        except (RuntimeError, ValueError, LookupError, TypeError, EOFError, UnpicklingError) as error:
            fault = str(error).split("\n", 1)[0].rstrip(":")
            raise InputError(
                f"{path} is no checkpoint of this training ({type(error).__name__}: {fault}); repeat the command that "
                "began it, or train into another --out"
            ) from None

    def groups(self, plan: Sequence[Sequence[Encoded]]) -> Iterator[Sequence[Sequence[Encoded]]]:
        """The plan in groups of `accumulate` batches, those already trained on left out."""
        size = self.arguments.accumulate
        for begin in range(self.step * size, len(plan), size):
            yield plan[begin : begin + size]

    def share(self, batch: Sequence[Encoded]) -> Sequence[Encoded]:
        """This process's part of a batch, as many tokens as the others' or nearly so, since the slowest one is waited
        for; never empty, so that all processes take part in every step."""
        return balanced(batch, self.accelerator.num_processes)[self.accelerator.process_index] or batch[:1]


def balanced(batch: Sequence[Encoded], parts: int) -> list[list[Encoded]]:
    """The batch in `parts` of about equal numbers of tokens: the largest item first, each to the smallest part. Within
    a part items keep their order. Each part's loss is a mean of its own and counts alike, so an item weighs about as
    much as it has tokens."""
    made: list[list[int]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for place in sorted(range(len(batch)), key=lambda place: _tokens(batch[place]), reverse=True):
        smallest = sizes.index(min(sizes))
        made[smallest].append(place)
        sizes[smallest] += _tokens(batch[place])
    return [[batch[place] for place in sorted(part)] for part in made]


def _tokens(item: HasIds) -> int:
    """Of an item, or of all members of a family, padded as they are read."""
    return int(getattr(item, "tokens", len(item.ids)))


def schedule(
    arguments: argparse.Namespace, epoch: Callable[[random.Random], Sequence[Sequence[Encoded]]]
) -> list[Sequence[Encoded]]:
    """The batches of the whole run, the same at every start with the same seed. epoch: draws those of one pass."""
    rng = random.Random(arguments.seed)
    plan = [batch for _ in range(arguments.epochs) for batch in epoch(rng)]
    return plan[: arguments.max_steps * arguments.accumulate or None]


def batches(items: Sequence[Encoded], size: int, rng: random.Random) -> list[list[Encoded]]:
    """Shuffled batches of similar lengths: sorted within stretches of 50 batches, so that little is padding."""
    order = list(range(len(items)))
    rng.shuffle(order)
    made = []
    for begin in range(0, len(order), size * 50):
        stretch = sorted(order[begin : begin + size * 50], key=lambda place: len(items[place].ids))
        made += [[items[place] for place in stretch[i : i + size]] for i in range(0, len(stretch), size)]
    rng.shuffle(made)
    return made


def padded(rows: Sequence[np.ndarray[Any, Any]], value: float, kind: type[np.generic] = np.int64) -> Tensor:
    """(rows, longest): rows of shape (n,), filled up with `value` at their ends."""
    table = np.full((len(rows), max(map(len, rows))), value, dtype=kind)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(table)


def auc(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Area under the ROC curve by the rank-sum formula; NaN when only one class is present."""
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def add_run_arguments(parser: argparse.ArgumentParser, *, lr: float, max_length: int) -> None:
    """The options that a `Run` and its schedule read; lr, max_length: the defaults."""
    add = parser.add_argument
    add("--epochs", type=int, default=1)
    add("--batch-size", type=int, default=32, help="items a batch, over all processes")
    add("--accumulate", type=int, default=1, help="batches a step")
    add("--lr", type=float, default=lr)
    add("--max-length", type=int, default=max_length, help="tokens a training item")
    add("--max-steps", type=int, default=0, help="stop after so many steps (0: all)")
    add("--max-minutes", type=float, default=0, help="end the schedule after this time (0: no limit)")
    add("--dropout", type=float, default=0.0, help="drawing the masks takes most of the time on a CPU")
    add("--freeze-embeddings", action="store_true", help="a third faster on a CPU")
    add("--precision", choices=["no", "bf16", "fp16"], default="bf16")
    add("--cpu", action="store_true", help="stay on the CPU even if there is an accelerator")
    add("--evaluate-every", type=int, default=250, help="steps between evaluations and checkpoints")
    add("--seed", type=int, default=13)


#: Share of a run in which the learning rate rises.
WARM_UP = 0.05


def rate_factor(progress: float) -> float:
    """Share of the full learning rate at `progress` (0 to 1): linear warm-up, then linear to zero."""
    if progress < WARM_UP:
        return (progress + 1e-3) / WARM_UP
    return max(0.0, (1 - progress) / (1 - WARM_UP))


class Clock(TrainerCallback):
    """Counts seconds over all starts of a run (0 minutes: no limit); evaluates and saves where the run ends.

    The seconds are in the run's log, and so in its checkpoints. clock: seconds, never going back.
    """

    def __init__(self, minutes: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = minutes * 60
        self._clock = clock
        self._before = 0.0
        self._started = clock()

    @property
    def seconds(self) -> float:
        return self._before + self._clock() - self._started

    def progress(self, step: int, steps: int) -> float:
        """0 to 1: by steps, or by the time allowed when that runs out first."""
        return min(1.0, max(step / steps, self.seconds / self._allowed if self._allowed else 0.0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        self._before = max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)
        self._started = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        timed_out = bool(self._allowed) and self.seconds >= self._allowed
        if timed_out or state.global_step >= state.max_steps:
            control.should_training_stop = control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_log(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        state.log_history[-1]["seconds"] = round(self.seconds, 1)
