"""`Client` and `AsyncClient`: one call a method, retried while the server asks for patience."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx2

from ctxprune.errors import InputError
from ctxprune.integrations.client import calls
from ctxprune.integrations.client.answers import Patience, read
from ctxprune.integrations.client.calls import AnyDocument, Call, CompressOptions, CompressRequest
from ctxprune.integrations.client.errors import NoAnswerError
from ctxprune.integrations.client.results import Compressed, CompressorInfo, Estimate, Ranked, ServerInfo

T = TypeVar("T")


class _Base:
    """What both clients share: where to ask, how, and how to read what comes back."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout: float,
        deadline: float | None,
        retries: int,
        max_wait: float,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url must begin with http:// or https://, got {base_url!r:.80}")
        for name, seconds in (("timeout", timeout), ("deadline", deadline)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise InputError(f"{name} must be a positive number of seconds, got {seconds}")
        if retries < 0 or not max_wait >= 0:
            raise InputError(f"retries and max_wait must not be negative, got {retries} and {max_wait}")
        headers = {"content-type": "application/json", "accept": "application/json"}
        headers |= {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        headers |= {} if deadline is None else {"x-ctxprune-timeout": f"{deadline:g}"}
        self._settings: dict[str, Any] = {"base_url": base_url, "headers": headers, "timeout": timeout}
        self._patience = Patience(retries=retries, max_wait=max_wait)
        self._base_url = base_url

    def _no_answer(self, error: httpx2.HTTPError) -> NoAnswerError:
        slow = isinstance(error, httpx2.TimeoutException)
        cause = f"took longer than {self._settings['timeout']:g} s" if slow else f"did not answer ({error})"
        return NoAnswerError(f"the sidecar at {self._base_url} {cause}; is it running? GET /readyz says")


class Client(_Base):
    """Asks one sidecar; safe to share between threads. Close it, or use it in a `with` statement.

    base_url: up to the sidecar's own paths, e.g. "http://localhost:8080". timeout: seconds to connect, and without a
    byte. deadline: seconds after which the server is to stop (it then gives the original text as "degraded").
    retries, max_wait: see Patience. transport: an httpx2 transport to use instead of the network.
    Every method raises SidecarError (see errors.py), and InputError for what cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        deadline: float | None = None,
        retries: int = 2,
        max_wait: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(
            base_url, api_key=api_key, timeout=timeout, deadline=deadline, retries=retries, max_wait=max_wait
        )
        self._http = httpx2.Client(**self._settings, transport=transport)

    def compress(self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]) -> Compressed:
        """Keep what helps to answer the question."""
        return self._ask(calls.compress_call(query, documents, options))

    def compress_batch(self, requests: Sequence[CompressRequest]) -> list[Compressed]:
        """Several requests at once, answered in order; one that cannot be answered fails them all."""
        return self._ask(calls.batch_call(requests))

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
            calls.rerank_call(query, documents, top_n=top_n, return_documents=return_documents, pruned_text=pruned_text)
        )

    def estimate(self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]) -> Estimate:
        """What a request would mean in tokens, without running a model."""
        return self._ask(calls.estimate_call(query, documents, options))

    def compressors(self) -> tuple[CompressorInfo, ...]:
        """The compressors that requests may name."""
        return self._ask(calls.COMPRESSORS)

    def info(self) -> ServerInfo:
        """What the server is and takes."""
        return self._ask(calls.INFO)

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


class AsyncClient(_Base):
    """`Client` for asyncio: the same arguments, the same methods to await, and `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        deadline: float | None = None,
        retries: int = 2,
        max_wait: float = 10.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            base_url, api_key=api_key, timeout=timeout, deadline=deadline, retries=retries, max_wait=max_wait
        )
        self._http = httpx2.AsyncClient(**self._settings, transport=transport)

    async def compress(
        self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]
    ) -> Compressed:
        """See `Client.compress`."""
        return await self._ask(calls.compress_call(query, documents, options))

    async def compress_batch(self, requests: Sequence[CompressRequest]) -> list[Compressed]:
        """See `Client.compress_batch`."""
        return await self._ask(calls.batch_call(requests))

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
            calls.rerank_call(query, documents, top_n=top_n, return_documents=return_documents, pruned_text=pruned_text)
        )

    async def estimate(
        self, query: str, documents: Sequence[AnyDocument], **options: Unpack[CompressOptions]
    ) -> Estimate:
        """See `Client.estimate`."""
        return await self._ask(calls.estimate_call(query, documents, options))

    async def compressors(self) -> tuple[CompressorInfo, ...]:
        """See `Client.compressors`."""
        return await self._ask(calls.COMPRESSORS)

    async def info(self) -> ServerInfo:
        """See `Client.info`."""
        return await self._ask(calls.INFO)

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
