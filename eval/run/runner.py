"""A benchmark run from settings to report: each stage over all questions before the next loads its model."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from ctxprune import __version__
from ctxprune.errors import InputError
from ctxprune.eval.config import NONE, Arm, CompressorConfig, EvalConfig, Step, arms_of
from ctxprune.eval.judge import JudgeItem, Verdict
from ctxprune.eval.judge import judge as ask
from ctxprune.eval.report.folder import is_tested
from ctxprune.eval.report.html import write_report
from ctxprune.eval.report.plots import require_matplotlib
from ctxprune.eval.run.compress import Scorer
from ctxprune.eval.run.contexts import ArmContexts, Sample
from ctxprune.eval.run.datasets import Questions
from ctxprune.eval.run.folder import Store, claimed, to_json, write_whole
from ctxprune.eval.run.samples import Answerer, SampleWriter, tokenizer_of
from ctxprune.eval.run.score import METRICS, Answer
from ctxprune.eval.run.sets import open_sets, outside_contexts
from ctxprune.prompt import render_prompt
from ctxprune.runtime.device import memory_mb
from ctxprune.tokens import load_counter

_DECIDING = ("torch", "transformers", "onnxruntime", "tokenizers", "sentencex", "numpy", "bm25s", "faiss-cpu")


def versions() -> dict[str, str]:
    """ctxprune, Python and the libraries that can change a figure."""
    found = {"ctxprune": __version__, "python": platform.python_version()}
    for name in _DECIDING:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """The versions and the machine: processor, cores, memory in bytes."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


Advance = Callable[[int], None]

