"""What a stronger pruner says of training pairs, as targets for a smaller one that may split words in other ways."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from ctxprune.errors import InputError

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher says of one pair, as probabilities.

    offsets: (n_tokens, 2) characters of the passage. keep, answer: (n_tokens,); answer is all NaN of a teacher without
    that head. rank: of the passage as a whole.
    """

    offsets: np.ndarray[Any, Any]
    keep: Floats
    answer: Floats
    rank: float

    def onto(self, offsets: np.ndarray[Any, Any], values: Floats) -> Floats:
        """(n,) the mean of `values`, one a token of the teacher, over the characters of each of another model's tokens,
        whose offsets are (n, 2); NaN where the teacher read none of them."""
        end = max(int(self.offsets.max(initial=0)), int(offsets.max(initial=0))) + 1
        count, total = np.zeros(end + 1), np.zeros(end + 1)
        for edge, sign in ((0, 1.0), (1, -1.0)):  # differences, summed up below
            known = ~np.isnan(values)
            np.add.at(count, self.offsets[known, edge], sign)
            np.add.at(total, self.offsets[known, edge], sign * values[known])
        counts, totals = (np.concatenate([[0.0], np.cumsum(np.cumsum(each)[:end])]) for each in (count, total))
        low, high = offsets[:, 0], offsets[:, 1]
        read = counts[high] - counts[low]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(read > 0, (totals[high] - totals[low]) / read, np.nan).astype(np.float32)


Lessons: TypeAlias = Mapping[bytes, Taught]


def key(question: str, title: str, text: str) -> bytes:
    """What a pair is found again by."""
    return hashlib.blake2b("\x00".join((question, title, text)).encode(errors="surrogatepass"), digest_size=16).digest()


def mixed(labels: np.ndarray[Any, Any], taught: Floats, weight: float) -> Floats:
    """(n,) targets: `weight` of the teacher's probability and the rest of the label; the label, or the teacher, alone
    where only one of them is known. labels: (n,) 0, 1 or NaN."""
    both = (1 - weight) * labels + weight * taught
    return np.where(np.isnan(taught), labels, np.where(np.isnan(labels), taught, both)).astype(np.float32)


def read_lessons(folder: str | Path) -> dict[bytes, Taught]:
    """What `teach` wrote, by `key`. Raises InputError for a folder that holds nothing of the kind."""
    lessons: dict[bytes, Taught] = {}
    for path in sorted(Path(folder).glob("*.npz")):
        lessons.update(read_file(path))
    if not lessons:
        raise InputError(
            f"{folder} holds no teacher's labels; python -m ctxprune.trainers.provence.distil --out {folder} makes them"
        )
    return lessons


def write_lessons(path: Path, lessons: Lessons) -> None:
    """All tokens one after another, and where those of each pair end."""
    each = list(lessons.values())
    made = path.with_suffix(".part")
    with made.open("wb") as file:
        np.savez_compressed(
            file,
            keys=np.frombuffer(b"".join(lessons), dtype=np.uint8).reshape(-1, 16),
            ends=np.cumsum([len(one.keep) for one in each]),
            offsets=np.concatenate([one.offsets for one in each]).astype(np.int32),
            keep=np.concatenate([one.keep for one in each]).astype(np.float16),
            answer=np.concatenate([one.answer for one in each]).astype(np.float16),
            rank=np.array([one.rank for one in each], dtype=np.float32),
        )
    made.rename(path)


def read_file(path: Path) -> dict[bytes, Taught]:
    try:
        with path.open("rb") as file, np.load(file) as held:
            keys, ends, offsets = held["keys"], held["ends"], held["offsets"]
            keep, answer, rank = held["keep"].astype(np.float32), held["answer"].astype(np.float32), held["rank"]
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and label again") from None
    starts = [0, *ends[:-1].tolist()]
    return {
        bytes(digest): Taught(offsets[low:high], keep[low:high], answer[low:high], float(probability))
        for digest, low, high, probability in zip(keys, starts, ends.tolist(), rank, strict=True)
    }
