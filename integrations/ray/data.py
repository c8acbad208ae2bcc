"""Compress the rows of a Ray Data set: an actor loads the model once and adds a column of results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from ctxprune.errors import InputError
from ctxprune.integrations.mapping.tasks import CompressTask
from ctxprune.integrations.mapping.work import Work

#: The column that is added: one result a row, as `ctxprune map` writes it.
RESULT = "ctxprune"


class CompressBatch:
    """For `Dataset.map_batches(CompressBatch, fn_constructor_kwargs={...}, batch_format="pyarrow")`.

    options: the fields of `Work`.
    """

    def __init__(self, **options: Any) -> None:
        self.task = CompressTask(Work(**options))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with one more column, JSON. Raises InputError for a row without a question or documents."""
        contexts = []
        for place, row in enumerate(batch.to_pylist()):
            try:
                contexts.append(self.task.read(row, name=str(place)))
            except InputError as error:
                raise InputError(f"row {place} of a batch, {json.dumps(row, default=str):.120}: {error}") from None
        results = [line.decode("utf-8").rstrip("\n") for line in self.task.run(contexts)]
        return batch.append_column(RESULT, pa.array(results, pa.string()))


def compress_dataset(dataset: Dataset, work: Work, *, workers: int = 1, batch_rows: int = 32) -> Dataset:
    """The rows, `{"question" | "query", "documents"}` each, with the column `ctxprune` added; lazy, as Ray Data is.

    Unlike `map_file` it promises nothing about order, and what happens to a dead worker is up to Ray Data. A row
    without an id is named by its place in its batch. Raises InputError for another task than "compress" and for
    sizes below 1.
    """
    if work.task != "compress":
        raise InputError(f"compress_dataset does the task 'compress' only, got {work.task!r}; use map_file")
    for name, value in (("workers", workers), ("batch_rows", batch_rows)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    return dataset.map_batches(
        CompressBatch,
        fn_constructor_kwargs=asdict(work),
        compute=ActorPoolStrategy(size=workers),
        batch_format="pyarrow",
        batch_size=batch_rows,
        num_cpus=1,
    )
