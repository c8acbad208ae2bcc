"""The output folder: whole files only, a checkpoint for every part, and what each worker has in hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.files import LOCK, only_writer, remove_matching
from ctxprune.integrations.mapping.parts import Part
from ctxprune.integrations.mapping.work import Work

SETTINGS, FAILURES, FINISHED = "run.json", "failures.jsonl", "finished.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that was left out. line: "file:line"."""

    line: str
    error: str


@dataclass(frozen=True, slots=True)
class Record:
    """The checkpoint of a part; it is written last, so the part's files are there when it is.

    lines: how many it was made from, left-out ones included. digest: of those lines. sizes: bytes by file name.
    """

    part: int
    lines: int
    digest: str
    sizes: Mapping[str, int]
    failures: tuple[Failure, ...] = ()


class OutputFolder:
    """Safe for several workers at once, since no two write the same part; see `claimed` for several runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.working = folder / "working"

    @contextmanager
    def claimed(self, work: Work, source: Path) -> Iterator[None]:
        """Hold the folder for one run, new or gone on with.

        Raises InputError when another run is writing there, when it holds something else, or when the run that it
        holds had other settings, which it names. The hold ends with the process, however it ends.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error}; choose another output folder") from None
        with only_writer(self.folder):
            self._begin({"input": source.name, **work.settings()})
            yield

    def _begin(self, settings: dict[str, Any]) -> None:
        path = self.folder / SETTINGS
        remove_matching(self.folder, f"{SETTINGS}.*.tmp")
        if path.is_file() and any(self.checkpoints.glob("part-*.json")):
            _check_same(path, settings)
        elif path.is_file():  # nothing is done yet, so no settings bind
            _write_whole(path, _json(settings, indent=1), scratch=self.folder)
        elif others := sorted(each.name for each in self.folder.iterdir() if each.name != LOCK):
            raise InputError(
                f"{self.folder} is not empty ({others[0]}) and holds no run of ctxprune map; choose another folder"
            )
        else:
            _write_whole(path, _json(settings, indent=1), scratch=self.folder)
        (self.folder / FINISHED).unlink(missing_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self.working.mkdir(exist_ok=True)

    def done(self, part: Part) -> Record | None:
        """The checkpoint of the part, if it was made from these very lines and its files are whole."""
        record = self._read(part.name)
        if record is None or record.digest != part.digest:
            return None
        whole = all(_size(self.folder / name) == size for name, size in record.sizes.items())
        return record if whole else None

    def stale(self, part: Part) -> bool:
        """Whether there is a checkpoint, but of other lines or of files that are not whole."""
        return (self.checkpoints / f"{part.name}.json").exists() and self.done(part) is None

    def commit(self, part: Part, files: Mapping[str, bytes], failures: Sequence[Failure]) -> Record:
        """Write the part's files, then its checkpoint."""
        (self.checkpoints / f"{part.name}.json").unlink(missing_ok=True)  # of other lines: the files come first
        for suffix, content in files.items():
            _write_whole(self.folder / (part.name + suffix), content, scratch=self.working)
        sizes = {part.name + suffix: len(content) for suffix, content in files.items()}
        record = Record(part.index, len(part.lines), part.digest, sizes, tuple(failures))
        row = {"digest": record.digest, "lines": record.lines, "files": sizes, "failures": _rows(failures)}
        _write_whole(self.checkpoints / f"{part.name}.json", _json(row), scratch=self.working)
        return record

    def take_in_hand(self, part: Part, places: Sequence[int]) -> None:
        """Note which lines of the part are being worked on, for whoever finds the worker dead."""
        (self.working / part.name).write_text(json.dumps(list(places)), encoding="utf-8")

    def in_hand(self, part: Part) -> tuple[int, ...]:
        """The lines that a worker had in hand when it died; () when it had none yet."""
        try:
            return tuple(json.loads((self.working / part.name).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # ValueError: it died while it wrote the note
            return ()

    def put_down(self, part: Part) -> None:
        (self.working / part.name).unlink(missing_ok=True)

    def finish(self, part_count: int) -> list[Failure]:
        """Remove what belongs to no part of this input, and say that the run is over. Returns the left-out lines."""
        names = {f"part-{index:05d}" for index in range(part_count)}
        for path in [*self.folder.glob("part-*"), *self.checkpoints.glob("part-*")]:
            if path.name.partition(".")[0] not in names:
                path.unlink()
        records = [record for name in sorted(names) if (record := self._read(name)) is not None]
        failures = [failure for record in records for failure in record.failures]
        (self.folder / FAILURES).unlink(missing_ok=True)
        if failures:
            lines = b"".join(_json(row) for row in _rows(failures))
            _write_whole(self.folder / FAILURES, lines, scratch=self.working)
        totals = {"parts": len(records), "lines": sum(record.lines for record in records), "failures": len(failures)}
        _write_whole(self.folder / FINISHED, _json(totals), scratch=self.working)
        shutil.rmtree(self.working, ignore_errors=True)
        return failures

    def _read(self, name: str) -> Record | None:
        try:
            row = json.loads((self.checkpoints / f"{name}.json").read_text(encoding="utf-8"))
            failures = tuple(Failure(**failure) for failure in row["failures"])
            return Record(int(name.removeprefix("part-")), row["lines"], row["digest"], row["files"], failures)
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: the part is made again
            return None


def _check_same(path: Path, settings: dict[str, Any]) -> None:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); choose another folder") from None
    known = there if isinstance(there, dict) else {}
    for name in sorted(settings.keys() | known.keys()):
        if known.get(name) != settings.get(name):
            raise InputError(
                f"{path.parent} was begun with {name} = {known.get(name)!r}, now it is {settings.get(name)!r}; "
                "give the same to go on, or choose another folder"
            )


def _write_whole(path: Path, content: bytes, *, scratch: Path) -> None:
    """So that it is there whole or not at all, whenever the process or the machine stops."""
    unfinished = scratch / f"{path.name}.{os.getpid()}.tmp"
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _rows(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [{"line": failure.line, "error": failure.error} for failure in failures]


def _json(row: Any, *, indent: int | None = None) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, indent=indent)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
