"""GET /playground/: a static page to try the server with, under a content security policy that allows nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ctxprune.integrations.server.errors import json_response
from ctxprune.integrations.server.schemas import StatusResponse
from ctxprune.integrations.server.service import Service

#: The page's own address has a slash at its end, so that its relative links work behind any prefix.
PLAYGROUND_PATH = "/playground"
#: FastAPI's page of the API, where the settings switch it on.
DOCS_PATH = "/docs"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True, slots=True)
class Page:
    """One static file as it is sent. etag: quoted, of its bytes."""

    body: bytes
    media_type: str
    etag: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            "etag": self.etag,
            "cache-control": "no-cache",  # keep it, but ask: a new release must not meet old scripts
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }


def playground_routes() -> APIRouter:
    """The page's files, read once; they hold no secret, so no key is asked for them (see `gate.is_page`)."""
    router = APIRouter(include_in_schema=False)
    pages = load_pages()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def root() -> Response:
        return Response(status_code=307, headers={"location": "playground/"})

    @router.api_route(PLAYGROUND_PATH, methods=["GET", "HEAD"])
    async def without_slash() -> Response:
        # relative, since only the browser knows what prefix it came by
        return Response(status_code=307, headers={"location": "playground/"})

    for path, page in pages.items():
        router.add_api_route(path, _sender(page), methods=["GET", "HEAD"])
    return router


def load_pages() -> dict[str, Page]:
    """The files by the path that they are served at."""
    pages = {}
    for file in (files(__package__) / "playground").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in _MEDIA_TYPES:
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            name = "" if file.name == "index.html" else file.name
            pages[f"{PLAYGROUND_PATH}/{name}"] = Page(body, f"{_MEDIA_TYPES[suffix]}; charset=utf-8", etag)
    return pages


def is_fresh(asked: str, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`; gateways that compress make it a weak one."""
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked.split(","))


def _sender(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        if is_fresh(request.headers.get("if-none-match", ""), page.etag):
            return Response(status_code=304, headers=page.headers)
        return Response(page.body, headers=page.headers | {"content-type": page.media_type})

    return send


def operation_routes(service: Service) -> APIRouter:
    """The routes over one service; none of them asks for a key."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/livez",
        response_model=StatusResponse,
        responses={503: {"model": StatusResponse, "description": "The model failed to load; start the process anew."}},
    )
    async def livez() -> Response:
        """200 while the process runs and may yet become ready."""
        if service.failure:
            return json_response({"status": service.failure}, status=503)
        return json_response({"status": "alive"})

    @router.get(
        "/readyz",
        response_model=StatusResponse,
        responses={503: {"model": StatusResponse, "description": "Loading, failed to load, or draining."}},
    )
    async def readyz() -> Response:
        """200 when requests are welcome: after the warm-up, and until SIGTERM."""
        if service.ready:
            return json_response({"status": "ready", "scores": service.engine.drift.state})
        status = "draining" if service.draining else service.failure or "loading"
        return json_response({"status": status}, status=503)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus' exposition format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
