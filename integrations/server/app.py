"""`create_app`: the ASGI application, put together from its parts."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from difflib import get_close_matches
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from pydantic_settings import SettingsError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from ctxprune import __version__
from ctxprune.errors import BudgetError, CheckpointError, CtxpruneError, InputError
from ctxprune.integrations.server.callers import ThrottledRecords, bounded_protocol, most_connections, quiet_faults
from ctxprune.integrations.server.compress import compress_routes
from ctxprune.integrations.server.engine.engine import Engine
from ctxprune.integrations.server.engine.ticket import AbandonedError, ModelError
from ctxprune.integrations.server.errors import ApiError, error_response, validation_message
from ctxprune.integrations.server.gate import AnySlash, Gate
from ctxprune.integrations.server.gateway.dialects import Gateway, compresr_routes, gateway_routes
from ctxprune.integrations.server.highlight import highlight_routes
from ctxprune.integrations.server.lenient import IGNORED_HEADER
from ctxprune.integrations.server.observe import Log, Metrics, Tracing, json_log, no_tracing, opentelemetry_tracing
from ctxprune.integrations.server.pages import DOCS_PATH, PLAYGROUND_PATH, operation_routes, playground_routes
from ctxprune.integrations.server.proxy.compress import ProxyOptions
from ctxprune.integrations.server.proxy.routes import Upstream, proxy_routes
from ctxprune.integrations.server.rerank import rerank_routes
from ctxprune.integrations.server.service import Service
from ctxprune.integrations.server.settings import Settings

DESCRIPTION = """Prune retrieved text for a question, rerank it, or do so on the way to any OpenAI-compatible API.

Errors are `{error, error_type}`, on the proxy's routes OpenAI's `{error: {message, type, param, code}}`. Every answer
carries `x-request-id`. The header `x-ctxprune-timeout` (seconds) shortens the server's deadline."""


def create_app(settings: Settings | None = None, *, log: Log | None = None, tracing: Tracing | None = None) -> FastAPI:
    """The application; nothing is loaded before it starts.

    settings: by default from the environment, so that `uvicorn --factory ctxprune.integrations.server:create_app
    --workers 4` works. log: where its events go; by default JSON lines on stderr. tracing: by default OpenTelemetry's
    when the settings say so. `app.state.service` is its service.
    """
    settings = settings or settings_from_environment()
    metrics, log = Metrics(), log or json_log()
    service = Service(settings, Engine(settings, metrics, log), metrics, log)
    upstream, gateway = Upstream(settings), Gateway(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        quiet_faults(asyncio.get_running_loop())
        loading = asyncio.ensure_future(_load(app, service))
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await upstream.close()
        await service.engine.close()

    # no page with scripts from elsewhere unless it is asked for: /docs loads its own from a CDN
    docs_url = DOCS_PATH if settings.docs else None
    app = FastAPI(title="ctxprune", version=__version__, description=DESCRIPTION, docs_url=docs_url, redoc_url=None)
    app.router.lifespan_context = lifespan
    app.state.service, app.state.load_error = service, None
    ranking = (rerank_routes(service), highlight_routes(service))
    gateways = (gateway_routes(service, gateway), compresr_routes(service, gateway))
    own = (compress_routes(service, gateway.headroom), *ranking, *gateways)
    routers = (operation_routes(service), *own, playground_routes(), proxy_routes(service, upstream, gateway))
    for routes in routers:
        app.include_router(routes)
    _answer_errors(app)
    _stack(app, service, tracing or (opentelemetry_tracing() if settings.tracing else no_tracing))
    app.add_middleware(AnySlash, paths=_fixed_paths(routers))
    _document(app)
    return app


async def _load(app: FastAPI, service: Service) -> None:
    """In the background, so that `/livez` answers meanwhile. What goes wrong is left in `app.state.load_error`, for
    whoever runs the application to end it."""
    try:
        await service.engine.start()
    except Exception as error:
        app.state.load_error = error
        if isinstance(error, ModelError):
            service.failure = str(error)  # ours, so without a path
            service.log.exception("the model failed its first reading")
            return
        service.failure = "the model failed to load; see the server's log"
        if isinstance(error, CtxpruneError):  # its message says it all
            service.log.warning(service.failure, error=str(error))
        else:
            service.log.exception(service.failure)
    else:
        service.log.info("ready", model=service.engine.runner.catalog.pruner.name)


def _stack(app: FastAPI, service: Service, tracing: Tracing) -> None:
    settings = service.settings
    app.add_middleware(Gate, settings=settings, metrics=service.metrics, log=service.log, tracing=tracing)
    if settings.cors_origins:  # added last, so outermost: refusals carry its headers too, and preflights need no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id", "x-ctxprune-timeout"],
            expose_headers=[
                "x-request-id",
                "x-ctxprune-status",
                "x-ctxprune-tokens-before",
                "x-ctxprune-tokens-after",
                "x-ctxprune-tokens-would-be",
                IGNORED_HEADER,
            ],
        )


