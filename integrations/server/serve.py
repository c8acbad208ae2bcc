"""Run the application with uvicorn, and leave in good order: first not ready, then drained, then gone."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError

from ctxprune.errors import CheckpointError, InputError
from ctxprune.integrations.server.app import create_app
from ctxprune.integrations.server.connections import ThrottledRecords, bounded_protocol, most_connections
from ctxprune.integrations.server.errors import validation_message
from ctxprune.integrations.server.settings import Settings

#: Python's own is 5 ms.
SWITCH_SECONDS = 0.0005


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM `/readyz` says no while requests are still taken, so that balancers stop sending them;
    after `drain_seconds` no more are taken, and those in flight end. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_seconds: float) -> None:
        super().__init__(config)
        self.app, self.service = app, app.state.service
        self.drain_seconds = drain_seconds
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self.service.draining or self.drain_seconds == 0:
            super().handle_exit(sig, frame)
            return
        # a signal may come in the middle of anything, so this only takes a note for the next tick
        self.service.draining = True
        self._until = time.monotonic() + self.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server, also one that can never become ready."""
        if self.app.state.load_error is not None:
            return True
        is_drained = self._until is not None and time.monotonic() >= self._until
        return await super().on_tick(counter) or is_drained


def serve(*, host: str = "127.0.0.1", port: int = 8080, settings: Settings | None = None) -> None:
    """Serve until SIGINT or SIGTERM. One process; for several, run several (see deploy/kubernetes.yaml).

    settings: by default from the environment. Raises InputError for settings and ports that cannot be, CheckpointError
    when the model cannot be loaded; SystemExit when the address is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port must be between 0 and 65535, got {port}")
    settings = settings or settings_from_environment()
    app = create_app(settings)
    # the event loop waits so long for a thread that computes, and for each of them in turn
    sys.setswitchinterval(SWITCH_SECONDS)
    # uvicorn's lines are of what outsiders send; each of a thousand broken requests would write one
    logging.getLogger("uvicorn.error").addFilter(ThrottledRecords())
    config = uvicorn.Config(
        app,
        http=bounded_protocol(most=most_connections(settings.max_connections), header_seconds=settings.header_seconds),
        ws="none",
        proxy_headers=False,  # callers are told apart by address, which a header must not make up
        host=host,
        port=port,
        access_log=False,  # the application writes its own, with request ids
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    DrainingServer(config, app, drain_seconds=settings.drain_seconds).run()
    if (error := app.state.load_error) is not None:
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"the server cannot start: {reason}; the model is {settings.model!r}, set by CTXPRUNE_MODEL"
        ) from error


def settings_from_environment(**options: Any) -> Settings:
    """Settings from CTXPRUNE_... variables and `options`. Raises InputError, which names the variable and not its
    value, since that may be a secret."""
    try:
        return Settings(**options)
    except ValidationError as error:
        messages = [{**item, "loc": _variable(item["loc"])} for item in error.errors()]
        raise InputError(f"the server's settings: {validation_message(messages)}") from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"CTXPRUNE_{field[1].upper()}" if field else "a CTXPRUNE_ variable"
        raise InputError(
            f'{name} must be JSON, a list as \'["one", "two"]\' or a mapping as \'{{"name": "value"}}\''
        ) from None


def _variable(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return (f"CTXPRUNE_{loc[0]}".upper(), *loc[1:]) if loc else ("CTXPRUNE_...",)
