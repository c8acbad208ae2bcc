"""Prune the tool results of a request, each for its own question and by its shape, and the same way on every turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxprune.cache import BoundedCache, key_of
from ctxprune.integrations.originals import gives_originals
from ctxprune.integrations.server.compress import job_from
from ctxprune.integrations.server.engine.jobs import Job, Outcome
from ctxprune.integrations.server.engine.queue import CHARACTERS_A_TOKEN
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.proxy.compress import (
    ProxyCompressor,
    ProxyOptions,
    Rewriting,
    proxy_options,
    scope_of,
)
from ctxprune.integrations.server.proxy.wires import Wire, anthropic_results, chat_results
from ctxprune.integrations.server.service import Service
from ctxprune.integrations.tool_calls import Path, ToolResult, responses_results, with_texts
from ctxprune.prompt import piece_text
from ctxprune.types import Document

#: Bytes of an entry besides its text, about.
_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class Sent:
    """What a result was sent as, and its tokens before and after: 0 where nobody could count them."""

    text: str
    before: int
    after: int


class ToolResultPruner:
    """Prunes tool results where `tool_message_tokens` is set, and remembers what each was sent as.

    What is remembered is looked up by the result's text and question, so a later request of the conversation sends the
    same bytes again, also where the first one could not be pruned in time.
    """

    def __init__(self, service: Service, compressor: ProxyCompressor) -> None:
        self.service, self.compressor = service, compressor
        self._sent: BoundedCache[bytes, Sent] = BoundedCache(
            service.settings.proxy_memory_bytes, weigh=lambda sent: _OVERHEAD + 4 * len(sent.text)
        )

    async def chat(self, body: Mapping[str, Any], *, caller: bytes = b"", **how: Any) -> Rewriting:
        """OpenAI chat: what is marked as context, then what tools gave."""
        marked = await self.compressor.chat(body, caller=caller, **how)
        name = self.service.settings.context_name

        def unmarked(body: Mapping[str, Any]) -> list[ToolResult]:
            return [each for each in chat_results(body) if body["messages"][each.path[1]].get("name") != name]

        return await self._pruned(body, marked, unmarked, caller, how.get("seconds"))

    async def anthropic(self, body: Mapping[str, Any], *, caller: bytes = b"", **how: Any) -> Rewriting:
        """Anthropic messages. What stands up to the last `cache_control` mark is as it came, or as it was sent."""
        marked = await self.compressor.anthropic(body, caller=caller, **how)
        return await self._pruned(body, marked, anthropic_results, caller, how.get("seconds"))

    async def responses(self, body: Mapping[str, Any], *, caller: bytes = b"", **how: Any) -> Rewriting:
        """OpenAI responses."""
        marked = await self.compressor.responses(body, caller=caller, **how)
        return await self._pruned(body, marked, responses_results, caller, how.get("seconds"))

    async def _pruned(
        self, body: Mapping[str, Any], base: Rewriting, wire: Wire, caller: bytes, seconds: float | None
    ) -> Rewriting:
        """Fail open, as for marked context: whatever goes wrong, what tools gave goes upstream as it is."""
        options = proxy_options(body)
        limit = self.service.settings.tool_message_tokens
        if options.enabled is False:
            return replace(base, reason="disabled")
        if limit is None:
            return base
        results = await self.service.engine.in_thread(lambda: self._long(wire(body), options, limit))
        if not results:
            return base
        work = self._rewriting(base, results, options, caller, seconds)
        came = await self.compressor.or_cause(work, "tool results could not be pruned")
        return came if isinstance(came, Rewriting) else self._degraded(base, results, options, caller, came)

    def _long(self, results: Sequence[ToolResult], options: ProxyOptions, limit: int) -> list[ToolResult]:
        """Those worth pruning, with the request's own question for the newest ones."""
        listed = set(options.messages or ())
        return [
            replace(each, question=options.question or each.question) if each.is_new else each
            for each in results
            if len(each.text) // CHARACTERS_A_TOKEN > limit
            and each.path[1] not in listed
            and not gives_originals(each.tool)
        ]

    async def _rewriting(
        self,
        base: Rewriting,
        results: Sequence[ToolResult],
        options: ProxyOptions,
        caller: bytes,
        seconds: float | None,
    ) -> Rewriting:
        engine = self.service.engine
        keys = await engine.in_thread(lambda: [_key(each, options, caller) for each in results])
        sent = self._recalled(results, keys)
        leave = {each.path for each in results if each.is_cached and not self.service.settings.prune_cached}
        waiting = [
            each for each in results if each.path not in sent and each.path not in leave and each.question.strip()
        ]
        causes: list[str] = []
        if waiting:
            self._check_size(len(waiting))
            jobs = await engine.in_thread(lambda: [self._job(each, options, caller) for each in waiting])
            outcomes = await engine.compress(jobs, seconds=seconds, wait_for_model=True)
            for each, outcome in zip(waiting, outcomes, strict=True):
                causes += [outcome.cause] if outcome.cause else []
                text = each.text if outcome.cause else _text(outcome)
                sent[each.path] = Sent(text, outcome.result.tokens_before, outcome.result.tokens_after)
        left = [each for each in results if each.path not in sent]
        for each, tokens in zip(left, await self._counted(left, options), strict=True):
            sent[each.path] = Sent(each.text, tokens, tokens)
        for each, key in zip(results, keys, strict=True):
            self._sent.put(key, sent[each.path])
        return _told(base, results, sent, causes)

    async def _counted(self, results: Sequence[ToolResult], options: ProxyOptions) -> list[int]:
        """Tokens of results that nothing was done with."""
        if not results:
            return []
        counter = self.service.engine.runner.catalog.counter(options.tokenizer or "default")
        return await self.service.engine.in_thread(lambda: counter.count([each.text for each in results]))

    def _check_size(self, results: int) -> None:
        limit = self.service.settings.max_documents
        if results > limit:
            raise ApiError(413, f"at most {limit} tool results at a time, got {results}", code="too_many_documents")

    def _recalled(self, results: Sequence[ToolResult], keys: Sequence[bytes]) -> dict[Path, Sent]:
        """As they were sent before. A new one that went as it was may have failed, so its caller's retry is a retry."""
        sent: dict[Path, Sent] = {}
        for each, key in zip(results, keys, strict=True):
            before = self._sent.get(key)
            if before is not None and not (each.is_new and before.text == each.text):
                sent[each.path] = before
        return sent

    def _job(self, result: ToolResult, options: ProxyOptions, caller: bytes) -> Job:
        job = job_from(options, self.service, query=result.question, documents=[Document(result.text)], caller=caller)
        budget = self.service.settings.tool_message_budget
        if job.budget is None and job.rate is None and job.threshold is None and job.operating_point is None:
            job = replace(job, budget=budget)
        return replace(job, is_tool_output=True)

    def _degraded(
        self, base: Rewriting, results: Sequence[ToolResult], options: ProxyOptions, caller: bytes, cause: str
    ) -> Rewriting:
        self.service.metrics.degraded(cause)
        keys = [_key(each, options, caller) for each in results]
        sent = self._recalled(results, keys)
        for each, key in zip(results, keys, strict=True):
            self._sent.put(key, sent.setdefault(each.path, Sent(each.text, 0, 0)))
        return replace(_told(base, results, sent, [cause]), status="degraded", reason=cause)


