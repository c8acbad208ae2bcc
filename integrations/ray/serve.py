"""The REST sidecar as a Ray Serve application: replicas with their own model, as many as there are requests for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve

from ctxprune.integrations.server import Settings, create_app

#: Between two looks at a model that is being loaded.
_LOOK_SECONDS = 0.05


class Sidecar:
    """What Serve asks of a replica beside answering; `app` is put there by `serve.ingress`."""

    app: FastAPI

    async def check_health(self) -> None:
        """Return once the model is loaded, so that no request meets a replica that is not ready.

        Raises RuntimeError, upon which Serve replaces the replica, when it cannot be loaded.
        """
        service = self.app.state.service
        while not service.engine.ready:
            if service.failure:
                raise RuntimeError(service.failure)
            await asyncio.sleep(_LOOK_SECONDS)


def sidecar(
    settings: Settings | None = None,
    *,
    min_replicas: int = 1,
    max_replicas: int = 4,
    target_ongoing_requests: float = 4.0,
    upscale_delay_seconds: float = 10.0,
    downscale_delay_seconds: float = 300.0,
    num_cpus: float = 1.0,
    ray_actor_options: Mapping[str, Any] | None = None,
) -> serve.Application:
    """The application for `serve.run(sidecar(), route_prefix="/")`, or for `serve run module:name` once it has a name.

    settings: of every replica (default: from the environment of the one who calls). Replicas are added while each
    has more than `target_ongoing_requests` in hand for `upscale_delay_seconds`, and taken away when they have fewer
    for `downscale_delay_seconds`. A replica takes `settings.max_requests` at a time. num_cpus: that Ray reserves for
    one; the model takes as many threads as it finds CPUs. Serve's own router stands in for the sidecar's draining.
    """
    settings = settings or Settings()

    def build() -> FastAPI:  # in the replica: an application with its locks does not travel
        return create_app(settings)

    deployment = serve.deployment(
        serve.ingress(build)(Sidecar),
        name="ctxprune",
        max_ongoing_requests=settings.max_requests,
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": target_ongoing_requests,
            "upscale_delay_s": upscale_delay_seconds,
            "downscale_delay_s": downscale_delay_seconds,
        },
        ray_actor_options={"num_cpus": num_cpus, **(ray_actor_options or {})},
        graceful_shutdown_timeout_s=float(settings.shutdown_seconds),
    )
    return deployment.bind()
