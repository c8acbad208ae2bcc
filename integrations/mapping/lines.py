"""The lines of the input: JSONL as it stands, Parquet rows as the same JSON; in order, never all in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.qa import read_lines as file_lines

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Line:
    """One JSON object, not yet parsed. place: "file:line", for errors. id: what names it when it has no id itself."""

    place: str
    id: str
    text: str

    @property
    def tokens(self) -> int:
        """An estimate that needs no tokenizer: a quarter of the UTF-8 bytes."""
        return len(self.text.encode("utf-8", "surrogatepass")) // 4 + 1


def read_lines(source: Path) -> Iterator[Line]:
    """Every line that is not blank of a file, or of a folder's files in the order of their names.

    A line of a single file is named by its number from 1, as in `ctxprune compress --batch`, one of a folder
    "file:number". Raises InputError for a path that cannot be read, naming it.
    """
    for file in input_files(source):
        prefix = "" if file == source else f"{file.relative_to(source).as_posix()}:"
        rows = _parquet_rows(file) if file.suffix == ".parquet" else file_lines(file)
        for number, text in rows:
            yield Line(f"{file}:{number}", f"{prefix}{number}", text)


def input_files(source: Path) -> list[Path]:
    """The file itself, or the readable files below a folder; InputError when there are none."""
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES))
        if not files:
            raise InputError(f"{source} holds no {', '.join(SUFFIXES)} file")
        return files
    if not source.exists():
        raise InputError(f"no file or folder {source}; check the path")
    if not source.name.endswith(SUFFIXES):
        raise InputError(f"cannot tell the form of {source}; its name must end in {', '.join(SUFFIXES)}")
    return [source]


def _parquet_rows(path: Path) -> Iterator[tuple[int, str]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    # dates and the like can stand only in fields that nobody reads here
                    yield number, json.dumps(row, ensure_ascii=False, default=str)
    except (OSError, ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from None
