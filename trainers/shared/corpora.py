"""Texts to train on, out of any corpus: JSONL with "text", question-answering files, plain text, or a data set id."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.data.questions import Question, question_from_row
from ctxprune.errors import InputError
from ctxprune.files import is_json_lines, open_text, read_rows

T = TypeVar("T")


def read_texts(source: str, *, split: str = "train", column: str = "text") -> Iterator[str]:
    """The texts of `source` in order, each once, blank ones left out.

    source: a .jsonl or .jsonl.gz file whose rows have `column`, or are questions with "documents"; any other file is
    plain text, its texts parted by blank lines; what is no file is the id of a data set, of which `split` is streamed.
    Raises InputError when the source cannot be read or a row has no text.
    """
    seen: set[int] = set()
    for text in _texts(source, split, column):
        if text.strip() and hash(text) not in seen:
            seen.add(hash(text))
            yield text


def _texts(source: str, split: str, column: str) -> Iterator[str]:
    path = Path(source).expanduser()
    if not path.is_file():
        yield from _data_set(source, split, column)
    elif is_json_lines(path.name):
        for number, row in read_rows(path):
            yield from _row_texts(row, column, f"{path}:{number}")
    else:
        yield from _paragraphs(path)


def _row_texts(row: dict[str, Any], column: str, place: str) -> Iterator[str]:
    if isinstance(row.get(column), str):
        yield row[column]
    elif "documents" in row:
        yield from (item.document.text for item in question_from_row(row, default_id=place).documents)
    else:
        raise InputError(f"{place}: no string {column!r} and no 'documents'; name the field of the text with --column")


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    try:
        with open_text(path) as file:
            for line in [*file, ""]:
                if line.strip():
                    lines.append(line)
                elif lines:
                    yield "".join(lines).strip()
                    lines = []
            if lines:
                yield "".join(lines).strip()
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}; it must be UTF-8 text or JSONL") from None


def _data_set(source: str, split: str, column: str) -> Iterator[str]:
    from datasets import load_dataset

    try:
        rows = iter(load_dataset(source, split=split, streaming=True))
        first = list(islice(rows, 1))  # only then is anything read of it
    except Exception as error:  # no such file, id, split or network: each its own type in several libraries
        raise InputError(f"{source} is no file and cannot be loaded as a data set: {error}") from error
    for number, row in enumerate(chain(first, rows)):
        yield from _row_texts(dict(row), column, f"{source}[{number}]")


@dataclass(frozen=True, slots=True)
class Source:
    """One training file: how many of its questions to draw, and how many times to go over them."""

    path: str
    limit: int | None = None
    repeat: int = 1

    @classmethod
    def parse(cls, text: str) -> Source:
        path, *numbers = text.split(":")
        try:
            limit, repeat = [int(number) if number else 0 for number in [*numbers, "", ""][:2]]
        except ValueError:
            raise InputError(f"--data takes FILE[:LIMIT[:REPEAT]] with whole numbers, got {text!r}") from None
        return cls(path, limit or None, repeat or 1)

    def key(self, seed: int) -> str:
        """What a draw from this file is seeded with, so that each file's draw is its own and the same everywhere."""
        return f"{seed} {Path(self.path).name}"

    def draw(self, items: Iterable[T], key: str) -> list[T]:
        """LIMIT of the items in random order, the same for the same key; all in their own order where no more exist."""
        everything = list(items)
        if self.limit is None or self.limit >= len(everything):
            return everything
        return drawn(everything, self.limit, key)


def drawn(items: Sequence[T], count: int, key: int | str) -> list[T]:
    """At most `count` of the items in random order, the same for the same key."""
    return random.Random(key).sample(items, min(count, len(items)))


def held_out(question: Question, share: float) -> bool:
    """Whether a question is kept from training, for the fusion fit: by a hash of its first gold passage's text, so that
    all questions on one passage fall on the same side."""
    if share <= 0:
        return False
    gold = next((item for item in question.documents if item.is_gold), None)
    key = gold.document.text if gold else question.text
    return random.Random(key).random() < share
