"""`Client` and `AsyncClient`: one call a method, retried while the server asks for patience."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import WeakKeyDictionary

import httpx2

from ctxprune.errors import InputError
from ctxprune.integrations.client.calls import (
    COMPRESSORS,
    INFO,
    AnyDocument,
    Call,
    CompressOptions,
    CompressRequest,
    batch_call,
    compress_call,
    estimate_call,
    rerank_call,
)
from ctxprune.integrations.client.results import (
    Compressed,
    CompressorInfo,
    Estimate,
    NoAnswerError,
    Ranked,
    ServerInfo,
    SidecarFailedError,
    error_of,
)
from ctxprune.plain import as_float, checked_whole

T = TypeVar("T")
Transport = TypeVar("Transport")
#: Statuses after which the same request may well succeed.
PATIENCE = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """retries: after 429 and 503, each after Retry-After seconds (0.5, 1, 2, ... without). A wait longer than
    `max_wait` seconds is not begun."""

    retries: int
    max_wait: float

    def wait(self, response: httpx2.Response, attempt: int) -> float | None:
        """Seconds until the next attempt, the first being 0; None to give up."""
        if response.status_code not in PATIENCE or attempt >= self.retries:
            return None
        asked = retry_after(response)
        seconds = 0.5 * 2**attempt if asked is None else asked
        return seconds if seconds <= self.max_wait else None


def read(call: Call[T], response: httpx2.Response) -> T:
    """The answer as the call reads it. Raises the SidecarError that the status or an unfit answer stands for."""
    request_id = response.headers.get("x-request-id", "")
    if response.status_code != 200:
        raise error_of(response.status_code, response.content, request_id=request_id, retry_after=retry_after(response))
    try:
        return call.read(json.loads(response.content))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SidecarFailedError(
            f"{call.path} answered in an unknown shape ({error!r:.200}); is this the sidecar's address?",
            status=200,
            request_id=request_id,
        ) from error


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds from a Retry-After header, which gives a number or, from some gateways, a date."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked[:9])
    try:
        moment = parsedate_to_datetime(asked)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class _Base(Generic[Transport]):
    """What both clients share: where to ask, how, and how to read what comes back."""

    _open: Callable[..., Any]
    #: By owner.
    _none_opened: Callable[[], MutableMapping[Any, Any]] = dict

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        deadline: float | None = None,
        retries: int = 2,
        max_wait: float = 10.0,
        transport: Transport | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url must begin with http:// or https://, got {base_url!r:.80}")
        for name, seconds in (("timeout", timeout), ("deadline", deadline)):
            if seconds is not None and not 0 < (as_float(seconds) or 0.0) < math.inf:
                raise InputError(f"{name} must be a positive number of seconds, got {seconds!r:.80}")
        retries = checked_whole("retries", retries, least=0)
        if (number := as_float(max_wait)) is None or not number >= 0:
            raise InputError(f"max_wait must be a number of seconds from 0 up, got {max_wait!r:.80}")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("api_key must be printable ASCII without spaces; check it for a line break at its end")
        headers = {"content-type": "application/json", "accept": "application/json"}
        headers |= {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        headers |= {} if deadline is None else {"x-ctxprune-timeout": f"{deadline:g}"}
        opening: dict[str, Any] = {"timeout": timeout, "transport": transport}
        self._opening = partial(self._open, base_url=base_url, headers=headers, **opening)
        self._next, self._opened = self._opening(), self._none_opened()
        self._options = opening | {"api_key": api_key, "deadline": deadline, "retries": retries, "max_wait": max_wait}
        self._patience = Patience(retries=retries, max_wait=max_wait)
        self._base_url, self._timeout = base_url, timeout

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also one in another process, opens connections of its own."""
        return partial(type(self), self._base_url, **self._options), ()

    @property
    def _http(self) -> Any:
        """The connections of whoever asks, see `_owner`."""
        owner = self._owner()
        if owner not in self._opened:
            self._opened[owner], self._next = self._next or self._opening(), None
        return self._opened[owner]

    def _owner(self) -> Any:
        """A process: on connections of its parent the answers of both would mix."""
        return os.getpid()

    def _no_answer(self, error: httpx2.HTTPError) -> NoAnswerError:
        slow = isinstance(error, httpx2.TimeoutException)
        cause = f"took longer than {self._timeout:g} s" if slow else f"did not answer ({error})"
        return NoAnswerError(f"the sidecar at {self._base_url} {cause}; is it running? GET /readyz says")


