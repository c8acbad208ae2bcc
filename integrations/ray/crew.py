"""Workers as Ray actors, each with its own model; Ray replaces none of them, so that the driver can count the dead."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from ctxprune.errors import CtxpruneError
from ctxprune.integrations.mapping.work import Work
from ctxprune.integrations.mapping.worker import Died, Failed, Job, PartWorker, Reply, describe


class Worker:
    """A `PartWorker` whose failure to start is an answer, not a death."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.worker: PartWorker | None = None
        self.failure = ""
        try:
            self.worker = PartWorker(work, folder)
        except Exception as error:
            self.failure = describe(error)

    def attempt(self, job: Job) -> Reply:
        return Failed(self.failure) if self.worker is None else self.worker.attempt(job)


class RayCrew:
    """`size` actors of one CPU each.

    address: of a running cluster, "auto" to look for it; None: on this machine, in a Ray that ends with the crew
    unless it ran before. Raises CtxpruneError when Ray does not start or the cluster does not answer.
    """

    def __init__(self, work: Work, folder: Path, *, size: int, address: str | None = None) -> None:
        self.size = size
        self._started = not ray.is_initialized()
        if self._started:
            _start(address, cpus=size)
        # the workers' current folders are not ours
        self._arguments = (work, folder.resolve())
        self._class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}
        for worker in range(size):
            self._actors[worker] = self._class.remote(*self._arguments)

    def give(self, worker: int, job: Job) -> None:
        if worker not in self._actors:
            self._actors[worker] = self._class.remote(*self._arguments)
        self._answers[self._actors[worker].attempt.remote(job)] = worker

    def wait(self) -> tuple[int, Reply]:
        [answer], _ = ray.wait(list(self._answers), num_returns=1)
        worker = self._answers.pop(answer)
        try:
            reply: Reply = ray.get(answer)
        except RayError as error:
            # it may only be out of reach: end it, or it would write beside its successor
            self._end(self._actors.pop(worker))
            return worker, Died(type(error).__name__)
        return worker, reply

    def close(self) -> None:
        for actor in self._actors.values():
            self._end(actor)
        if self._started:
            ray.shutdown()

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(RayError):
            ray.kill(actor)


def _start(address: str | None, *, cpus: int) -> None:
    local: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # a bare one when a process of its own takes too long to start
        ray.shutdown()  # what of it has started
        where = "on this machine" if address is None else f"at {address!r}"
        raise CtxpruneError(f"no Ray {where}: {error}; start one with `ray start --head`") from error
