"""Compress the marked context of one request, turn by turn, and say what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field, field_validator

from ctxprune.errors import BudgetError, CtxpruneError, InputError
from ctxprune.integrations.numbers import Whole
from ctxprune.integrations.server.compress import PATTERN_SIZE, job_from
from ctxprune.integrations.server.engine.jobs import Job, Outcome
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.gateway.policy import Mode
from ctxprune.integrations.server.patterns import Pattern
from ctxprune.integrations.server.proxy.context import (
    Conversation,
    Marking,
    SentTexts,
    Slot,
    Turn,
    anthropic_conversation,
    chat_conversation,
    find_turns,
    prompt_segments,
    replaced,
    responses_conversation,
    without_tags,
)
from ctxprune.integrations.server.proxy.marks import any_marked, is_marked, keeps_balance
from ctxprune.integrations.server.proxy.quoting import Patience, patience_for
from ctxprune.integrations.server.schemas import Options
from ctxprune.integrations.server.service import Service, checked_model, told_headers
from ctxprune.types import Document

#: Why a turn is left as it came without anything having failed.
_HARMLESS = ("no_question", "cached")


def conversation_keys(messages: Sequence[Any], turns: Sequence[Turn], *, scope: bytes = b"") -> list[bytes]:
    """A key for the messages up to the end of each turn, and for what is context in it; each message is read once.

    scope: what else must be the same: the caller, and the options that say how to compress. What one caller asked must
    never be what another one sends.
    """
    digest, keys, start = hashlib.blake2b(scope, digest_size=16), [], 0
    for turn in turns:
        for message in messages[start : turn.end]:
            digest.update(json.dumps(message, sort_keys=True).encode() + b"\n")
        marked = digest.copy()
        for segment in turn.segments:
            marked.update(f"{segment.row},{segment.path},{segment.start},{segment.end}\n".encode())
        keys.append(marked.digest())
        start = turn.end
    return keys


class ProxyOptions(Options):
    """The request's field `ctxprune`, which is not passed on."""

    enabled: bool | None = True
    mode: Mode | None = Field(
        default=None, description="on; off; audit (measure and log, change nothing); shadow: as audit on the proxy."
    )
    question: str | None = Field(default=None, max_length=20_000, description="Instead of the last user message.")
    messages: list[Whole] | None = Field(default=None, description="Indices of messages that are context.")

    @field_validator("mode")
    @classmethod
    def _as_by_default(cls, value: Mode | None) -> Mode | None:
        """What is asked for and would be done anyway is remembered as the same."""
        return None if value == "on" else value


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What to send upstream, and the headers that tell of it. reason: a word ("" when compressed). tokens_would_be:
    tokens_after, where nothing is changed; else None. saved_again: tokens of it that are of earlier turns, which the
    provider may have cached."""

    body: dict[str, Any]
    status: str
    reason: str = ""
    tokens_before: int = 0
    tokens_after: int = 0
    tokens_would_be: int | None = None
    saved_again: int = 0

    def headers(self) -> dict[str, str]:
        return told_headers(self.status, self.tokens_before, self.tokens_after, self.reason, self.tokens_would_be)


@dataclass(slots=True)
class Texts:
    """Compressed text by segment, and why some have none."""

    by_segment: dict[Slot, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Chat:
    """One request's marked context. keys: what stands for the conversation up to the end of each turn. build: the
    request's body with texts in place of segments. seconds: how long the caller waits for the compression. caller: as
    of `caller_of`. size: of the request, in bytes. left: segments that stay as they come, unless they were sent
    otherwise before. cause: why the search for more was given up ("" when it was not)."""

    turns: Sequence[Turn]
    keys: Sequence[bytes]
    options: ProxyOptions
    build: Callable[[Mapping[Slot, str]], dict[str, Any]]
    seconds: float
    caller: bytes
    size: int
    left: frozenset[Slot] = frozenset()
    cause: str = ""

    @property
    def segments(self) -> list[Slot]:
        return [segment for turn in self.turns for segment in turn.segments]


class ProxyCompressor:
    """Remembers what each turn was sent as, compressed or not, so that later turns send the same again."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._memory = SentTexts(service.settings.proxy_memory_bytes)

    async def chat(self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes) -> Rewriting:
        """size: of the body in bytes. Raises ApiError 422 for a wrong `ctxprune` field; what fails later raises only
        when set to fail closed."""
        return await self._rewritten(size, lambda: self._chat(body, size, seconds, caller))

    async def anthropic(self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes) -> Rewriting:
        """The same for Anthropic messages. What stands up to the last `cache_control` mark stays as it came, or as it
        was sent, unless the server is set to prune it."""
        return await self._read_as(anthropic_conversation, body, size, seconds, caller)

    async def responses(self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes) -> Rewriting:
        """The same for OpenAI responses."""
        return await self._read_as(responses_conversation, body, size, seconds, caller)

    async def _read_as(
        self,
        read: Callable[[Mapping[str, Any]], Conversation],
        body: Mapping[str, Any],
        size: int,
        seconds: float | None,
        caller: bytes,
    ) -> Rewriting:
        return await self._rewritten(size, lambda: self._marked(read(body), proxy_options(body), size, seconds, caller))

    async def completion(
        self, body: Mapping[str, Any], *, size: int, seconds: float | None, caller: bytes
    ) -> Rewriting:
        """The same for a plain prompt, where context stands in `<context>` blocks."""
        return await self._rewritten(size, lambda: self._completion(body, size, seconds, caller))

    async def _rewritten(self, size: int, find: Callable[[], Rewriting | Chat]) -> Rewriting:
        """Marks are looked for in a thread: a prompt is as long as its caller likes."""
        chat = await self.service.engine.in_thread(find, size=size)
        return chat if isinstance(chat, Rewriting) else await self._guarded(chat)

    def _chat(self, body: Mapping[str, Any], size: int, seconds: float | None, caller: bytes) -> Rewriting | Chat:
        options, rest = proxy_options(body), _passed_on(body)
        if not isinstance(body.get("messages"), list):
            return Rewriting(rest, "passthrough", "no_messages")
        return self._marked(chat_conversation(body), options, size, seconds, caller)

    def _marked(
        self, conversation: Conversation, options: ProxyOptions, size: int, seconds: float | None, caller: bytes
    ) -> Rewriting | Chat:
        messages, fallback = conversation.messages, conversation.with_texts({})
        if options.enabled is False:
            return Rewriting(fallback, "passthrough", "disabled")
        patience = self._patience(seconds)
        turns = find_turns(messages, self._marking(options, conversation), patience)
        self._check_closed(patience)
        if not turns and patience.cause:
            return self._unread(fallback, patience)
        if not turns:
            return Rewriting(fallback, "passthrough", "unclear_marks" if any_marked(messages) else "no_context")
        keys = conversation_keys(without_tags(messages), turns, scope=scope_of(caller, options))
        segments = (segment for turn in turns for segment in turn.segments)
        left = frozenset[Slot]() if self.service.settings.prune_cached else conversation.cached(segments)
        build, waits = conversation.with_texts, patience.seconds
        return Chat(turns, keys, options, build, waits, caller, size, left=left, cause=patience.cause)

    def _completion(self, body: Mapping[str, Any], size: int, seconds: float | None, caller: bytes) -> Rewriting | Chat:
        options, rest = proxy_options(body), _passed_on(body)
        prompt = rest.get("prompt")
        if options.enabled is False:
            return Rewriting(rest, "passthrough", "disabled")
        if not isinstance(prompt, str):
            return Rewriting(rest, "passthrough", "no_text_prompt")
        patience = self._patience(seconds)
        segments, question = prompt_segments(prompt, patience)
        self._check_closed(patience)
        if patience.cause:
            return self._unread(rest, patience)
        if not segments:
            return Rewriting(rest, "passthrough", "unclear_marks" if is_marked(prompt) else "no_context")
        turns = [Turn(segments, question, 1, is_new=True)]
        clean = [{"role": "user", "content": prompt}]
        keys = conversation_keys(clean, turns, scope=scope_of(caller, options))

        def with_texts(texts: Mapping[Slot, str]) -> dict[str, Any]:
            return rest | {"prompt": replaced(clean, texts)[0]["content"]}

        return Chat(turns, keys, options, with_texts, patience.seconds, caller, size)

    def _patience(self, seconds: float | None) -> Patience:
        return patience_for(seconds, self.service.settings.deadline_seconds)

    def _check_closed(self, patience: Patience) -> None:
        if patience.cause and self.service.settings.fail_closed:
            raise ApiError(503, "the messages could not be searched for context", code=patience.cause)

    def _unread(self, body: dict[str, Any], patience: Patience) -> Rewriting:
        self.service.metrics.degraded(patience.cause)
        return Rewriting(body, "degraded", patience.cause)

    def _marking(self, options: ProxyOptions, conversation: Conversation) -> Marking:
        listed, shift = frozenset(options.messages or ()), conversation.shift
        length = len(conversation.messages) - shift
        if wrong := [at for at in listed if not 0 <= at < length]:
            raise ApiError(422, f"ctxprune.messages must be indices below {length}, got {wrong[0]}")
        return Marking(name=self.service.settings.context_name, listed=frozenset(at + shift for at in listed))

    async def _guarded(self, chat: Chat) -> Rewriting:
        came = await self.or_cause(self._compressed(chat), "the context could not be compressed")
        if isinstance(came, Rewriting):
            return came
        return await self.service.engine.in_thread(lambda: self._degraded(chat, came), size=chat.size)

    async def or_cause(self, work: Awaitable[Rewriting], failure: str) -> Rewriting | str:
        """Fail open: whatever goes wrong, the original goes upstream and the headers say why, in a word, which is given
        here. Raises ApiError 422 for the caller's own options, 503 when set to fail closed. failure: for the log."""
        is_closed = self.service.settings.fail_closed
        try:
            return await work
        except (InputError, BudgetError) as error:  # an unknown compressor, no budget
            raise ApiError(422, f"ctxprune: {error}") from None
        except ApiError as error:
            if is_closed:
                raise ApiError(503, error.message, code=error.code, retry_after=error.retry_after) from None
            return error.code or "refused"
        except Exception as error:
            self.service.log.exception(failure, error=type(error).__name__)
            if is_closed:
                raise ApiError(503, failure, code="compression_failed") from None
            return "internal"

    async def _compressed(self, chat: Chat) -> Rewriting:
        texts = await self._compress(chat)
        return await self.service.engine.in_thread(lambda: self._rewriting(chat, texts), size=chat.size)

    def _degraded(self, chat: Chat, reason: str) -> Rewriting:
        """Older turns as they were sent before, the new ones as they came."""
        self.service.metrics.degraded(reason)
        texts = Texts()
        for turn, key in zip(chat.turns, chat.keys, strict=True):
            self._recall(texts, turn, key, chat.left)
        self._remember(chat, texts)
        return Rewriting(chat.build(texts.by_segment), "degraded", reason)

    def _recall(self, texts: Texts, turn: Turn, key: bytes, left: frozenset[Slot]) -> bool:
        """Whether it is known how the turn was sent before. A new turn was not, or its caller tries again; but what the
        provider keeps of it is sent as it was."""
        if turn.is_new and left.isdisjoint(turn.segments):
            return False
        known = self._memory.get(key, turn.segments)
        texts.by_segment |= known or {}
        return bool(known) if turn.is_new else known is not None

    def _remember(self, chat: Chat, texts: Texts) -> None:
        for turn, key in zip(chat.turns, chat.keys, strict=True):
            self._memory.put(key, turn.segments, texts.by_segment)

    async def _compress(self, chat: Chat) -> Texts:
        texts = Texts(causes=[chat.cause] if chat.cause else [])
        waiting: list[tuple[Turn, str]] = []
        for turn, key in zip(chat.turns, chat.keys, strict=True):
            given = chat.options.question or ""
            question = (given or turn.question) if turn.is_new else (turn.question or given)
            if self._recall(texts, turn, key, chat.left):
                continue
            segments = tuple(segment for segment in turn.segments if segment not in chat.left)
            if segments and question:
                waiting.append((replace(turn, segments=segments), question))
            else:
                texts.causes.append("no_question" if segments else "cached")
        if waiting:
            self._check_size([turn for turn, _ in waiting])
            engine = self.service.engine
            size = chat.size + PATTERN_SIZE * len(chat.options.protect or ())
            jobs = await engine.in_thread(lambda: self._jobs(waiting, chat), size=size)
            # a turn that went upstream whole, only because the server had just started, would stay whole in all later
            # requests of its conversation
            outcomes = await engine.compress(jobs, seconds=chat.seconds, wait_for_model=True)
            await engine.in_thread(lambda: _take(texts, [turn for turn, _ in waiting], outcomes), size=chat.size)
        self._remember(chat, texts)
        return texts

    def _check_size(self, turns: Sequence[Turn]) -> None:
        limit, documents = self.service.settings.max_documents, sum(len(turn.segments) for turn in turns)
        if documents > limit:
            raise ApiError(413, f"at most {limit} stretches of context, got {documents}", code="too_many_documents")

    def _jobs(self, waiting: Sequence[tuple[Turn, str]], chat: Chat) -> list[Job]:
        compiled: dict[str, Pattern] = {}
        return [
            job_from(
                chat.options,
                self.service,
                query=question,
                documents=[Document(segment.text) for segment in turn.segments],
                caller=chat.caller,
                known=compiled,
            )
            for turn, question in waiting
        ]

    def _rewriting(self, chat: Chat, texts: Texts) -> Rewriting:
        before = [segment.text for segment in chat.segments]
        after = [texts.by_segment.get(segment, segment.text) for segment in chat.segments]
        counter = self.service.engine.runner.catalog.counter(chat.options.tokenizer or "default")
        counts = counter.count([*before, *after])
        degraded = next((cause for cause in texts.causes if cause not in _HARMLESS), "")
        status = "degraded" if degraded else "compressed" if before != after else "passthrough"
        reason = degraded or (texts.causes[0] if texts.causes else "" if before != after else "nothing_to_remove")
        is_new = [turn.is_new for turn in chat.turns for _ in turn.segments]
        old, new = counts[: len(before)], counts[len(before) :]
        again = sum(one - other for one, other, fresh in zip(old, new, is_new, strict=True) if not fresh)
        return Rewriting(chat.build(texts.by_segment), status, reason, sum(old), sum(new), saved_again=again)


