"""Compressed request bodies: gzip and deflate, with a limit on what comes out of them."""

from __future__ import annotations

import zlib

from ctxprune.integrations.server.errors import ApiError

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
