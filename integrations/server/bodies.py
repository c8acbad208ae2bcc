"""Bodies measured before they are parsed, and parsed and checked in threads: no list costs more than its limit."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from ctxprune.integrations.server.errors import ApiError, parse_json, validation_message

#: Values in one body (each number, text, list, object and name counts), and lists or objects within each other.
MAX_VALUES, MAX_DEPTH = 200_000, 64
#: A body of no more bytes is looked at in the event loop: another thread costs more than the work.
SMALL_BODY = 8_192
#: Bytes of a value in memory besides those of its text, about.
VALUE_BYTES = 100
#: Names that an object of ours may have, where unknown ones are an error each.
MAX_FIELDS = 64
#: Entries of a list that may each be wrong; the count of others, which have limits of their own, is checked elsewhere.
ENTRIES = {"protect": 32, "messages": 10_000}

Model = TypeVar("Model", bound=BaseModel)


def measured_json(body: bytes) -> Any:
    """The body as Python values. Raises ApiError 400 for no JSON or too deep nesting, 413 for too many values."""
    check_shape(body)
    return parse_json(body)


def check_shape(body: bytes) -> None:
    """Count what stands outside the texts of a JSON body, without making a value of it."""
    quotes = body.count(b'"')
    if quotes > 4 * MAX_VALUES:
        raise _too_many(quotes // 2)
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    outside = b"".join(plain.split(b'"')[::2])
    counts = np.bincount(np.frombuffer(outside, np.uint8), minlength=128)
    values = int(counts[list(b"[{,:")].sum()) + 1
    if values > MAX_VALUES:
        raise _too_many(values)
    brackets = np.frombuffer(outside.translate(None, _NO_BRACKETS), np.uint8)
    if len(brackets):
        steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
        if int(np.cumsum(steps).max()) > MAX_DEPTH:
            raise ApiError(400, f"the body is nested too deeply: more than {MAX_DEPTH} lists or objects in each other")


def parsed_bytes(body: bytes) -> int:
    """Bytes that the values of a JSON body take, about, at most: one letter beyond those of Latin makes Python keep two
    for each letter of its text, one beyond the basic plane four."""
    letters = np.frombuffer(body, np.uint8)
    highest = int(letters.max(initial=0))
    is_wide = highest >= 0xF0 or _HIGH_SURROGATE.search(body) is not None
    width = 4 if is_wide else 2 if highest >= 0xC4 or b"\\u" in body else 1
    values = min(sum(map(body.count, (b",", b"[", b"{"))), MAX_VALUES)
    return width * int(((letters & 0xC0) != 0x80).sum()) + VALUE_BYTES * values


def _too_many(values: int) -> ApiError:
    return ApiError(413, f"the body holds about {values} values, the limit is {MAX_VALUES}; split the request")


_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def checked_counts(value: Any, limits: Mapping[str, int], *, place: str = "") -> None:
    """Look at the length of every list, and of every object of ours, before anything in it is looked at.

    limits: by the name of the list. Raises ApiError 413 for one that the operator limits, 422 for others.
    """
    if not isinstance(value, dict):
        return
    _check_fields(value, place)
    for name, entries in value.items():
        if not isinstance(entries, list) or (name not in limits and name not in ENTRIES):
            continue
        if name in limits and len(entries) > limits[name]:
            raise ApiError(413, f"{place}{name} must be at most {limits[name]}, got {len(entries)}; split the request")
        if name not in limits and len(entries) > ENTRIES[name]:
            raise ApiError(422, f"{place}{name}: at most {ENTRIES[name]} entries, got {len(entries)}")
        for at, entry in enumerate(entries):
            if name == "requests":
                checked_counts(entry, limits, place=f"requests[{at}].")
            elif isinstance(entry, dict):
                _check_fields(entry, f"{place}{name}[{at}].")


def _check_fields(value: Mapping[str, Any], place: str) -> None:
    if len(value) > MAX_FIELDS:
        raise ApiError(422, f"{place or 'body'}: at most {MAX_FIELDS} fields, got {len(value)}")


def checked_model(model: type[Model], value: Any, *, place: Sequence[str | int] = ()) -> Model:
    """The value as `model` has it. Raises ApiError 422, which names a few of the places that are wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise ApiError(422, validation_message([{**item, "loc": (*place, *item["loc"])} for item in found])) from None


ACCEPTED = ("gzip", "deflate", "identity")
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(body: bytes, coding: str, *, limit: int) -> bytes:
    """The body without its content coding, as the header Content-Encoding names it.

    Never holds more than `limit` bytes and a little. Raises ApiError 415 for another coding or several, 413 for more
    than `limit` bytes, 400 for what is not in that coding.
    """
    coding = coding.strip().lower().removeprefix("x-")
    if coding in ("", "identity") or not body:
        return body
    if coding not in ACCEPTED:
        raise ApiError(
            415,
            f"content-encoding must be one of {', '.join(ACCEPTED)}, got {coding!r:.40}; send the body without it",
            code="content_encoding",
            headers={"accept-encoding": ", ".join(ACCEPTED[:2])},
        )
    try:
        return _inflated(body, _window(body, coding), limit)
    except zlib.error:
        raise ApiError(400, f"the body is not valid {coding}") from None


def _window(body: bytes, coding: str) -> int:
    if coding == "gzip":
        return _GZIP
    # "deflate" is zlib's format, but some clients send the bare stream
    return _ZLIB if len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0 else _RAW


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    parts, size = [], 0
    while body:  # gzip may be of several members one after the other
        member = zlib.decompressobj(window)
        part = member.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise too_large(limit, "unpacked, ")
        if not member.eof:
            raise zlib.error("the stream is cut off")
        parts.append(part)
        body = member.unused_data if window == _GZIP else b""
    return b"".join(parts)


def too_large(limit: int, when: str = "") -> ApiError:
    """The refusal of a body, which names the settings. when: before the comparison, if need be."""
    return ApiError(
        413,
        f"{when}the body is larger than {limit} bytes; split the request, or raise the server's setting max_body_bytes "
        "(CTXPRUNE_MAX_BODY_BYTES), for the proxy's routes max_proxy_body_bytes (CTXPRUNE_MAX_PROXY_BODY_BYTES)",
        code="too_large",
    )
