"""Any endpoint that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, hosted models."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from ctxprune.errors import GeneratorError, InputError
from ctxprune.generators.base import checked_prompts
from ctxprune.text import model_text

if TYPE_CHECKING:
    import httpx2

#: Worth another try: the server timed out, is busy, or failed.
RETRIED_STATUS = frozenset({408, 429, *range(500, 600)})


class OpenAIGenerator:
    """Greedy by default; several requests in flight, answers in the order of the prompts.

    base_url: up to and without "/chat/completions", e.g. "http://localhost:8000/v1". timeout: seconds without a word
    from the server. retries: further tries after 408, 429, a 5xx, a timeout or a broken connection, each after the
    server's Retry-After, else `backoff` seconds doubled a try, with jitter; never over `max_wait` seconds.
    concurrency: requests in flight. system: a system turn before each prompt. limit_field: some models want
    "max_completion_tokens". extra_body: more fields of the request, e.g. {"seed": 0}.
    Use it in a `with` block, or call `close`, to give the connections back.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
        backoff: float = 0.5,
        max_wait: float = 60.0,
        temperature: float | None = 0.0,
        system: str | None = None,
        limit_field: str = "max_tokens",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError("api_key must be printable ASCII without spaces; check it for a line break at its end")
        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise InputError(
                "timeout must be positive, retries at least 0 and concurrency at least 1, "
                f"got timeout={timeout}, retries={retries}, concurrency={concurrency}"
            )
        self.name = model
        self._url = _completions_url(base_url)
        self.timeout = timeout
        self.retries = retries
        self.concurrency = concurrency
        self.backoff = backoff
        self.max_wait = max_wait
        self.system = system
        self._api_key = api_key
        self._limit_field = limit_field
        self._fields = ({} if temperature is None else {"temperature": temperature}) | dict(extra_body or {})

    def __repr__(self) -> str:
        return f"OpenAIGenerator({self.name!r}, base_url={self._endpoint!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next `generate` opens new ones."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """Raises GeneratorError when a prompt fails for good; no further request is begun then."""
        requests = [self._body(prompt, max_new_tokens) for prompt in checked_prompts(prompts, max_new_tokens)]
        client = self._client
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="ctxprune-generate") as pool:
            answers = [pool.submit(self._answer, client, body) for body in requests]
            try:
                done, _ = wait(answers, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        for answer in done:
            answer.result()
        return [answer.result() for answer in answers]

    @cached_property
    def _client(self) -> httpx2.Client:
        import httpx2

        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        return httpx2.Client(headers=headers, timeout=self.timeout, limits=limits)

    @property
    def _endpoint(self) -> str:
        """The address as messages may show it: without a user name, password or query."""
        return str(self._url.copy_with(userinfo=b"", query=None))

    def _body(self, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        turns = [{"role": "system", "content": self.system}] if self.system else []
        turns.append({"role": "user", "content": model_text(prompt)})
        return {"model": self.name, "messages": turns, self._limit_field: max_new_tokens, **self._fields}

    def _answer(self, client: httpx2.Client, body: dict[str, Any]) -> str:
        for attempt in range(self.retries + 1):
            response, problem = self._post(client, body)
            if response is not None and response.is_success:
                return self._text(response)
            last = attempt == self.retries or (response is not None and response.status_code not in RETRIED_STATUS)
            if last:
                break
            time.sleep(self._wait(attempt, response))
        tries = f"{attempt + 1} {'try' if attempt == 0 else 'tries'}"
        raise GeneratorError(self._redacted(f"{self.name} at {self._endpoint} failed after {tries}: {problem}"))

    def _post(self, client: httpx2.Client, body: dict[str, Any]) -> tuple[httpx2.Response | None, str]:
        """(the response if there was one, what went wrong if anything did)."""
        import httpx2

        try:
            response = client.post(self._url, json=body)
        except httpx2.TimeoutException:
            return None, f"no answer within {self.timeout} seconds; raise timeout= or lower concurrency="
        except httpx2.TransportError as error:
            return None, f"{type(error).__name__}: {error}; check base_url= and that the server runs"
        return response, f"HTTP {response.status_code}: {response.text[:500]}"

    def _wait(self, attempt: int, response: httpx2.Response | None) -> float:
        """Seconds until the next try."""
        asked = _retry_after(response.headers.get("retry-after")) if response is not None else None
        # jitter, so that requests that failed together do not come back together
        seconds = self.backoff * 2**attempt * random.uniform(0.5, 1.0) if asked is None else asked
        return min(seconds, self.max_wait)

    def _text(self, response: httpx2.Response) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = response
        if content is None:  # a filtered or empty answer
            return ""
        if not isinstance(content, str):
            shown = f"{self.name} at {self._endpoint} sent no chat completion: {response.text[:500]}"
            raise GeneratorError(self._redacted(shown))
        return content.strip()

    def _redacted(self, message: str) -> str:
        """Servers like to quote the key that they reject."""
        return message.replace(self._api_key, "***") if self._api_key else message


def _completions_url(base_url: str) -> httpx2.URL:
    """The endpoint; a query such as Azure's ?api-version=... stays at its end."""
    import httpx2

    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise InputError(f"base_url is no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"base_url must look like http://localhost:8000/v1, got {base_url!r:.100}")
    return url.copy_with(path=url.path.rstrip("/") + "/chat/completions")


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
