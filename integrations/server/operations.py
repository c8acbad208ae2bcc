"""Probes and metrics: GET /livez, /readyz and /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ctxprune.integrations.server.errors import json_response
from ctxprune.integrations.server.schemas import StatusResponse
from ctxprune.integrations.server.service import Service


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
            return json_response({"status": "ready"})
        status = "draining" if service.draining else service.failure or "loading"
        return json_response({"status": status}, status=503)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus' exposition format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
