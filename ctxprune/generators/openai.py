"""Any endpoint that speaks OpenAI's completions, of a chat or of plain text: vLLM, llama.cpp, Ollama, hosted models."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from ctxprune.errors import GeneratorError, InputError
from ctxprune.files import CopiedLock
from ctxprune.generators.base import Reply, chat_reply, checked_prompts, completion_reply
from ctxprune.text import model_text

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

#: Worth another try: the server timed out, is busy, or failed.
RETRIED_STATUS = frozenset({408, 429, *range(500, 600)})


class Connection(TypedDict, total=False):
    """The options of every generator behind an endpoint; see `Transport`."""

    api_key: str | None
    timeout: float
    retries: int
    concurrency: int
    backoff: float
    max_wait: float


class Transport:
    """Posts JSON to `base_url` + `path`; `name` is the model's, for messages.

    base_url: e.g. "http://localhost:8000/v1"; a query stays at the address's end. timeout: seconds without a word from
    the server. retries: further tries after 408, 429, a 5xx, a timeout or a broken connection, each after the server's
    Retry-After, else `backoff` seconds doubled a try, with jitter; never over `max_wait` seconds. concurrency: requests
    in flight. Raises InputError for an address, a key or a limit that cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        path: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
        backoff: float = 0.5,
        max_wait: float = 60.0,
    ) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("api_key must be printable ASCII without spaces; check it for a line break at its end")
        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise InputError(
                "timeout must be positive, retries at least 0 and concurrency at least 1, "
                f"got timeout={timeout}, retries={retries}, concurrency={concurrency}"
            )
        self.name = name
        self._url = _address(base_url, path)
        self._api_key = api_key
        self._timeout = timeout
        self._retries = retries
        self._concurrency = concurrency
        self._backoff = backoff
        self._max_wait = max_wait
        self._lock = CopiedLock()
        self._opened: tuple[int, httpx2.Client] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens connections of its own."""
        return vars(self) | {"_opened": None}

    @property
    def endpoint(self) -> str:
        """The address as messages may show it: without a user name, password or query."""
        return str(self._url.copy_with(userinfo=b"", query=None))

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    def replies(
        self, items: Sequence[T], body: Callable[[T], dict[str, Any]], read: Callable[[Any], Reply]
    ) -> list[Reply]:
        """One reply an item, in order; a reply that is no answer says why.

        body: writes an item's request just before it is sent, so large ones are not all in memory. read: finds the
        reply in the response's JSON; AttributeError, LookupError and TypeError mean that it is not there. Raises
        GeneratorError when a request fails for good; no further one is begun then.
        """
        with self._lock:  # called from several threads, they share one client
            client = self._client()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="ctxprune-generate") as pool:
            answers = [pool.submit(self._answer, client, item, body, read) for item in items]
            try:
                done, _ = wait(answers, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        for answer in done:
            answer.result()
        return [answer.result() for answer in answers]

    def _client(self) -> httpx2.Client:
        """This process's own: on connections of a parent process the answers of both would mix."""
        import httpx2

        if self._opened is not None and self._opened[0] == os.getpid():
            return self._opened[1]
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        limits = httpx2.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
        client = httpx2.Client(headers=headers, timeout=self._timeout, limits=limits)
        self._opened = os.getpid(), client
        return client

    def _answer(
        self, client: httpx2.Client, item: T, body: Callable[[T], dict[str, Any]], read: Callable[[Any], Reply]
    ) -> Reply:
        request = body(item)
        for attempt in range(self._retries + 1):
            response, problem = self._post(client, request)
            if response is not None and response.is_success:
                return self._reply(response, read)
            last = attempt == self._retries or (response is not None and response.status_code not in RETRIED_STATUS)
            if last:
                break
            time.sleep(self._wait(attempt, response))
        tries = f"{attempt + 1} {'try' if attempt == 0 else 'tries'}"
        raise GeneratorError(self._redacted(f"{self.name} at {self.endpoint} failed after {tries}: {problem}"))

    def _post(self, client: httpx2.Client, body: dict[str, Any]) -> tuple[httpx2.Response | None, str]:
        """(the response if there was one, what went wrong if anything did)."""
        import httpx2

        try:
            response = client.post(self._url, json=body)
        except httpx2.TimeoutException:
            return None, f"no answer within {self._timeout} seconds; raise timeout= or lower concurrency="
        except httpx2.TransportError as error:
            return None, f"{type(error).__name__}: {error}; check base_url= and that the server runs"
        return response, f"HTTP {response.status_code}: {response.text[:500]}"

    def _wait(self, attempt: int, response: httpx2.Response | None) -> float:
        """Seconds until the next try."""
        asked = _retry_after(response.headers.get("retry-after")) if response is not None else None
        # jitter, so that requests that failed together do not come back together
        seconds = self._backoff * 2**attempt * random.uniform(0.5, 1.0) if asked is None else asked
        return min(seconds, self._max_wait)

    def _reply(self, response: httpx2.Response, read: Callable[[Any], Reply]) -> Reply:
        try:
            reply = read(response.json())
        except (AttributeError, ValueError, LookupError, TypeError):
            what = "chat completion" if self._url.path.endswith("/chat/completions") else "completion"
            shown = f"{self.name} at {self.endpoint} sent no {what}: {response.text[:500]}"
            raise GeneratorError(self._redacted(shown)) from None
        return replace(reply, fault=self._redacted(reply.fault)) if reply.fault else reply

    def _redacted(self, message: str) -> str:
        """Servers like to quote the key that they reject."""
        return message.replace(self._api_key, "***") if self._api_key else message