def _take(texts: Texts, turns: Sequence[Turn], outcomes: Sequence[Outcome]) -> None:
    for turn, outcome in zip(turns, outcomes, strict=True):
        if outcome.cause:
            texts.causes.append(outcome.cause)
            continue
        by_index = {extract.index: extract.text for extract in outcome.result.after.extracts}
        if len(by_index) != len(turn.segments):
            raise CtxpruneError(f"{outcome.result.compressor} gives no text for each document; name another")
        for index, segment in enumerate(turn.segments):
            # markup within a sentence goes with it; where half of a pair would stay, all of the stretch does
            is_whole = keeps_balance(segment.text, by_index[index])
            texts.by_segment[segment] = by_index[index] if is_whole else segment.text


def scope_of(caller: bytes, options: ProxyOptions) -> bytes:
    """What a remembered text belongs to: a caller, and how that one wants it compressed. The question is the text's own
    and may change with the next turn; which messages are context is in its key."""
    how = options.model_dump_json(exclude={"question", "messages", "enabled"}, exclude_defaults=True)
    return hashlib.blake2b(caller + how.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def proxy_options(body: Mapping[str, Any]) -> ProxyOptions:
    """Of a request's field `ctxprune`. Raises ApiError 422."""
    given = body.get("ctxprune")
    return checked_model(ProxyOptions, {} if given is None else given, place=("ctxprune",))


def _passed_on(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "ctxprune"}
