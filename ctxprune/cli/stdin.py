"""Standard input in the place of a file, which "-" names: read whole, or by the line as it comes."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.files import json_object, read_lines, split_lines

STANDARD_INPUT = Path("-")
_GZIPPED = b"\x1f\x8b"


def whole_input() -> bytes:
    """All of standard input, gunzipped. Raises InputError for none."""
    content = gunzipped(sys.stdin.buffer.read(), "standard input")
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise _nothing()
    return content


def input_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) for every line that is not blank, of a file or of standard input.

    Raises InputError as `read_lines` does, and for a standard input without any.
    """
    if path != STANDARD_INPUT:
        yield from ((f"{path}:{number}", line) for number, line in read_lines(path))
        return
    empty = True
    for number, line in split_lines(_stream(), "stdin"):
        empty = False
        yield f"stdin:{number}", line
    if empty:
        raise _nothing()


def input_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for every line of JSON lines; InputError names a bad line."""
    for place, line in input_lines(path):
        yield place, json_object(line, place)


def gunzipped(content: bytes, place: str) -> bytes:
    """What gzip packed, told by its first bytes; anything else as it is."""
    if not content.startswith(_GZIPPED):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {place} as gzip: {error}") from None


def _stream() -> Iterator[bytes]:
    """The lines as they come; what is packed comes when all of it is there."""
    first = sys.stdin.buffer.readline()
    if first.startswith(_GZIPPED):
        yield from io.BytesIO(gunzipped(first + sys.stdin.buffer.read(), "standard input"))
        return
    yield first
    yield from sys.stdin.buffer


def _nothing() -> InputError:
    return InputError("standard input is empty; pipe a text into the command, or name files")
