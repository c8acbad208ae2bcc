"""What a worker does with a part, on whatever engine it runs: read the lines, compute by batches, write the files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ctxprune.data.corpus import corpus_document
from ctxprune.data.questions import question_from_row
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.files import json_object
from ctxprune.integrations.mapping.files import Failure, OutputFolder, Part, Record, Work, batches
from ctxprune.models.sentence_encoders import load_embedder
from ctxprune.pipeline import require_query
from ctxprune.text import checked_units, split_sentences
from ctxprune.text.language import checked_language
from ctxprune.text.normal import normalise
from ctxprune.types import Context, Document, Span, about_of

Row = dict[str, Any]


class Task(Protocol):
    """Holds the loaded model. Outputs of a batch do not depend on how the lines were batched."""

    def read(self, row: Row, *, name: str) -> Any:
        """The item of one row; name: its id when it has none. InputError names the field that is wrong."""
        ...

    def run(self, items: Sequence[Any]) -> list[Any]:
        """One output an item, in order."""
        ...

    def files(self, outputs: Iterable[Any]) -> dict[str, bytes]:
        """What a part with these outputs becomes: content by suffix."""
        ...


def open_task(work: Work) -> Task:
    """Load the model. Raises what `ctxprune.load`, `load_counter` and `load_embedder` raise."""
    if work.task == "compress":
        return CompressTask(work)
    return EmbedTask(work) if work.task == "embed" else ScoreTask(work)


class CompressTask:
    """Questions with their documents, or passages for a compressor that needs no question; a result a line."""

    def __init__(self, work: Work) -> None:
        self.pipeline = work.pipeline()
        self.needs_query = any(about_of(compressor).needs_query for compressor in self.pipeline.compressors)

    def read(self, row: Row, *, name: str) -> Context:
        if "documents" not in row and ("text" in row or "contents" in row):
            document = passage(row, name=name)
            context = Context.of(row.get("question") or row.get("query") or "", [document], id=document.id)
        else:
            question = question_from_row(row, default_id=name)
            context = Context.of(question.text, [each.document for each in question.documents], id=question.id)
        if self.needs_query:
            require_query(context)
        return context

    def run(self, items: Sequence[Context]) -> list[bytes]:
        rows = [result.to_dict() for result in self.pipeline.run(items)]
        # seconds differ from run to run, and these files must not
        return [_json_line({key: value for key, value in row.items() if key != "seconds"}) for row in rows]

    def files(self, outputs: Iterable[bytes]) -> dict[str, bytes]:
        return {".jsonl": b"".join(outputs)}


@dataclass(frozen=True, slots=True)
class SentenceVectors:
    """vectors: (sentences, dimension) float32, each of length one. spans: characters of the passage's text."""

    id: str
    spans: tuple[Span, ...]
    vectors: npt.NDArray[np.float32]


class EmbedTask:
    """Passages to one vector a sentence: `.npy` (sentences, dimension) float32, `.ids.jsonl` says whose each row is."""

    def __init__(self, work: Work) -> None:
        self.embedder = load_embedder(work.encoder)
        self.language, self.units = checked_language(work.language), checked_units(work.units or "auto")

    def read(self, row: Row, *, name: str) -> Document:
        return passage(row, name=name)

    def run(self, items: Sequence[Document]) -> list[SentenceVectors]:
        spans = [tuple(split_sentences(item.text, language=self.language, units=self.units)) for item in items]
        texts = [
            sentence
            for item, mine in zip(items, spans, strict=True)
            for sentence in normalise(item.text).read([(span.start, span.end) for span in mine])
        ]
        vectors = self.embedder.embed(texts)
        ends = np.cumsum([len(mine) for mine in spans])
        return [
            SentenceVectors(item.id, mine, vectors[end - len(mine) : end])
            for item, mine, end in zip(items, spans, ends, strict=True)
        ]

    def files(self, outputs: Iterable[SentenceVectors]) -> dict[str, bytes]:
        passages = list(outputs)
        vectors = [np.zeros((0, self.embedder.dimension), np.float32), *(each.vectors for each in passages)]
        array = io.BytesIO()
        np.save(array, np.concatenate(vectors), allow_pickle=False)
        ids = [
            _json_line({"id": each.id, "start": span.start, "end": span.end})
            for each in passages
            for span in each.spans
        ]
        return {".npy": array.getvalue(), ".ids.jsonl": b"".join(ids)}


class ScoreTask:
    """Passages to `{"id", "starts", "ends", "scores"}` a line: words by characters, P(keep) to four digits."""

    def __init__(self, work: Work) -> None:
        from ctxprune.compressors.llmlingua.compressor import llmlingua2

        self.compressor = llmlingua2() if work.model is None else llmlingua2(model=work.model)

    def read(self, row: Row, *, name: str) -> Document:
        return passage(row, name=name)

    def run(self, items: Sequence[Document]) -> list[bytes]:
        words = self.compressor.words([item.text for item in items])
        return [
            _json_line(
                {
                    "id": item.id,
                    "starts": each.starts.tolist(),
                    "ends": each.ends.tolist(),
                    "scores": np.round(each.scores, 4).tolist(),
                }
            )
            for item, each in zip(items, words, strict=True)
        ]

    def files(self, outputs: Iterable[bytes]) -> dict[str, bytes]:
        return {".jsonl": b"".join(outputs)}


def passage(row: Row, *, name: str) -> Document:
    """One passage of a corpus, `{"id"?, "text" | "contents", "title"?}`; InputError names the field that is wrong."""
    if "documents" in row and "text" not in row and "contents" not in row:
        raise InputError("field 'text' (or 'contents') is missing: this task takes passages, not questions")
    named = row if row.get("id") is not None or row.get("_id") is not None else {**row, "id": name}
    return corpus_document(named, "passage")


def _json_line(row: Row) -> bytes:
    """UTF-8; lone surrogates are escaped as JSON wants it."""
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


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
    """Loads the model once, then makes parts. A failure to load is no death, but the answer to whatever it is given."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work, self.output, self.failure = work, OutputFolder(folder), ""
        try:
            self.task: Task = open_task(work)
        except Exception as error:
            self.failure = describe(error)

    def attempt(self, job: Job) -> Reply:
        """Make the part and say what came of it; raises nothing."""
        if self.failure:
            return Failed(self.failure)
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
            return self.task.read(json_object(line.text), name=line.id)
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
