"""Score samples as they stream by: a line each in samples.jsonl, and their metrics as columns for the statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from ctxprune.errors import InputError
from ctxprune.eval.config import NONE, Arm
from ctxprune.eval.judge import Reference
from ctxprune.eval.run.contexts import Sample
from ctxprune.eval.run.folder import Columns, ColumnWriter, to_json
from ctxprune.eval.run.rows import Statistics, rows
from ctxprune.eval.run.score import METRICS, Answer, score, score_answer
from ctxprune.result import CompressionResult
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import Extract, Span

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
        self._files = {arm.id: columns / f"{writer.sets}-{place}" for place, arm in enumerate(writer.arms)}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._open = {arm: self._stack.enter_context(ColumnWriter(path, METRICS)) for arm, path in self._files.items()}
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
        for arm, columns in self._open.items():
            columns.append(metrics.get(arm, _NOTHING))
        for sample, answer in zip(samples, compared, strict=True):
            self._writer.write_line(_line(self.dataset, sample, answer, metrics[sample.arm.id]))

    def rows(self) -> list[dict[str, Any]]:
        """The set's rows of results.json, one an arm."""
        columns = {arm: Columns(path) for arm, path in self._files.items()}
        return rows(self.dataset, self._writer.arms, columns, self._writer.statistics)

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
