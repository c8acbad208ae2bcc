"""`ctxprune map`: drive a crew over a file; hand out parts, survive dead workers, find the line that kills them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import typer

from ctxprune.errors import CtxpruneError, InputError
from ctxprune.files import checked_output
from ctxprune.integrations.mapping.files import Failure, OutputFolder, Part, Work, input_files, parts, read_lines
from ctxprune.integrations.mapping.worker import BadLine, Died, Done, Failed, Job, PartWorker, Reply
from ctxprune.options import with_flags
from ctxprune.plain import checked_whole


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
        worker = PartWorker(work, folder)
        while True:
            connection.send(worker.attempt(connection.recv()))


Engine = Literal["local", "ray"]
OnError = Literal["stop", "skip"]
#: The same lines may kill so many workers before they are tried one by one, or blamed: a kill from outside is rarer.
MAX_DEATHS = 3


class Crew(Protocol):
    """`size` workers, numbered from 0, on some engine."""

    size: int

    def give(self, worker: int, job: Job) -> None:
        """Hand a job to an idle worker; a dead one is replaced first."""
        ...

    def wait(self) -> tuple[int, Reply]:
        """Block until a busy worker has an answer or has died."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run. parts = made + found, the latter by an earlier run; remade: made again of changed lines."""

    lines: int
    parts: int
    made: int
    found: int
    remade: int
    deaths: int
    failures: tuple[Failure, ...]


def map_file(
    source: str | Path,
    folder: str | Path,
    work: Work,
    *,
    engine: Engine = "local",
    workers: int = 1,
    on_error: OnError = "stop",
    ray_address: str | None = None,
    on_part: Callable[[int], None] | None = None,
) -> Summary:
    """Do `work` on every line of a .jsonl[.gz] or .parquet file, or of a folder of them, into parts below `folder`.

    Parts are numbered in the order of the input; their bytes depend on neither engine nor workers. Called again with
    the same arguments, it goes on where a stopped run ended. on_error: "stop" at a line that cannot be used or that
    kills workers, naming it, with all finished parts kept; "skip" leaves such lines out and lists them in
    failures.jsonl. ray_address: of a running cluster ("auto"), whose nodes must have ctxprune and the models and see
    `folder` under the same path; None starts Ray on this machine. on_part: called with the lines done so far after
    each part.
    Local workers are fresh processes, so a script calls this under `if __name__ == "__main__":`.
    Raises InputError for bad arguments, a folder that holds something else, or a bad line; CtxpruneError when the
    workers cannot work; MissingExtraError without Ray.
    """
    source, output = Path(source), OutputFolder(Path(folder))
    workers = checked_whole("workers", workers, least=1)
    for name, value, known in (("engine", engine, Engine), ("on_error", on_error, OnError)):
        if value not in get_args(known):
            raise InputError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
    input_files(source)
    open_crew = _crew_factory(engine, workers, ray_address)
    with output.claimed(work, source):
        run = _Run(source, output, work, on_error=on_error, on_part=on_part)
        run.drive(lambda: open_crew(work, output.folder))
        return run.summary()


def _crew_factory(engine: Engine, workers: int, ray_address: str | None) -> Callable[[Work, Path], Crew]:
    if engine == "local":
        return lambda work, folder: LocalCrew(work, folder, size=workers)
    from ctxprune.integrations.ray import RayCrew

    return lambda work, folder: RayCrew(work, folder, size=workers, address=ray_address)


