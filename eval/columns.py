"""Metric values of all samples of one dataset and arm, on disk: written row by row, read one metric at a time.

A file is one line of JSON, `{"metrics": [name, ...]}`, padded to whole 8 bytes, then rows of little-endian float64. So
100,000 samples of ten arms never sit in memory together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError

Array = npt.NDArray[np.float64]

_BYTES = 8


class ColumnWriter:
    """Appends rows in a `with` block. The file takes its name when the block ends well; before, and after an error, it
    is `<name>.part` or nothing, so a half-written file is never read. Raises InputError when the disk refuses.
    """

    def __init__(self, path: str | Path, metrics: Sequence[str]) -> None:
        self.path = Path(path)
        self.metrics = tuple(metrics)
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise InputError(f"columns need distinct metric names, got {list(self.metrics)}")
        self._part = self.path.with_name(self.path.name + ".part")

    def __enter__(self) -> Self:
        header = json.dumps({"metrics": self.metrics}).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
            self._file.write(header + b" " * (-(len(header) + 1) % _BYTES) + b"\n")
        except OSError as error:
            raise self._failed(error) from None
        return self

    def append(self, values: Mapping[str, float]) -> None:
        """One row. Raises InputError for a missing or unknown metric."""
        if values.keys() != set(self.metrics):
            odd = sorted(values.keys() ^ set(self.metrics))
            raise InputError(f"{self.path}: a row must have exactly the metrics of the file; {odd} differ")
        try:
            self._file.write(np.array([values[name] for name in self.metrics], dtype="<f8").tobytes())
        except OSError as error:
            raise self._failed(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            try:
                self._file.close()
            finally:
                self._part.unlink(missing_ok=True)
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
        except OSError as failure:
            raise self._failed(failure) from None

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"cannot write {self.path}: {error}; make room or choose another folder, then run again")


class Columns:
    """Reads what a `ColumnWriter` wrote. Raises InputError when the file is missing, foreign or cut short."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                header = file.readline()
            size = self.path.stat().st_size - len(header)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error}; run the benchmark again") from None
        self.metrics = _names(header, self.path)
        self._offset = len(header)
        self._rows, rest = divmod(size, _BYTES * len(self.metrics))
        if rest:
            raise InputError(f"{self.path} ends in the middle of a row of {len(self.metrics)} metrics; run it again")

    def __len__(self) -> int:
        return self._rows

    def column(self, metric: str) -> Array:
        """(rows,) values of one metric, NaN = not measurable. Raises InputError for a metric that the file lacks."""
        if metric not in self.metrics:
            raise InputError(f"{self.path} has no metric {metric!r}; it has {', '.join(self.metrics)}")
        if not self._rows:  # an empty file cannot be mapped
            return np.empty(0)
        shape = (self._rows, len(self.metrics))
        table = np.memmap(self.path, dtype="<f8", mode="r", offset=self._offset, shape=shape)
        return np.array(table[:, self.metrics.index(metric)], dtype=np.float64)


def _names(header: bytes, path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(header)["metrics"]
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not names or len(header) % _BYTES:
        raise InputError(f"{path} is not a file of metric columns; run the benchmark again")
    return tuple(names)
