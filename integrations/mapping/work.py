"""What is done with every line, as a value that travels to the workers and stands in the output folder."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ctxprune import __version__
from ctxprune.errors import InputError
from ctxprune.select import OnEmpty, Order
from ctxprune.text import UnitKind

TaskName = Literal["compress", "embed", "scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The task and its options; equal work on equal lines gives equal bytes, whoever does it.

    task: "compress" writes what `ctxprune compress --batch` writes, without `seconds`; "embed" one vector a sentence of
    a passage; "scores" a keep probability for each word of a passage, by LLMLingua-2. compressor to elision: as of
    `ctxprune compress`, for the first task; model goes for "scores" too, language and units for "embed". encoder: as of
    `load_embedder`, for "embed". part_tokens, batch_tokens: estimated tokens of a checkpointed part, and of what a
    model is given at a time. Raises InputError for an unknown task and for sizes below 1.
    """

    task: TaskName = "compress"
    compressor: str = "provence"
    model: str | None = None
    threshold: float | None = None
    operating_point: str | None = None
    budget: int | None = None
    calibration: str | None = None
    tokenizer: str = "default"
    protect: tuple[str, ...] = ()
    keep_title: bool = True
    min_keep: int = 0
    floor: float | None = None
    top_p: float | None = None
    gap: tuple[int, int] | None = None
    companions: bool | None = None
    on_empty: OnEmpty = "drop"
    order: Order = "document"
    language: str | None = None
    units: UnitKind | None = None
    elision: str = ""
    encoder: str = "bundled"
    part_tokens: int = 65_536
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskName):
            raise InputError(f"task must be one of {', '.join(get_args(TaskName))}, got {self.task!r}")
        for name in ("part_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """What must be the same when a stopped run goes on, as JSON values; a calibration by its content."""
        settings: dict[str, Any] = {"ctxprune": __version__, **asdict(self), "protect": list(self.protect)}
        settings["gap"] = None if self.gap is None else list(self.gap)
        if self.calibration is not None:
            settings["calibration"] = hashlib.blake2b(_content(self.calibration), digest_size=16).hexdigest()
        return settings


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the calibration {path}: {error.strerror}; check the path") from None
