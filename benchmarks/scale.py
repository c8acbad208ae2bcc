"""Many questions: memory and seconds of an evaluation over ever more of them, and a map on Ray with its workers killed.

    python -m benchmarks.scale --samples 1000,10000,100000     # `ctxprune eval run` without a generator
    python -m benchmarks.scale --ray 3000                      # two Ray workers, killed in turn

--figures FILE is for `make tables`.

The questions are made: each has five passages of the sample corpus, one of which tells the number that it asks for.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import psutil

from benchmarks.measure import command_line, repeating, run_child
from benchmarks.quality.figures import write_figures
from benchmarks.tables.speed import scale
from ctxprune.data import sample_corpus
from ctxprune.errors import CtxpruneError
from ctxprune.eval.run.retrieval import chunk_spans
from ctxprune.integrations.mapping.files import Work
from ctxprune.integrations.mapping.run import map_file

PASSAGES, WORDS, BUDGET = 5, 60, 80
#: Seconds between two killings, so that a worker has time to load and to answer in between.
_PAUSE = 4.0
_CONFIG = """data: [{{path: {questions}, name: made}}]
full_context: false
compressors:
  - {{name: {compressor}, budgets: [{budget}], baselines: []}}
statistics: {{resamples: 200}}
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """One evaluation. peak_mb: resident memory of the process; disk_mb: what it wrote."""

    samples: int
    seconds: float
    peak_mb: float
    disk_mb: float


def made_questions(number: int, *, seed: int = 0) -> Iterator[dict[str, object]]:
    """Rows of a question file: the same for a seed, a smaller number being the beginning of a larger one."""
    random = Random(seed)
    passages = [
        document.text[start:end] for document in sample_corpus() for start, end in chunk_spans(document.text, WORDS)
    ]
    for case in range(number):
        texts, value = random.sample(passages, PASSAGES), str(random.randrange(10**6, 10**7))
        gold = random.randrange(PASSAGES)
        texts[gold] += f" The number of case {case} is {value}."
        documents = [{"text": text, "is_gold": place == gold} for place, text in enumerate(texts)]
        yield {"question": f"What is the number of case {case}?", "answers": [value], "documents": documents}


def write_questions(path: Path, number: int) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in made_questions(number))


def evaluated(samples: int, compressor: str, folder: Path) -> Scale:
    """`ctxprune eval run` over so many questions, in a process of its own."""
    questions, config, out = folder / "questions.jsonl", folder / "config.yaml", folder / "run"
    write_questions(questions, samples)
    config.write_text(
        _CONFIG.format(questions=json.dumps(str(questions)), compressor=compressor, budget=BUDGET), encoding="utf-8"
    )
    cache = folder / "cache.sqlite"
    program = Path(sysconfig.get_path("scripts")) / "ctxprune"
    command = [str(program), "eval", "run", str(config), "--out", str(out), "--cache", str(cache)]
    seconds, peak = run_child(command)
    disk = sum(file.stat().st_size for file in (*out.rglob("*"), cache) if file.is_file())
    return Scale(samples, seconds, peak, disk / 1e6)


def killed_in_turn(samples: int, compressor: str, folder: Path) -> tuple[float, int]:
    """Seconds of a map on two Ray workers, one of them killed every few seconds, and how many were.

    Raises CtxpruneError when a byte differs from what one local process writes, and when nothing was killed.
    """
    questions = folder / "questions.jsonl"
    write_questions(questions, samples)
    work = Work(compressor=compressor, budget=BUDGET)
    map_file(questions, folder / "local", work)
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=_kill_in_turn, args=(killed, done), daemon=True)
    killer.start()
    started = time.perf_counter()
    try:
        map_file(questions, folder / "ray", work, engine="ray", workers=2)
    finally:
        done.set()
        killer.join()
    seconds = time.perf_counter() - started
    if parts(folder / "local") != parts(folder / "ray"):
        raise CtxpruneError("the parts written by killed workers differ from those of one process")
    if not killed:
        raise CtxpruneError(f"the map of {samples} questions was done before a worker was killed; give --ray more")
    return seconds, len(killed)


def parts(folder: Path) -> bytes:
    """The results in order, whatever the number of parts."""
    return b"".join(part.read_bytes() for part in sorted(folder.glob("part-*.jsonl")))


def _kill_in_turn(killed: list[int], done: threading.Event) -> None:
    while not done.wait(_PAUSE):
        workers = [each for each in psutil.Process().children(recursive=True) if _works(each)]
        if workers:
            worker = workers[len(killed) % len(workers)]
            worker.kill()
            killed.append(worker.pid)


def _works(process: psutil.Process) -> bool:
    try:
        return any(part.startswith("ray::") and ".attempt" in part for part in process.cmdline())
    except psutil.Error:
        return False


def render(rows: Sequence[Scale]) -> str:
    """Markdown."""
    return scale({"rows": [asdict(row) for row in rows]})


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        if args.ray:
            seconds, killed = killed_in_turn(args.ray, args.compressor, Path(scratch))
            print(f"{args.ray:,} questions in {seconds:.0f} s, {killed} workers killed: the same bytes")
            return 0
        rows = []
        for samples in args.samples:
            folder = Path(scratch) / str(samples)
            folder.mkdir()
            rows.append(evaluated(samples, args.compressor, folder))
            print(render(rows[-1:]), file=sys.stderr, flush=True)
    if args.figures:
        command = repeating("scale", ["--samples", ",".join(map(str, args.samples)), "--compressor", args.compressor])
        write_figures({"command": command, "rows": [asdict(row) for row in rows]}, args.figures)
    print(render(rows))
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--samples", type=_numbers, default=[1000, 10_000, 100_000], metavar="N,N,...")
    parser.add_argument("--ray", type=int, default=0, metavar="N", help="map so many on Ray instead, killing workers")
    parser.add_argument("--compressor", default="bm25-sentences", help="(default: bm25-sentences)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write the figures of --samples here")
    parser.add_argument("--scratch", type=Path, default=None, help="where the temporary folder goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
