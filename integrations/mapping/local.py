"""Workers as processes of this machine, each with its own model; a dead one is replaced when it gets its next part."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ctxprune.integrations.mapping.work import Work
from ctxprune.integrations.mapping.worker import Died, Failed, Job, PartWorker, Reply, describe


class LocalCrew:
    """`size` processes, started fresh, so that no thread or lock of this process is copied into them."""

    def __init__(self, work: Work, folder: Path, *, size: int) -> None:
        self.size = size
        self._work, self._folder = work, folder
        self._processes: dict[int, BaseProcess] = {}
        self._connections: dict[int, Connection[Job, Reply]] = {}
        self._busy: set[int] = set()
        for worker in range(size):  # all at once: loading models takes long
            self._start(worker)

    def give(self, worker: int, job: Job) -> None:
        """Hand a job to an idle worker."""
        if worker not in self._processes:
            self._start(worker)
        self._busy.add(worker)
        with suppress(OSError):  # it has died: `wait` finds out
            self._connections[worker].send(job)

    def wait(self) -> tuple[int, Reply]:
        """The next worker that has something to say, or has died."""
        busy = {self._connections[worker]: worker for worker in sorted(self._busy)}
        connection = next(each for each in wait(list(busy)) if isinstance(each, Connection))
        worker = busy[connection]
        self._busy.discard(worker)
        try:
            return worker, connection.recv()
        except (EOFError, OSError):
            return worker, Died(self._bury(worker))

    def close(self) -> None:
        """End the processes, whatever they do: what they write is whole or not there."""
        for process in self._processes.values():
            process.terminate()
        for worker in list(self._processes):
            self._bury(worker)

    def _start(self, worker: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        mine, theirs = spawn.Pipe()
        arguments = (theirs, self._work, self._folder, _share(worker, self.size))
        process = spawn.Process(target=_serve, args=arguments, name=f"ctxprune-map-{worker}", daemon=True)
        process.start()
        theirs.close()
        self._processes[worker], self._connections[worker] = process, mine

    def _bury(self, worker: int) -> str:
        self._connections.pop(worker).close()
        process = self._processes.pop(worker)
        process.join()
        code = process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _share(worker: int, size: int) -> frozenset[int]:
    """The CPUs of one worker, so that `size` models do not each start a thread for every CPU; empty: all."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = sorted(affinity(0)) if affinity else []
    return frozenset(cpus[worker::size] or cpus[worker % len(cpus) :][:1]) if cpus else frozenset()


def _serve(connection: Connection[Reply, Job], work: Work, folder: Path, cpus: frozenset[int]) -> None:
    """The life of a worker; it ends when the driver hangs up, also by being killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver too, which then ends us
    if cpus:
        os.sched_setaffinity(0, cpus)
    with suppress(EOFError, OSError):
        try:
            worker = PartWorker(work, folder)
        except Exception as error:
            connection.send(Failed(describe(error)))
            return
        while True:
            connection.send(worker.attempt(connection.recv()))
