"""Answers as JSON, written in pieces: spans never become objects, and no other thread waits long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ctxprune.integrations.server.errors import json_bytes
from ctxprune.types import Extract, Span

#: Spans that are written before other threads may have a turn, about a millisecond.
PIECE_SPANS = 1000


def object_bytes(row: Mapping[str, Any], extracts: Mapping[int, Extract]) -> Iterator[bytes]:
    """`row` with `kept_spans` and `removed_spans` in each of its documents that `extracts` has, by index."""
    separator = b"{"
    for name, value in row.items():
        yield separator + json_bytes(name) + b":"
        separator = b","
        if name == "documents":
            yield from array_bytes(_document(document, extracts.get(document["index"])) for document in value)
        else:
            yield json_bytes(value)
    yield b"}"


def array_bytes(entries: Iterator[Iterator[bytes]]) -> Iterator[bytes]:
    separator = b"["
    for entry in entries:
        yield separator
        yield from entry
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def _document(document: Mapping[str, Any], extract: Extract | None) -> Iterator[bytes]:
    whole = json_bytes(document)
    if extract is None:
        yield whole
        return
    yield whole[:-1] + b',"kept_spans":'
    yield from _spans(extract.kept_units())
    yield b',"removed_spans":'
    yield from _spans(extract.removed_units())
    yield b"}"


def _spans(units: Iterator[Span]) -> Iterator[bytes]:
    separator = b"["
    while piece := list(islice(units, PIECE_SPANS)):
        yield separator + ",".join(map(_span, piece)).encode()
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def _span(unit: Span) -> str:
    score = repr(float(unit.score)) if math.isfinite(unit.score) else "null"
    return f'{{"start":{unit.start},"end":{unit.end},"score":{score}}}'