class Connected:
    """A generator with a `Transport`. Use it in a `with` block, or call `close`, to give the connections back."""

    def __init__(self, transport: Transport) -> None:
        self.name = transport.name
        self._transport = transport

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, endpoint={self._transport.endpoint!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next `generate` opens new ones."""
        self._transport.close()


def _address(base_url: str, path: str) -> httpx2.URL:
    """The endpoint; a query such as Azure's ?api-version=... stays at its end."""
    import httpx2

    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise InputError(f"base_url is no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"base_url must look like http://localhost:8000/v1, got {base_url!r:.100}")
    return url.copy_with(path=url.path.rstrip("/") + path)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives seconds or a date; None when there is none to be read."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d*)?", value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


class OpenAIGenerator(Connected):
    """Greedy by default; several requests in flight, answers in the order of the prompts.

    base_url: up to and without "/chat/completions", e.g. "http://localhost:8000/v1". chat: False sends the prompt as it
    is to "/completions", for base models; one that goes on until the limit is no fault there. stop: texts before which
    the answer ends. system: a system turn before each
    prompt. limit_field: some models want "max_completion_tokens". extra_body: more fields of the request, e.g.
    {"seed": 0}. connection: api_key, timeout, retries, concurrency, backoff, max_wait; see `Transport`.
    Use it in a `with` block, or call `close`, to give the connections back. Raises InputError for `system` without a
    chat, and for a single string or an empty one as `stop`.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        chat: bool = True,
        stop: Sequence[str] = (),
        temperature: float | None = 0.0,
        system: str | None = None,
        limit_field: str = "max_tokens",
        extra_body: Mapping[str, Any] | None = None,
        **connection: Unpack[Connection],
    ) -> None:
        if system and not chat:
            raise InputError("a completion has no system turn; put its text into the prompt, or leave chat=True")
        if isinstance(stop, str) or not all(stop):
            raise InputError(f'stop must be a list of texts, such as ["\\n"], got {stop!r:.80}')
        path = "/chat/completions" if chat else "/completions"
        super().__init__(Transport(model, base_url=base_url, path=path, **connection))
        self.chat = chat
        self.system = system
        self._limit_field = limit_field
        self._fields: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        if stop:
            self._fields["stop"] = list(stop)
        self._fields |= extra_body or {}

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """What a user would see of each reply. Raises GeneratorError when a prompt fails for good, in which case no
        further request is begun, and for a reply that is no answer: empty, refused, cut off, only reasoning."""
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        checked = checked_prompts(prompts, max_new_tokens)
        read = chat_reply if self.chat else completion_reply

        def named(answer: Any) -> Reply:
            reply, model = read(answer), answer.get("model")
            return replace(reply, model=model) if isinstance(model, str) else reply

        return self._transport.replies(checked, lambda prompt: self._body(prompt, max_new_tokens), named)

    def _body(self, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        text = model_text(prompt)
        turns = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"messages": [*turns, {"role": "user", "content": text}]} if self.chat else {"prompt": text}
        return {"model": self.name, **asked, self._limit_field: max_new_tokens, **self._fields}
