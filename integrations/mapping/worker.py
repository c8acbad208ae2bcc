"""What a worker does with a part, on whatever engine it runs: read the lines, compute by batches, write the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ctxprune.errors import CtxpruneError, InputError
from ctxprune.integrations.mapping.output import Failure, OutputFolder, Record
from ctxprune.integrations.mapping.parts import Part, batches
from ctxprune.integrations.mapping.tasks import Task, open_task
from ctxprune.integrations.mapping.work import Work


@dataclass(frozen=True, slots=True)
class Job:
    """A part to make. alone: places of lines to compute one by one, since their batch killed workers.

    left_out: place -> why, for lines that are known to kill. skip_bad: leave out what cannot be used, do not stop.
    """

    part: Part
    alone: frozenset[int] = frozenset()
    left_out: Mapping[int, str] = field(default_factory=dict)
    skip_bad: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The part is written."""

    record: Record


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of the part cannot be used; nothing of the part is written. message: begins with "file:line"."""

    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker itself cannot work, whatever the line: no model, a full disk."""

    message: str


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process is gone. how: in words, such as "signal 9"."""

    how: str


Reply: TypeAlias = Done | BadLine | Failed | Died


class PartWorker:
    """Loads the model once, then makes parts. Raises what `open_task` raises."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work = work
        self.output = OutputFolder(folder)
        self.task: Task = open_task(work)

    def attempt(self, job: Job) -> Reply:
        """Make the part and say what came of it; raises nothing."""
        try:
            return Done(self.make(job))
        except _LineError as error:
            return BadLine(str(error))
        except Exception as error:  # a full disk, memory, a bug: the driver ends the run with it
            return Failed(describe(error))

    def make(self, job: Job) -> Record:
        part, failures, items = job.part, dict(job.left_out), dict[int, Any]()
        for place in range(len(part.lines)):
            if place in failures:
                continue
            try:
                items[place] = self._read(part, place)
            except _LineError as error:
                _leave_out(failures, place, error, job)
        outputs: dict[int, Any] = {}
        for batch in self._batches(job):
            if places := [place for place in batch if place in items]:
                self.output.take_in_hand(part, places)
                outputs |= self._compute(part, {place: items[place] for place in places}, failures, job)
        files = self.task.files([outputs[place] for place in sorted(outputs)])
        lost = [Failure(part.lines[place].place, failures[place]) for place in sorted(failures)]
        record = self.output.commit(part, files, lost)
        self.output.put_down(part)
        return record

    def _read(self, part: Part, place: int) -> Any:
        line = part.lines[place]
        try:
            return self.task.read(_object(line.text), name=line.id)
        except InputError as error:
            raise _LineError(line.place, str(error)) from None

    def _batches(self, job: Job) -> list[Sequence[int]]:
        planned: list[Sequence[int]] = []
        for batch in batches(job.part, batch_tokens=self.work.batch_tokens):
            planned.extend([[place] for place in batch] if job.alone.intersection(batch) else [batch])
        return planned

    def _compute(self, part: Part, items: Mapping[int, Any], failures: dict[int, str], job: Job) -> dict[int, Any]:
        """Outputs by place; after a failed batch each line gets its own try, so that the one at fault is named."""
        try:
            return dict(zip(items, self.task.run(list(items.values())), strict=True))
        except Exception as error:
            if len(items) > 1:
                outputs: dict[int, Any] = {}
                for place, item in items.items():
                    outputs |= self._compute(part, {place: item}, failures, job)
                return outputs
            [place] = items
            _leave_out(failures, place, _LineError(part.lines[place].place, describe(error)), job)
            return {}


class _LineError(Exception):
    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.reason = reason


def describe(error: Exception) -> str:
    """Our own errors speak for themselves, others need their type."""
    return str(error) if isinstance(error, CtxpruneError) else f"{type(error).__name__}: {error}"


def _leave_out(failures: dict[int, str], place: int, error: _LineError, job: Job) -> None:
    if not job.skip_bad:
        raise error
    failures[place] = error.reason


def _object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, brackets nested as deep
        raise InputError(f"unusable JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object, got {type(row).__name__}")
    return row
