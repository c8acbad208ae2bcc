"""Ray: workers as actors, a map over a Ray Data dataset, and the sidecar as a Ray Serve application.

Ray replaces no actor by itself, so that the driver can count the dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastapi import FastAPI

from ctxprune.errors import CtxpruneError, InputError, MissingExtraError
from ctxprune.integrations.mapping.files import Work
from ctxprune.integrations.mapping.worker import CompressTask, Died, Job, PartWorker, Reply
from ctxprune.integrations.server import Settings, create_app
from ctxprune.plain import checked_whole

try:
    import ray
    from ray import serve
    from ray.data import ActorPoolStrategy, Dataset
    from ray.exceptions import RayError
except ImportError as error:
    raise MissingExtraError("ctxprune.integrations.ray", "ray") from error


class RayCrew:
    """`size` actors of one CPU each.

    address: of a running cluster, "auto" to look for it; None: on this machine, in a Ray that ends with the crew
    unless it ran before. Raises CtxpruneError when Ray does not start or the cluster does not answer.
    """

    def __init__(self, work: Work, folder: Path, *, size: int, address: str | None = None) -> None:
        self.size = size
        self._started = not ray.is_initialized()
        if self._started:
            _start(address, cpus=size)
        # the workers' current folders are not ours
        self._arguments = (work, folder.resolve())
        self._class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(PartWorker)
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}
        for worker in range(size):
            self._actors[worker] = self._class.remote(*self._arguments)

    def give(self, worker: int, job: Job) -> None:
        if worker not in self._actors:
            self._actors[worker] = self._class.remote(*self._arguments)
        self._answers[self._actors[worker].attempt.remote(job)] = worker

    def wait(self) -> tuple[int, Reply]:
        [answer], _ = ray.wait(list(self._answers), num_returns=1)
        worker = self._answers.pop(answer)
        try:
            reply: Reply = ray.get(answer)
        except RayError as error:
            # it may only be out of reach: end it, or it would write beside its successor
            self._end(self._actors.pop(worker))
            return worker, Died(type(error).__name__)
        return worker, reply

    def close(self) -> None:
        for actor in self._actors.values():
            self._end(actor)
        if self._started:
            ray.shutdown()

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(RayError):
            ray.kill(actor)


def _start(address: str | None, *, cpus: int) -> None:
    local: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # a bare one when a process of its own takes too long to start
        ray.shutdown()  # what of it has started
        where = "on this machine" if address is None else f"at {address!r}"
        raise CtxpruneError(f"no Ray {where}: {error}; start one with `ray start --head`") from error


#: The column that is added: one result a row, as `ctxprune map` writes it.
RESULT = "ctxprune"


class CompressBatch:
    """For `Dataset.map_batches(CompressBatch, fn_constructor_kwargs={...}, batch_format="pyarrow")`.

    options: the fields of `Work`.
    """

    def __init__(self, **options: Any) -> None:
        self.task = CompressTask(Work(**options))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with one more column, JSON. Raises InputError for a row without a question or documents."""
        contexts = []
        for place, row in enumerate(batch.to_pylist()):
            try:
                contexts.append(self.task.read(row, name=str(place)))
            except InputError as error:
                raise InputError(f"row {place} of a batch, {json.dumps(row, default=str):.120}: {error}") from None
        results = [line.decode("utf-8").rstrip("\n") for line in self.task.run(contexts)]
        return batch.append_column(RESULT, pa.array(results, pa.string()))


def compress_dataset(dataset: Dataset, work: Work, *, workers: int = 1, batch_rows: int = 32) -> Dataset:
    """The rows, `{"question" | "query", "documents"}` each, with the column `ctxprune` added; lazy, as Ray Data is.

    Unlike `map_file` it promises nothing about order, and what happens to a dead worker is up to Ray Data. A row
    without an id is named by its place in its batch. Raises InputError for another task than "compress" and for
    sizes below 1.
    """
    if work.task != "compress":
        raise InputError(f"compress_dataset does the task 'compress' only, got {work.task!r}; use map_file")
    for name, value in (("workers", workers), ("batch_rows", batch_rows)):
        checked_whole(name, value, least=1)
    return dataset.map_batches(
        CompressBatch,
        fn_constructor_kwargs=asdict(work),
        compute=ActorPoolStrategy(size=workers),
        batch_format="pyarrow",
        batch_size=batch_rows,
        num_cpus=1,
    )


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
