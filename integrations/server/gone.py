"""Callers who leave, and upstreams that do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

T = TypeVar("T")


class GoneError(Exception):
    """The caller closed the connection; there is nobody to answer."""


class BrokenOffError(Exception):
    """The upstream broke off in the middle of its answer: the caller's is broken off too, lest it look complete."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves. Raises GoneError then.

    The body must have been read: the next thing that the server can say is that the caller left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError
    finally:
        for unfinished in (task, left):
            unfinished.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