def _fixed_paths(routers: Iterable[APIRouter]) -> set[str]:
    """Of the routes without a parameter in their path."""
    every = (route for router in routers for route in router.routes)
    return {route.path for route in every if isinstance(route, Route) and "{" not in route.path}


def _answer_errors(app: FastAPI) -> None:
    """One shape for every error, whoever raises it. Handlers are looked up by class, subclasses included."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error_response(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(request.url.path, ApiError(422, validation_message(error.errors())))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return error_response(request.url.path, ApiError(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(InputError)
    @app.exception_handler(BudgetError)
    async def unusable(request: Request, error: Exception) -> Response:
        return error_response(request.url.path, ApiError(422, str(error)))

    @app.exception_handler(RecursionError)
    async def nested(request: Request, error: RecursionError) -> Response:
        return error_response(request.url.path, ApiError(400, "the body is nested too deeply"))

    @app.exception_handler(AbandonedError)
    async def stopping(request: Request, error: AbandonedError) -> Response:
        return error_response(request.url.path, ApiError(503, "the server stops; ask another", retry_after=1))


def _document(app: FastAPI) -> None:
    """FastAPI's document, and the parts that it does not see: the proxy's field, and how to show a key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = document["components"]
            options = ProxyOptions.model_json_schema(ref_template="#/components/schemas/{model}")
            components["schemas"] |= options.pop("$defs", {}) | {"ProxyOptions": options}
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
            document["security"] = [{}, {"bearer": []}, {"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Also says where it can be reached, once it can be."""
        await super().startup(sockets)
        for address in sorted({_address(each.getsockname()) for server in self.servers for each in server.sockets}):
            sys.stderr.write(f"ctxprune serves at {address}, the playground at {address}{PLAYGROUND_PATH}/\n")
        sys.stderr.flush()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server, also one that can never become ready."""
        if self.app.state.load_error is not None:
            return True
        if self.service.engine.ready and not gc.get_freeze_count():
            gc.freeze()  # what is loaded stays: looking through it for garbage would stop every thread meanwhile
        is_drained = self._until is not None and time.monotonic() >= self._until
        return await super().on_tick(counter) or is_drained


def _address(name: tuple[Any, ...]) -> str:
    """A socket's name as a browser takes it; one that listens everywhere is reached at this machine's own name."""
    host, port = name[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


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
        # HTTP clients keep an idle connection for 5 s; a server that closes it then too drops the request just sent
        timeout_keep_alive=math.ceil(settings.header_seconds),
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
    value, since that may be a secret; a variable that is no setting is refused, since CTXPRUNE_API_KEY for
    CTXPRUNE_API_KEYS would leave the server open."""
    _refuse_unknown(os.environ)
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


#: What Kubernetes sets in every pod beside a service called "ctxprune".
_SERVICE_LINK = re.compile(r"CTXPRUNE_(?:\w+_)?(?:SERVICE_(?:HOST|PORT)|PORT)(?:_|$)")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    settings = {f"CTXPRUNE_{field}".upper() for field in Settings.model_fields}
    given = {name.upper() for name in environ if name.upper().startswith("CTXPRUNE_")}
    # a caller's own key may stand beside the server's, and the tests have a variable of theirs
    theirs = {"CTXPRUNE_ALL_TESTS"} | ({"CTXPRUNE_API_KEY"} if "CTXPRUNE_API_KEYS" in given else set())
    for name in sorted(given - settings - theirs):
        if _SERVICE_LINK.match(name):
            continue
        near = get_close_matches(name, sorted(settings), n=1, cutoff=0.8)
        hint = f"did you mean {near[0]}?" if near else "unset it; the settings are in docs/server.md"
        raise InputError(f"{name} is no setting of the server; {hint}")


def _variable(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return (f"CTXPRUNE_{loc[0]}".upper(), *loc[1:]) if loc else ("CTXPRUNE_...",)