_EVERY = 30.0  # seconds between lines where there is no terminal


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Gives a function to call with the number of items done since the last call."""
    if sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def _lines(title: str, total: int) -> Advance:
    began = last = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        now = time.monotonic()
        if done and (done >= total or now - last >= _EVERY):
            last = now
            left = (now - began) / done * max(total - done, 0)
            sys.stderr.write(f"{title}: {done}/{total}, {now - began:.0f} s, about {left:.0f} s left\n")

    return advance


Scorers: TypeAlias = Mapping[tuple[str, bool], Scorer]  #: by `Arm.scorer`

#: Questions whose contexts are in memory together: enough to sort their prompts by length, little enough to be small.
_BATCH = 64


def run(config: EvalConfig, out: Path, *, cache: Path, command: str | None = None) -> dict[str, Any]:
    """Run the benchmark and write the run folder `out`; returns what results.json holds.

    cache: the file of what was computed before, by any run; a stopped run goes on from there when it is started again.
    command: how the run was started, for the report.
    Raises InputError for unusable settings or files, GeneratorError when an endpoint stays down.
    """
    require_matplotlib()  # before an hour's work, not after
    with claimed(out, config.hash), Store(cache) as store:
        write_whole(out / "config.yaml", config.to_yaml())
        write_whole(out / "env.json", to_json({"command": command, **environment()}, indent=1) + "\n")
        results = Run(config, store).results(out)
        write_whole(out / "results.json", to_json(results, indent=1) + "\n")
        write_report(out)
    return results


class Run:
    """The stages of one run."""

    def __init__(self, config: EvalConfig, store: Store) -> None:
        self.config = config
        self.store = store
        self.counter = load_counter(config.tokenizer or tokenizer_of(config.generator))
        self.arms = tuple(
            arms_of(
                config.compressors,
                [Path(file).name for file in config.compressed],
                config.baselines,
                full_context=config.full_context,
            )
        )
        self.answerer = Answerer(config.generator, store) if config.generator.kind != "none" else None
        self.judge = Answerer(config.judge, store) if config.judge.kind != "none" else None
        #: The models that an endpoint named in its answers; of one run there should be one.
        self.answered_by: set[str] = set()
        self.seconds: dict[str, float] = {}
        #: [stage, set, questions done, resident MB], twenty times a stage: a run must not grow with its questions
        self.memory: list[tuple[str, str, int, float]] = []

    def results(self, out: Path) -> dict[str, Any]:
        """Run the stages in order, write the samples into `out`, and return what results.json holds."""
        with self._timed("read"):
            sets = open_sets(self.config.data, self.store)
        with self._timed("compress"):
            scorers = self._compress(sets)
        if self.answerer is not None:
            with self._timed("generate"):
                self._generate(sets, scorers, self.answerer)
        if self.answerer is not None and self.judge is not None:
            with self._timed("judge"):
                self._ask_judge(sets, scorers, self.answerer, self.judge)
        with self._timed("score"):
            rows = self._score(sets, scorers, out)
        return {
            "rows": rows,
            "config_hash": self.config.hash,
            "data_hashes": {questions.name: questions.content_hash for questions in sets},
            "versions": versions(),
            "statistics": self.config.statistics.model_dump(),
            "answered_by": sorted(self.answered_by),
            "price": self.config.price and self.config.price.model_dump(),
            "timings": {stage: round(seconds, 1) for stage, seconds in self.seconds.items()} | {"memory": self.memory},
        }

    def _compress(self, sets: Sequence[Questions]) -> Scorers:
        """A scorer for each compressor and baseline, run over all questions before the next one is loaded."""
        scorers = {
            (config.label, False): Scorer(
                config.chain,
                store=self.store,
                counter=self.counter,
                at_once=config.batch_size,
                language=self.config.language,
            )
            for config in self.config.compressors
        } | {
            arm.scorer: Scorer(
                [Step(name=arm.compressor)], store=self.store, counter=self.counter, language=self.config.language
            )
            for arm in self.arms
            if arm.matched_to is not None
        }
        readers = (scorers[each.label, False] for each in self.config.compressors if _reads_as_reranker(each))
        if ("rerank-truncate", True) in scorers:
            scorers["rerank-truncate", True].reader = next(readers, None)
        for key, scorer in scorers.items():
            settings = [arm.settings for arm in self.arms if arm.scorer == key]
            for questions in sets:
                with self._progress(questions, scorer.name) as advance:
                    for batch in questions.batches(_BATCH):
                        scorer.prepare(batch, settings)
                        advance(len(batch))
            scorer.release()
        return scorers

    def _generate(self, sets: Sequence[Questions], scorers: Scorers, answerer: Answerer) -> None:
        with answerer:
            for questions in sets:
                with self._progress(questions, "generate") as advance:
                    for batch in self._samples(questions, scorers):
                        answerer.prepare(self.prompt(sample) for samples in batch for sample in samples)
                        advance(len(batch))

    def _ask_judge(self, sets: Sequence[Questions], scorers: Scorers, answerer: Answerer, judge: Answerer) -> None:
        with judge:
            for questions in sets:
                with self._progress(questions, "judge") as advance:
                    for batch in self._samples(questions, scorers):
                        flat = [sample for samples in batch for sample in samples]
                        self._verdicts(flat, answerer.answers([self.prompt(sample) for sample in flat]), judge)
                        advance(len(batch))

    def _score(self, sets: Sequence[Questions], scorers: Scorers, out: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        with SampleWriter(out, self.arms, self.config.statistics) as writer:
            for questions in sets:
                gold_known = any(labelled.is_gold for question in questions for labelled in question.documents)
                with (
                    self._progress(questions, "score") as advance,
                    writer.write_set(questions.name, gold_known=gold_known) as set_writer,
                ):
                    for batch in self._samples(questions, scorers):
                        for samples in batch:
                            set_writer.add(samples, self._answers(samples))
                        advance(len(batch))
                rows += set_writer.rows()
        return rows

    def _answers(self, samples: Sequence[Sample]) -> list[Answer] | None:
        """What is remembered of the samples' answers, with the judge's verdicts; None without a generator."""
        if self.answerer is None:
            return None
        answers = self.answerer.answers([self.prompt(sample) for sample in samples])
        self.answered_by.update(answer.model for answer in answers if answer.model)
        tokens = self.counter.count([answer.text for answer in answers])
        answers = [replace(answer, tokens=float(count)) for answer, count in zip(answers, tokens, strict=True)]
        if self.judge is None:
            return answers
        verdicts = self._verdicts(samples, answers, self.judge)
        return [replace(answer, verdict=verdict) for answer, verdict in zip(answers, verdicts, strict=True)]

    def _verdicts(
        self, samples: Sequence[Sample], answers: Sequence[Answer], judge: Answerer
    ) -> Sequence[Verdict | None]:
        """None for a reply that failed: there is nothing to judge."""
        pairs = [pair for pair in zip(samples, answers, strict=True) if not pair[1].fault]
        items = [JudgeItem(each.question.text, each.question.answers, answer.text) for each, answer in pairs]
        verdicts = iter(ask(judge, items))
        return [None if answer.fault else next(verdicts) for answer in answers]

    def _samples(self, questions: Questions, scorers: Scorers) -> Iterator[list[list[Sample]]]:
        outside = outside_contexts(self.config.compressed, questions)
        contexts = ArmContexts(self.arms, scorers, outside, self.counter)
        return (contexts.samples(batch) for batch in questions.batches(_BATCH))

    def prompt(self, sample: Sample) -> str:
        """What the generator reads for a sample."""
        if sample.arm == Arm(NONE):
            return self.config.closed_book_template.replace("{question}", sample.question.text)
        return render_prompt(sample.result.after, template=self.config.template)

    @contextmanager
    def _progress(self, questions: Questions, doing: str) -> Iterator[Advance]:
        done, noted = 0, -1
        with progress(f"{questions.name}: {doing}", len(questions)) as advance:

            def step(more: int) -> None:
                nonlocal done, noted
                done += more
                advance(more)
                if (part := 20 * done // len(questions)) > noted and (resident := memory_mb()) is not None:
                    noted = part
                    self.memory.append((doing, questions.name, done, round(resident["now"], 1)))

            yield step

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began


def _reads_as_reranker(config: CompressorConfig) -> bool:
    """Whether it reads the questions with the model, and in the way, that the baseline rerank-truncate would."""
    [first, *others] = config.chain
    return not others and first.name == "provence" and first.options.keys() <= _CHOICE


#: Options of how to choose, which change no score.
_CHOICE = frozenset({"threshold", "operating_point", "budget", "policy"})


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """ "METRIC=X" each. Raises InputError for an unknown metric and for what is no number."""
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in METRICS:
            raise InputError(f"--fail-under {text!r}: no metric {name!r}; known: {', '.join(METRICS)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise InputError(f"--fail-under {text!r}: expected METRIC=NUMBER, such as match=0.3") from None
    return limits


def failures(results: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """A line for each tested arm whose mean is under a limit, or could not be measured at all."""
    return [
        f"{row['dataset']}, {row['arm']}: {name} {mean if mean is None else round(mean, 4)} < {limit:g}"
        for row in results["rows"]
        if is_tested(row)
        for name, limit in limits.items()
        if not _reaches(mean := row["metrics"].get(name, {}).get("mean"), limit)
    ]


def _reaches(mean: float | None, limit: float) -> bool:
    return mean is not None and mean >= limit
