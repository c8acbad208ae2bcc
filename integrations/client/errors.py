"""What goes wrong between a program and its sidecar.

CtxpruneError
└── SidecarError            status, error_type and request id as the server gave them
    ├── NoAnswerError       unreachable, broken off, or too slow
    ├── RefusedError        the request is wrong or too large: 400, 404, 405, 413, 415, 422 (also a ValueError)
    ├── UnauthorizedError   no valid key: 401, or 403 of a gateway
    ├── OverloadedError     too much is waiting or the model still loads: 429, 503
    └── SidecarFailedError  the server failed (408, 424, 5xx), or what answered is no sidecar
"""

from __future__ import annotations

import json

from ctxprune.errors import CtxpruneError


class SidecarError(CtxpruneError):
    """status: of the answer, None without one. error_type: the server's word, such as "Validation"; "" without one.

    request_id: as in the server's log. retry_after: seconds to wait, where the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_type: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.request_id = request_id
        self.retry_after = retry_after


class NoAnswerError(SidecarError):
    """The sidecar was not reached, broke off, or took longer than `timeout`."""


class RefusedError(SidecarError, ValueError):
    """The server takes no such request; sending it again would not help."""


class UnauthorizedError(SidecarError):
    """The server wants a key, or another one."""


class OverloadedError(SidecarError):
    """The server takes no more now, also after the client's own retries."""


class SidecarFailedError(SidecarError):
    """The server could not answer, or what answered is no sidecar."""


_BY_STATUS: dict[int, type[SidecarError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    408: SidecarFailedError,
    424: SidecarFailedError,
    429: OverloadedError,
    503: OverloadedError,
}


def error_of(status: int, body: bytes, *, request_id: str = "", retry_after: float | None = None) -> SidecarError:
    """The error that an answer other than 200 stands for. Gateways in between answer in shapes of their own."""
    kind = _BY_STATUS.get(status, RefusedError if 400 <= status < 500 else SidecarFailedError)
    message, error_type = _said(body)
    return kind(
        f"the sidecar answered {status}" + (f" ({error_type}): {message}" if error_type else f": {message}"),
        status=status,
        error_type=error_type,
        request_id=request_id,
        retry_after=retry_after,
    )


def _said(body: bytes) -> tuple[str, str]:
    try:
        row = json.loads(body)
        return str(row["error"]), str(row["error_type"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return f"{body[:200].decode('utf-8', 'replace') or '(nothing)'}; is this the sidecar's address?", ""
