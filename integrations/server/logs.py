"""One JSON line an event on stderr, through structlog, without touching its or logging's global settings."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

import structlog


class Log(Protocol):
    """What the server needs of a logger."""

    def info(self, event: str, **values: Any) -> Any: ...

    def warning(self, event: str, **values: Any) -> Any: ...

    def exception(self, event: str, **values: Any) -> Any: ...


def json_log(stream: TextIO | None = None) -> Log:
    """Level, time (UTC), event, its values, and a stack trace where there is one."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    return log