class _Run:
    def __init__(
        self,
        source: Path,
        output: OutputFolder,
        work: Work,
        *,
        on_error: OnError,
        on_part: Callable[[int], None] | None,
    ) -> None:
        self.source, self.output, self.work = source, output, work
        self.skip_bad = on_error == "skip"
        self.on_part = on_part or (lambda lines: None)
        self.lines = self.part_count = self.made = self.found = self.remade = self.deaths = 0
        self.again: deque[Job] = deque()
        self.in_hand: dict[int, Job] = {}
        #: How many workers died over (part, places).
        self.killed: Counter[tuple[int, tuple[int, ...]]] = Counter()
        #: Part -> error; the run ends with that of the first part, whoever met theirs first.
        self.errors: dict[int, CtxpruneError] = {}

    def drive(self, open_crew: Callable[[], Crew]) -> None:
        """Until every part is there, or the first error once the parts in hand are done."""
        jobs = self._jobs()
        job = self._next(jobs)
        if job is not None:
            self.again.append(job)
            with closing(open_crew()) as crew:
                for worker in range(crew.size):
                    self._feed(crew, worker, jobs)
                while self.in_hand:
                    worker, reply = crew.wait()
                    self._settle(self.in_hand.pop(worker), reply)
                    self._feed(crew, worker, jobs)
        if self.errors:
            raise self.errors[min(self.errors)]

    def summary(self) -> Summary:
        """Close the output; to be called once all parts are there."""
        failures = tuple(self.output.finish(self.part_count))
        return Summary(self.lines, self.part_count, self.made, self.found, self.remade, self.deaths, failures)

    def _jobs(self) -> Iterator[Job]:
        """The parts that are still to be made, cut while the file is read."""
        for part in parts(read_lines(self.source), part_tokens=self.work.part_tokens):
            self.part_count += 1
            record = self.output.done(part)
            # an earlier run may have left lines out, which this one is not to
            if record is not None and (self.skip_bad or not record.failures):
                self.found += 1
                self._count(part)
            else:
                self.remade += self.output.stale(part)
                yield Job(part, skip_bad=self.skip_bad)

    def _next(self, jobs: Iterator[Job]) -> Job | None:
        if self.errors:
            return None
        if self.again:
            return self.again.popleft()
        try:
            return next(jobs, None)
        except InputError as error:  # the file cannot be read on: what is in hand is still finished
            self.errors[self.part_count] = error
            return None

    def _feed(self, crew: Crew, worker: int, jobs: Iterator[Job]) -> None:
        job = self._next(jobs)
        if job is not None:
            self.output.put_down(job.part)
            self.in_hand[worker] = job
            crew.give(worker, job)

    def _settle(self, job: Job, reply: Reply) -> None:
        match reply:
            case Done():
                self._made(job.part)
            case BadLine(message):
                self.errors[job.part.index] = InputError(f"{message}; parts that are done stay, so mend it and go on")
            case Failed(message):
                self.errors[job.part.index] = CtxpruneError(message)
            case Died(how):
                self.deaths += 1
                self._after_death(job, how)

    def _after_death(self, job: Job, how: str) -> None:
        if self.output.done(job.part) is not None:  # it died between writing and saying so
            self._made(job.part)
            return
        places = self.output.in_hand(job.part)
        self.killed[job.part.index, places] += 1
        if self.killed[job.part.index, places] < MAX_DEATHS:
            self.again.append(job)
        elif not places:
            self.errors[job.part.index] = CtxpruneError(
                f"{MAX_DEATHS} workers died ({how}) before they began a line; the likeliest cause is too little "
                "memory for the model: use fewer workers"
            )
        elif len(places) > 1:
            self.again.append(replace(job, alone=job.alone | set(places)))
        else:
            self._blame(job, places[0], f"{MAX_DEATHS} workers died ({how}) over this line")

    def _made(self, part: Part) -> None:
        self.made += 1
        self._count(part)

    def _blame(self, job: Job, place: int, reason: str) -> None:
        if self.skip_bad:
            self.again.append(replace(job, left_out={**job.left_out, place: reason}))
            return
        line = job.part.lines[place].place
        self.errors[job.part.index] = InputError(f"{line}: {reason}; remove it, or leave it out with on_error='skip'")

    def _count(self, part: Part) -> None:
        self.lines += len(part.lines)
        self.on_part(self.lines)


#: Seconds between two lines of progress on a terminal.
_PROGRESS_SECONDS = 2.0

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code. argv: what follows `ctxprune map`."""
    try:
        app(list(argv), prog_name="ctxprune map")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
@with_flags
def command(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A .jsonl[.gz] or .parquet file, or a folder.")],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", callback=checked_output, help="A folder: new, empty, or of this very run."),
    ],
    engine: Annotated[Engine, typer.Option(help="Processes on this machine, or a Ray cluster.")] = "local",
    workers: Annotated[int, typer.Option(help="How many; each loads the model once.")] = 1,
    *,
    work: Work,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="At a line that cannot be used: stop, or skip and list it.")
    ] = "stop",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a running Ray cluster, e.g. auto.")
    ] = None,
) -> None:
    """Compress, embed or score every line of INPUT into parts below OUTPUT.

    Parts are numbered in the order of INPUT; `cat OUTPUT/part-*.jsonl` is what `ctxprune compress --batch` prints,
    without `seconds`, which differ from run to run. The same command goes on with a stopped run.
    """
    begun = time.perf_counter()
    summary = map_file(
        source,
        output,
        work,
        engine=engine,
        workers=workers,
        on_error=on_error,
        ray_address=ray_address,
        on_part=_progress() if sys.stderr.isatty() else None,
    )
    _tell(summary, output, time.perf_counter() - begun)


def _progress() -> Callable[[int], None]:
    """Says how many lines are done, now and then."""
    told = time.perf_counter()

    def on_part(lines: int) -> None:
        nonlocal told
        if time.perf_counter() - told >= _PROGRESS_SECONDS:
            told = time.perf_counter()
            sys.stderr.write(f"{lines:,} lines\n")

    return on_part


def _tell(summary: Summary, output: Path, seconds: float) -> None:
    parts = f"{summary.parts:,} parts: {summary.made:,} made, {summary.found:,} were there"
    sys.stderr.write(f"{output}: {summary.lines:,} lines in {parts}; {seconds:.1f} s\n")
    if summary.remade:
        sys.stderr.write(f"{summary.remade:,} parts had been made from other lines and were made again\n")
    if summary.deaths:
        sys.stderr.write(f"{summary.deaths:,} times a worker died and its part was done by another\n")
    if summary.failures:
        sys.stderr.write(f"{len(summary.failures):,} lines were left out; see {output / 'failures.jsonl'}\n")
