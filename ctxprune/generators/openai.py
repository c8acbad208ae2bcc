"""Any endpoint that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, hosted models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from ctxprune.generators.base import checked_prompts
from ctxprune.generators.replies import Reply, chat_reply
from ctxprune.generators.transport import Connected, Connection, Transport
from ctxprune.text import model_text


class OpenAIGenerator(Connected):
    """Greedy by default; several requests in flight, answers in the order of the prompts.

    base_url: up to and without "/chat/completions", e.g. "http://localhost:8000/v1". system: a system turn before each
    prompt. limit_field: some models want "max_completion_tokens". extra_body: more fields of the request, e.g.
    {"seed": 0}. connection: api_key, timeout, retries, concurrency, backoff, max_wait; see `Transport`.
    Use it in a `with` block, or call `close`, to give the connections back.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        temperature: float | None = 0.0,
        system: str | None = None,
        limit_field: str = "max_tokens",
        extra_body: Mapping[str, Any] | None = None,
        **connection: Unpack[Connection],
    ) -> None:
        super().__init__(Transport(model, base_url=base_url, path="/chat/completions", **connection))
        self.system = system
        self._limit_field = limit_field
        self._fields = ({} if temperature is None else {"temperature": temperature}) | dict(extra_body or {})

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """What a user would see of each reply. Raises GeneratorError when a prompt fails for good, in which case no
        further request is begun, and for a reply that is no answer: empty, refused, cut off, only reasoning."""
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        checked = checked_prompts(prompts, max_new_tokens)
        return self._transport.replies(checked, lambda prompt: self._body(prompt, max_new_tokens), chat_reply)

    def _body(self, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        turns = [{"role": "system", "content": self.system}] if self.system else []
        turns.append({"role": "user", "content": model_text(prompt)})
        return {"model": self.name, "messages": turns, self._limit_field: max_new_tokens, **self._fields}
