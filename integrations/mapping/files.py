"""The output folder: whole files only, a checkpoint for every part, and what each worker has in hand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from typer import Option

from ctxprune import __version__
from ctxprune.errors import InputError
from ctxprune.files import JSON_LINES, LOCK, only_writer, remove_matching, write_whole
from ctxprune.files import read_lines as file_lines
from ctxprune.options import Options
from ctxprune.plain import checked_whole

SUFFIXES = (*JSON_LINES, ".parquet")


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
        rows = _parquet_rows(file) if file.suffix.lower() == ".parquet" else file_lines(file)
        for number, text in rows:
            yield Line(f"{file}:{number}", f"{prefix}{number}", text)


def input_files(source: Path) -> list[Path]:
    """The file itself, or the readable files below a folder; InputError when there are none."""
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file() and _is_readable(path))
        if not files:
            raise InputError(f"{source} holds no {', '.join(SUFFIXES)} file")
        return files
    if not source.exists():
        raise InputError(f"no file or folder {source}; check the path")
    if not _is_readable(source):
        raise InputError(f"cannot tell the form of {source}; its name must end in {', '.join(SUFFIXES)}")
    return [source]


def _is_readable(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


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


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive lines that become one file of the output."""

    index: int
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        return f"part-{self.index:05d}"

    @property
    def digest(self) -> str:
        """Of the lines and what names them: a part made from other lines is made again."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines:
            for field in (line.id, line.text):
                content = field.encode("utf-8", "surrogatepass")
                digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


def parts(lines: Iterable[Line], *, part_tokens: int) -> Iterator[Part]:
    """Parts of at most `part_tokens` estimated tokens, or of one line that has more."""
    return (Part(index, tuple(group)) for index, group in enumerate(_groups(lines, part_tokens)))


def batches(part: Part, *, batch_tokens: int) -> list[range]:
    """The places of a part's lines, in batches of at most `batch_tokens` estimated tokens or of one line."""
    spans, begin = [], 0
    for group in _groups(part.lines, batch_tokens):
        spans.append(range(begin, begin + len(group)))
        begin += len(group)
    return spans


def _groups(lines: Iterable[Line], limit: int) -> Iterator[list[Line]]:
    group: list[Line] = []
    total = 0
    for line in lines:
        tokens = line.tokens
        if group and total + tokens > limit:
            yield group
            group, total = [], 0
        group.append(line)
        total += tokens
    if group:
        yield group


TaskName = Literal["compress", "embed", "scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Options):
    """The task and its options; equal work on equal lines gives equal bytes, whoever does it.

    task: "compress" writes what `ctxprune compress --batch` writes, without `seconds`; "embed" one vector a sentence of
    a passage; "scores" a keep probability for each word of a passage, by LLMLingua-2. The fields of `Options` are for
    the first task; model goes for "scores" too, language and units for "embed". encoder: as of
    `load_embedder`, for "embed". part_tokens, batch_tokens: estimated tokens of a checkpointed part, and of what a
    model is given at a time. Raises InputError for an unknown task and for sizes below 1.
    """

    model: Annotated[str | None, Option(help="Model of the compressor, or of the scores: a folder or a hub id.")] = None
    task: Annotated[
        TaskName,
        Option(help="compress; of a corpus also embed (sentence vectors), scores (words, LLMLingua-2)."),
    ] = "compress"
    encoder: Annotated[str, Option(help="Of embed: bundled, or a sentence-transformers id or path.")] = "bundled"
    part_tokens: Annotated[int, Option(help="Estimated tokens of the input that make one part.")] = 65_536
    batch_tokens: Annotated[int, Option(help="Estimated tokens that a model is given at a time.")] = 4096

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskName):
            raise InputError(f"task must be one of {', '.join(get_args(TaskName))}, got {self.task!r}")
        for name in ("part_tokens", "batch_tokens"):
            checked_whole(name, getattr(self, name), least=1)

    def settings(self) -> dict[str, Any]:
        """What must be the same when a stopped run goes on, as JSON values; a calibration by its content."""
        settings: dict[str, Any] = {"ctxprune": __version__, **asdict(self), "protect": list(self.protect)}
        settings["gap"] = None if self.gap is None else list(self.gap)
        if self.rate is None:  # folders that were begun before it could be given go on
            del settings["rate"]
        if self.calibration is not None:
            settings["calibration"] = hashlib.blake2b(_content(self.calibration), digest_size=16).hexdigest()
        return settings


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the calibration {path}: {error.strerror}; check the path") from None


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
        path = self.working / part.name
        try:
            path.write_text(json.dumps(list(places)), encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from None

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
    """So that it is there whole or not at all, whenever the process or the machine stops. Raises InputError when it
    cannot be written."""
    try:
        write_whole(path, content, unfinished=scratch / f"{path.name}.{os.getpid()}.tmp")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write {path}: {error.strerror or error}; free some space or permit it, then run the same command: "
        "finished parts stay"
    )


def _rows(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [{"line": failure.line, "error": failure.error} for failure in failures]


def _json(row: Any, *, indent: int | None = None) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, indent=indent)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
