"""The errors that callers see: `{error, error_type}` on our routes, OpenAI's shape on those of the proxy.

400 the body is no JSON; 401 no valid key; 404/405 no such route; 408 the body came too slowly; 413 too large; 422 a
wrong value; 424 the model failed; 429 overloaded (with Retry-After); 502 upstream failed; 503 not ready, or no upstream
configured; 504 too slow. Messages never hold paths or stack traces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

#: Routes whose callers are clients of Anthropic, and those of OpenAI's clients.
ANTHROPIC_PATH = "/v1/messages"
PROXY_PATHS = (
    ANTHROPIC_PATH,
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/audio",
    "/v1/images",
    "/v1/files",
    "/v1/uploads",
    "/v1/batches",
    "/v1/vector_stores",
    "/v1/fine_tuning",
)

_TYPES = {
    401: ("Unauthorized", "authentication_error"),
    404: ("NotFound", "invalid_request_error"),
    405: ("NotFound", "invalid_request_error"),
    408: ("Timeout", "timeout"),
    424: ("Backend", "api_error"),
    429: ("Overloaded", "rate_limit_error"),
    500: ("Internal", "api_error"),
    502: ("Backend", "api_error"),
    503: ("Unhealthy", "api_error"),
    504: ("Timeout", "timeout"),
}


class ApiError(Exception):
    """An answer other than 200. message: for the caller. retry_after: seconds, for 429 and 503."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after
        self.headers = dict(headers or {})

    @property
    def error_type(self) -> str:
        return _TYPES.get(self.status, ("Validation", ""))[0]


def error_response(path: str, error: ApiError) -> Response:
    """The error in the shape that callers of `path` expect."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_response(error_body(path, error), status=error.status, headers=headers)


def error_body(path: str, error: ApiError) -> dict[str, Any]:
    if not is_proxy(path):
        return {"error": error.message, "error_type": error.error_type}
    kind = _TYPES.get(error.status, ("", "invalid_request_error"))[1]
    if path.startswith(ANTHROPIC_PATH):
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}


def is_proxy(path: str) -> bool:
    return any(path == known or path.startswith(known + "/") for known in PROXY_PATHS)


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; lone surrogates, which UTF-8 cannot hold, make the whole ASCII with escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, dict(headers or {}), "application/json")


def parse_json(body: bytes, *, unique: bool = False) -> Any:
    """JSON without NaN and Infinity, which are not JSON. Raises ApiError 400 for anything else.

    unique: refuse two fields of one name in an object too, of which Python would take the last without a word.
    """
    hook = _unique if unique else None
    try:
        return json.loads(body, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=hook)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise ApiError(400, message) from None
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise ApiError(400, f"the body is not usable JSON: {str(error).split(';')[0]}") from None


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):  # it could not be written as JSON again
        raise ValueError(f"{literal[:40]} is too large a number")
    return number


def _unique(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict[str, Any]()
    for name, value in fields:
        if name in values:
            raise ValueError(f"the field {name[:60]!r} stands twice in one object")
        values[name] = value
    return values


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def validation_message(errors: Sequence[Mapping[str, Any]]) -> str:
    """pydantic's complaints as one line: where, and what is wrong; the values themselves are not repeated."""
    shown = [f"{_place(error['loc'])}: {error['msg'].removeprefix('Value error, ')}" for error in errors[:5]]
    rest = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
    return "; ".join(shown) + rest


def _place(loc: Sequence[str | int]) -> str:
    place = ""
    for part in loc[1:] if loc[:1] == ("body",) else loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in ("as_text", "as_object", "as_tei", "as_jina", "as_documents", "as_messages"):  # tags
            named = part[:60] or '""'
            place += f".{named}" if place else named
    return place or "body"
