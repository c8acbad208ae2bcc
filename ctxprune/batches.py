"""Cut a stream into lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order, the last one shorter; only one list is held at a time."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