class Client(_Base[httpx2.BaseTransport]):
    """Asks one sidecar; safe to share between threads. Close it, or use it in a `with` statement.

    base_url: up to the sidecar's own paths, e.g. "http://localhost:8080". timeout: seconds to connect, and without a
    byte. deadline: seconds after which the server is to stop (it then gives the original text as "degraded").
    retries, max_wait: see Patience. transport: an httpx2 transport to use instead of the network.
    Every method raises SidecarError (see errors.py), and InputError for what cannot be sent.
    """

    _open = httpx2.Client

    def compress(self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]) -> Compressed:
        """Keep what helps to answer the question."""
        return self._ask(compress_call(query, documents, options))

    def compress_batch(self, requests: Sequence[CompressRequest]) -> list[Compressed]:
        """Several requests at once, answered in order; one that cannot be answered fails them all."""
        return self._ask(batch_call(requests))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        return_documents: bool = False,
        pruned_text: bool = False,
    ) -> tuple[Ranked, ...]:
        """The documents, most relevant first. pruned_text: give each one's text with only what helps."""
        return self._ask(
            rerank_call(query, documents, top_n=top_n, return_documents=return_documents, pruned_text=pruned_text)
        )

    def estimate(self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]) -> Estimate:
        """What a request would mean in tokens, without running a model."""
        return self._ask(estimate_call(query, documents, options))

    def compressors(self) -> tuple[CompressorInfo, ...]:
        """The compressors that requests may name."""
        return self._ask(COMPRESSORS)

    def info(self) -> ServerInfo:
        """What the server is and takes."""
        return self._ask(INFO)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            try:
                response = self._http.request(call.method, call.path, content=call.body)
            except httpx2.HTTPError as error:
                raise self._no_answer(error) from error
            if (seconds := self._patience.wait(response, attempt)) is None:
                return read(call, response)
            time.sleep(seconds)
            attempt += 1


class AsyncClient(_Base[httpx2.AsyncBaseTransport]):
    """`Client` for asyncio: the same arguments, the same methods to await, and `async with`.

    It may be used in several event loops, each of which has connections of its own; close it in each.
    """

    _open = httpx2.AsyncClient
    _none_opened = WeakKeyDictionary

    def _owner(self) -> Any:
        """An event loop: connections of another one, which may have ended, cannot be waited for."""
        return asyncio.get_running_loop()

    async def compress(
        self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]
    ) -> Compressed:
        """See `Client.compress`."""
        return await self._ask(compress_call(query, documents, options))

    async def compress_batch(self, requests: Sequence[CompressRequest]) -> list[Compressed]:
        """See `Client.compress_batch`."""
        return await self._ask(batch_call(requests))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        return_documents: bool = False,
        pruned_text: bool = False,
    ) -> tuple[Ranked, ...]:
        """See `Client.rerank`."""
        return await self._ask(
            rerank_call(query, documents, top_n=top_n, return_documents=return_documents, pruned_text=pruned_text)
        )

    async def estimate(
        self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]
    ) -> Estimate:
        """See `Client.estimate`."""
        return await self._ask(estimate_call(query, documents, options))

    async def compressors(self) -> tuple[CompressorInfo, ...]:
        """See `Client.compressors`."""
        return await self._ask(COMPRESSORS)

    async def info(self) -> ServerInfo:
        """See `Client.info`."""
        return await self._ask(INFO)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            try:
                response = await self._http.request(call.method, call.path, content=call.body)
            except httpx2.HTTPError as error:
                raise self._no_answer(error) from error
            if (seconds := self._patience.wait(response, attempt)) is None:
                return read(call, response)
            await asyncio.sleep(seconds)
            attempt += 1