def _told(
    base: Rewriting, results: Sequence[ToolResult], sent: Mapping[Path, Sent], causes: Sequence[str]
) -> Rewriting:
    """Both rewritings as one: the counts are of all that was looked at."""
    changed = {each.path: sent[each.path].text for each in results if sent[each.path].text != each.text}
    status, reason = base.status, base.reason
    if causes and status != "degraded":
        status, reason = "degraded", causes[0]
    elif changed and status == "passthrough":
        status, reason = "compressed", ""
    elif not changed and status == "passthrough":
        reason = "cached" if all(each.is_cached for each in results) else "nothing_to_remove"
    of = [(each, sent[each.path]) for each in results]
    return Rewriting(
        with_texts(base.body, changed) if changed else base.body,
        status,
        reason,
        base.tokens_before + sum(one.before for _, one in of),
        base.tokens_after + sum(one.after for _, one in of),
        saved_again=base.saved_again + sum(one.before - one.after for each, one in of if not each.is_new),
    )


def _text(outcome: Outcome) -> str:
    return "".join(map(piece_text, outcome.result.after.pieces))


def _key(result: ToolResult, options: ProxyOptions, caller: bytes) -> bytes:
    """Of whoever asks, how, for what, and of what; the place in the conversation does not matter."""
    return key_of(result.question, result.text, scope=scope_of(caller, options))
