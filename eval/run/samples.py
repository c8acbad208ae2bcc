"""Samples answered, scored and written as they stream by: a line each in samples.jsonl, their metrics as columns.

Each distinct prompt is answered once, remembered, and never asked again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from ctxprune.errors import InputError
from ctxprune.eval.config import NONE, Arm, GeneratorConfig, Statistics, Step
from ctxprune.eval.judge import Reference
from ctxprune.eval.run.compress import model_hash
from ctxprune.eval.run.contexts import Sample
from ctxprune.eval.run.folder import Columns, Store, key, to_json
from ctxprune.eval.run.score import METRICS, Answer, rows, score, score_answer
from ctxprune.files import batched
from ctxprune.generators import Generator, OpenAIGenerator, Reply, generated, load_generator
from ctxprune.generators.base import reply_of
from ctxprune.result import CompressionResult
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import Extract, Span

#: Answers of each run of prompts between two writes to the store.
_KEPT_AFTER = 8


class Answerer:
    """A generator whose answers are in a store; it is loaded when a prompt is new, let go at the end of a `with` block.

    A prompt counts as the same when text, model files (or endpoint), data type and length limit are the same. Answers
    are on disk batch by batch, so that an endpoint that goes down, or a killed run, costs one batch.
    """

    def __init__(self, config: GeneratorConfig, store: Store) -> None:
        self.config = config
        self._store = store
        self._generator: Generator | None = None
        self._asked: set[str] = set()
        model = str(config.model)
        # not the batch size and the order: they decide how long it takes
        self._identity = [config.kind, model, config.gguf_file, config.dtype, config.chat, config.max_new_tokens]
        self._identity.append(model_hash(Step(name=model)) if config.kind == "local" else config.base_url)
        self._identity += [f"stop {text}" for text in config.stop]

    def prepare(self, prompts: Iterable[str]) -> None:
        """Ask what the store does not know, prompts of like length together."""
        keys = {self._key(prompt): prompt for prompt in prompts}
        known = self._store.get_many(list(keys))
        # a reply that failed in an earlier run is asked for again, once in this one
        settled = {name for name in known if name in self._asked or not _reply(known[name]).fault}
        missing = [item for item in keys.items() if item[0] not in settled]
        ask = self._by_beginning if self.config.order == "beginning" else self._by_length
        for answered in ask(missing):
            self._store.put_many(answered)
            self._asked.update(answered)

    def _by_length(self, missing: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Rows for the store by key, a batch of prompts of like length at a time."""
        for batch in batched(sorted(missing, key=lambda item: len(item[1])), self.config.batch_size):
            began = time.perf_counter()
            replies = self._replies([prompt for _, prompt in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            yield {name: asdict(reply) | {"seconds": seconds} for (name, _), reply in zip(batch, replies, strict=True)}

    def _by_beginning(self, missing: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Rows for the store by key: as many runs of prompts in their alphabet's order as requests may be in flight."""
        self._loaded()  # not in several threads at once
        ordered = sorted(missing, key=lambda item: item[1])
        runs = list(batched(ordered, max(1, math.ceil(len(ordered) / self.config.batch_size))))
        with ThreadPoolExecutor(self.config.batch_size, thread_name_prefix="ctxprune-runs") as pool:
            for first in range(0, max(map(len, runs), default=0), _KEPT_AFTER):
                parts = [run[first : first + _KEPT_AFTER] for run in runs]
                replies = pool.map(self._one_by_one, parts)
                items = [item for part in parts for item in part]
                yield {
                    name: asdict(reply) | {"seconds": math.nan}
                    for (name, _), reply in zip(items, chain.from_iterable(replies), strict=True)
                }

    def _one_by_one(self, part: Sequence[tuple[str, str]]) -> list[Reply]:
        return [reply for _, prompt in part for reply in self._replies([prompt])]

    def _replies(self, prompts: Sequence[str]) -> list[Reply]:
        return generated(self._loaded(), prompts, max_new_tokens=self.config.max_new_tokens)

    def answers(self, prompts: Sequence[str]) -> list[Answer]:
        """The answers to prepared prompts, in order; seconds: a prompt's share of its batch of equally long prompts,
        NaN where prompts were asked by their beginnings."""
        keys = [self._key(prompt) for prompt in prompts]
        rows: Mapping[str, dict[str, object]] = self._store.get_many(keys)
        if lost := [prompt for name, prompt in zip(keys, prompts, strict=True) if name not in rows]:
            raise InputError(f"the cache lost the answer to {lost[0]!r:.80}; run again to ask for it anew")
        replies = [_reply(rows[name]) for name in keys]
        seconds = [float(str(rows[name]["seconds"])) for name in keys]
        return [
            Answer(text=reply.text, seconds=spent, fault=reply.fault, model=reply.model)
            for reply, spent in zip(replies, seconds, strict=True)
        ]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """As a generator of its own, so that a judge's verdicts are remembered too; the limit is the settings' own."""
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        self.prepare(prompts)
        return [Reply(answer.text, answer.fault) for answer in self.answers(prompts)]

    @property
    def name(self) -> str:
        return str(self.config.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the model, or of the connections."""
        if isinstance(self._generator, OpenAIGenerator):
            self._generator.close()
        self._generator = None

    def _key(self, prompt: str) -> str:
        return key("answer", self._identity, prompt)

    def _loaded(self) -> Generator:
        if self._generator is None:
            self._generator = configured(self.config)
        return self._generator


def _reply(row: Mapping[str, object]) -> Reply:
    """What the store remembers; an entry of earlier versions is the model's whole text."""
    if "fault" not in row:
        return reply_of(str(row["text"]))
    return Reply(str(row["text"]), str(row["fault"]), bool(row["cut"]), str(row.get("model", "")))


def configured(config: GeneratorConfig) -> Generator:
    """The generator of the settings. Raises InputError when the environment lacks the key."""
    model = str(config.model)
    if config.kind == "openai":
        return load_generator(
            model,
            base_url=str(config.base_url),
            api_key_env=config.api_key_env,
            concurrency=config.batch_size,
            chat=config.chat,
            stop=config.stop,
            timeout=config.timeout,
        )
    names = ("device", "dtype", "batch_size", "chat", "gguf_file")
    return load_generator(model, **{name: getattr(config, name) for name in names})


def tokenizer_of(config: GeneratorConfig) -> str:
    """What counts tokens as this generator does, for `load_counter`; the estimate where that cannot be known."""
    folder = Path(str(config.model)).expanduser()
    if config.kind != "local" or config.gguf_file is not None:
        return "default"
    return str(folder) if (folder / "tokenizer.json").is_file() or not folder.exists() else "default"


_WORDS = WordCounter()
_NOTHING = dict.fromkeys(METRICS, math.nan)


class SampleWriter:
    """Writes samples.jsonl into a run folder, whole or not at all. Use as a context manager, a set after the other."""

    def __init__(self, folder: Path, arms: Sequence[Arm], statistics: Statistics) -> None:
        self.path = folder / "samples.jsonl"
        self.arms = tuple(arms)
        self.statistics = statistics
        self.sets = 0
        self._part = folder / "samples.jsonl.part"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._file = self._stack.enter_context(self._part.open("w", encoding="utf-8"))
            self._columns = Path(
                self._stack.enter_context(TemporaryDirectory(prefix=".columns-", dir=self.path.parent))
            )
        except OSError as error:
            raise self._failed(error) from None
        return self

    def write_set(self, dataset: str, *, gold_known: bool) -> SetWriter:
        """For the samples of one set: a context manager whose `rows` are known once it has closed."""
        self.sets += 1
        return SetWriter(self, dataset, self._columns, gold_known=gold_known)

    def write_line(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(to_json(dict(line)) + "\n")
        except OSError as error:
            raise self._failed(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
            if kind is None:
                self._part.replace(self.path)
        except OSError as failure:
            raise self._failed(failure) from None

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"cannot write {self._part}: {error}; free some space and run again, the cache is kept")


class SetWriter:
    """Scores the samples of one set; a question that an arm cannot serve counts as not measured there."""

    def __init__(self, writer: SampleWriter, dataset: str, columns: Path, *, gold_known: bool) -> None:
        self.dataset = dataset
        self.gold_known = gold_known
        self._writer = writer
        # by number: an arm's name may hold what a file's may not
        self._columns = {
            arm.id: Columns(columns / f"{writer.sets}-{place}", METRICS) for place, arm in enumerate(writer.arms)
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for columns in self._columns.values():
            self._stack.enter_context(columns)
        return self

    def add(self, samples: Sequence[Sample], answers: Sequence[Answer] | None) -> None:
        """All samples of one question, with what the generator answered to each, if there is one."""
        compared = _beside_no_context(samples, answers)
        reference = Reference.of(samples[0].question, split=split_sentences, counter=_WORDS)
        metrics = {
            sample.arm.id: score(
                reference, sample.result, answer, gold_known=self.gold_known, compress_seconds=sample.seconds
            )
            for sample, answer in zip(samples, compared, strict=True)
        }
        for arm, columns in self._columns.items():
            columns.append(metrics.get(arm, _NOTHING))
        for sample, answer in zip(samples, compared, strict=True):
            self._writer.write_line(_line(self.dataset, sample, answer, metrics[sample.arm.id]))

    def rows(self) -> list[dict[str, Any]]:
        """The set's rows of results.json, one an arm."""
        return rows(self.dataset, self._writer.arms, self._columns, self._writer.statistics)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _beside_no_context(samples: Sequence[Sample], answers: Sequence[Answer] | None) -> list[Answer | None]:
    """The answers with what the one without a context was worth; None each without a generator."""
    if answers is None:
        return [None] * len(samples)
    alone = _match_alone(samples, answers)
    return [replace(answer, match_without_context=alone) for answer in answers]


def _match_alone(samples: Sequence[Sample], answers: Sequence[Answer]) -> float:
    """`match` of the answer without a context; NaN when that arm is not in the run."""
    for sample, answer in zip(samples, answers, strict=True):
        if sample.arm == Arm(NONE):
            return score_answer(sample.question, answer)["match"]
    return math.nan


def _line(dataset: str, sample: Sample, answer: Answer | None, metrics: Mapping[str, float]) -> dict[str, Any]:
    tested = sample.arm.matched_to is None and not sample.arm.reference
    return {
        "dataset": dataset,
        "arm": sample.arm.id,
        "settings": dict(sample.arm.settings),
        **(sample.result.to_dict() if tested else _stretched(sample.result)),
        "answers": list(sample.question.answers),
        "answerable": sample.question.answerable,
        "prediction": None if answer is None or answer.fault else answer.text,
        **({"failure": answer.fault} if answer is not None and answer.fault else {}),
        "metrics": dict(metrics),
    }


def _stretched(result: CompressionResult) -> dict[str, Any]:
    """The result with neighbouring units of one fate as one span: baselines cut by the word, which would be long."""
    row = result.to_dict()
    extracts = {piece.index: piece for piece in result.after.pieces if isinstance(piece, Extract)}
    for document in row["documents"]:
        if extract := extracts.get(document["index"]):
            document["kept_spans"] = _stretches(extract, kept=True)
            document["removed_spans"] = _stretches(extract, kept=False)
    return row


def _stretches(extract: Extract, *, kept: bool) -> list[dict[str, Any]]:
    runs = groupby(zip(extract.units, extract.kept, strict=True), key=lambda pair: pair[1])
    return [_span([unit for unit, _ in run]) for flag, run in runs if flag is kept]


def _span(units: Sequence[Span]) -> dict[str, Any]:
    return {"start": units[0].start, "end": units[-1].end, "score": max(unit.score for unit in units)}
