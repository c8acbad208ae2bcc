"""Prune what a conversation retrieved, once: the same row goes out with the same bytes at every later turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import BudgetError, InputError
from ctxprune.integrations.originals import Originals, marked, marked_hash
from ctxprune.integrations.server.compress import job_from
from ctxprune.integrations.server.engine.jobs import Job
from ctxprune.integrations.server.engine.queue import CHARACTERS_A_TOKEN
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.gateway.ledger import Counts, Ledger, Sums, saved_money
from ctxprune.integrations.server.gateway.messages import (
    Conversation,
    is_prose,
    is_structured,
    lexical_cut,
    row_texts,
    shortened_question,
)
from ctxprune.integrations.server.gateway.policy import GatewayOptions, model_table
from ctxprune.integrations.server.gateway.work import (
    Ask,
    Pruned,
    RowMemory,
    Work,
    failure,
    prefix_keys,
    question_of,
    reason_of,
    row_keys,
    scope_of,
    take,
    without_question,
)
from ctxprune.integrations.server.proxy.context import Marking, Slot, by_place, replaced
from ctxprune.integrations.server.proxy.quoting import Patience, patience_for
from ctxprune.integrations.server.service import Service
from ctxprune.integrations.tool_calls import Path, value_at
from ctxprune.types import Document, TokenCounter

#: Tool results and blocks of fewer tokens stay: there is little to gain.
MIN_TOKENS = 32


class ConversationPruner:
    """Over one service. originals, ledger: for those who ask for them."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.service = service
        self.models = model_table(settings.gateway_models, settings.gateway_models_file)
        self.ledger = Ledger(service.metrics.registry, cost_per_hour=settings.gateway_cost_per_hour)
        self.originals = Originals(
            settings.originals_bytes,
            max_age=settings.originals_seconds,
            share=service.engine.share,
            path=settings.originals_path,
        )
        service.metrics.watch("originals_bytes", "Size of the originals that are kept.", lambda: self.originals.weight)
        self._memory = RowMemory(settings.proxy_memory_bytes)
        self._counts = Counts(settings.proxy_memory_bytes)

    async def prune(self, ask: Ask) -> Pruned:
        """Raises ApiError 422 for options that cannot be, and 503 when set to fail closed."""
        if ask.mode == "off":
            self.ledger.request(ask.key, Sums(), dialect=ask.dialect, mode="off", status="passthrough")
            reason = "bypassed" if ask.bypass else "off"
            return Pruned(messages=ask.messages, status="passthrough", reason=reason)
        began = time.perf_counter()
        try:
            patience = patience_for(ask.seconds, self.service.settings.deadline_seconds)
            work = await self.service.engine.in_thread(lambda: self._read(ask, patience))
            await self._work_on(work)
            pruned = await self.service.engine.in_thread(lambda: self._finish(work))
        except ApiError:
            raise
        except Exception as error:  # a full disk below the originals, say
            return self._untouched(ask, error)
        return self._told(work, pruned, time.perf_counter() - began)

    async def _work_on(self, work: Work) -> None:
        """Fail open, or closed where that is set. Raises ApiError."""
        try:
            await self._decide(work)
        except (InputError, BudgetError) as error:  # of the caller's own options
            raise ApiError(422, f"ctxprune: {error}") from None
        except ApiError as error:
            if error.status == 422:
                raise
            work.causes.append(error.code or "refused")
        except Exception as error:
            self.service.log.exception("a conversation could not be pruned", error=type(error).__name__)
            work.causes.append("internal")
        self._check_closed(work.ask, work.causes)

    def _untouched(self, ask: Ask, error: Exception) -> Pruned:
        self.service.log.exception("a conversation could not be read", exc_info=error)
        self._check_closed(ask, ["internal"])
        sums = Sums(degraded=1)
        self.ledger.request(ask.key, sums, dialect=ask.dialect, mode=ask.mode, status="degraded")
        return Pruned(messages=ask.messages, status="degraded", reason="internal")

    def counted(self, texts: Sequence[str]) -> list[int]:
        """Numbers of tokens; an estimate until the model is loaded."""
        return self._counts.count(texts, self._counter())

    async def count(self, texts: Sequence[str]) -> list[int]:
        """The same, in a thread."""
        return await self.service.engine.in_thread(lambda: self.counted(texts))

    def _read(self, ask: Ask, patience: Patience) -> Work:
        """What may be pruned, and what of it was decided before."""
        options, settings = ask.options, self.service.settings
        marking = Marking(name=settings.context_name, blocks=tuple(options.blocks or ()))
        conversation = Conversation(ask.messages, marking, patience)
        keys_of = prefix_keys if ask.sees_all else row_keys
        keys = keys_of(ask.messages, scope=scope_of(ask))
        tokens = self.counted([row_texts(message) for message in ask.messages])
        work = Work(ask, conversation, keys, tokens)
        if conversation.cause:
            work.causes.append(conversation.cause)  # what was not read goes on as it came
        size = number = 0
        for slot in conversation.slots:
            if slot.row < ask.frozen or self._is_marked(ask, slot):
                continue
            size += len(slot.text)
            number += 1
            if size > settings.max_body_bytes or number > settings.max_documents:
                work.causes.append("too_large")  # the rest goes on as it came
                break
            work.by_row.setdefault(slot.row, []).append(slot)
        self._recall(work)
        return work

    def _is_marked(self, ask: Ask, slot: Slot) -> bool:
        """Whether the text was pruned before, by us for this caller, and kept so by the client."""
        found = marked_hash(slot.text)
        return found is not None and self.originals.get(ask.caller, found) is not None

    def _recall(self, work: Work) -> None:
        """Take over what rows were sent as; the others are fresh, but for those that the provider has cached whole.
        Where nothing is changed, all is as it would be: what was decided on before would be sent, and paid, as such."""
        frozen, seen = work.conversation.frozen, self._memory.seen(work.keys)
        is_open = self._is_open(work)
        for row, slots in work.by_row.items():
            sent = self._memory.get(work.keys[row], slots)
            if sent is not None:
                work.texts |= sent
                work.saved_again += self._saved(sent)
            elif row >= frozen and is_open:
                work.fresh.append(row)
        broken = min(work.fresh if work.ask.mode == "on" else (), default=len(work.keys))
        work.prefix_tokens = sum(work.tokens[: min(seen, broken)])

    def _is_open(self, work: Work) -> bool:
        """Whether the conversation is large enough for its model."""
        is_open = self.fills(work.ask.options.window_share, work.ask.model, sum(work.tokens))
        work.causes += [] if is_open else ["small_conversation"]
        return is_open

    def fills(self, share: float | None, model: str, tokens: int) -> bool:
        """Whether so many tokens are that share of the model's window; true where either is not known."""
        info = self.models.get(model)
        if share is None or info is None or info.max_input_tokens is None:
            return True
        return tokens >= share * info.max_input_tokens

    def _saved(self, texts: Mapping[Slot, str]) -> int:
        before, after = self.counted([slot.text for slot in texts]), self.counted(list(texts.values()))
        return max(sum(before) - sum(after), 0)

    def _counter(self) -> TokenCounter | None:
        engine = self.service.engine
        return engine.runner.catalog.counter("default") if engine.ready else None

    async def _decide(self, work: Work) -> None:
        """Fill in the texts of fresh rows."""
        if not work.fresh:
            return
        engine, patience = self.service.engine, work.conversation.patience
        if not engine.ready:
            if self.service.failure:
                raise ApiError(503, "the model failed to load", code="model")
            await engine.compress([], seconds=patience.seconds, wait_for_model=True)
        jobs = await self.service.engine.in_thread(lambda: self._jobs(work))
        for group in await self.service.engine.in_thread(lambda: list(self._groups(jobs))):
            try:
                outcomes = await engine.compress([job for _, job in group], seconds=patience.seconds)
            except ApiError as error:
                work.causes.append(error.code or "refused")
                continue
            for (slots, job), outcome in zip(group, outcomes, strict=True):
                take(work, slots, job, outcome)

    def _jobs(self, work: Work) -> list[tuple[list[Slot], Job]]:
        """One job for what came together; what comes in a later turn changes nothing in it."""
        groups: dict[tuple[object, ...], list[Slot]] = {}
        for row in work.fresh:
            for slot in self._large_enough(work, row):
                groups.setdefault(self._together(work, slot), []).append(slot)
        jobs = ((slots, self._job(work, slots[0].row, slots)) for slots in groups.values())
        return [(slots, job) for slots, job in jobs if job is not None]

    def _together(self, work: Work, slot: Slot) -> tuple[object, ...]:
        """What is judged together has this in common: the marks of a row, and the prose that tools gave in one turn, of
        which some may answer the question and others not. Other results are judged each by itself, for their form."""
        ask = work.ask
        if slot.kind != "tool":
            return ("marks", slot.row)
        whole = ask.sees_all and ask.questions is None and ask.options.budget is None and ask.options.rate is None
        if whole and self._scores(ask.options.compressor) and is_prose(slot.text):
            return ("turn", work.conversation.turn(slot.row), question_of(work, slot.row, slot))
        return ("result", slot.row, slot.path)

    def _large_enough(self, work: Work, row: int) -> list[Slot]:
        least = MIN_TOKENS if work.ask.options.min_tokens is None else work.ask.options.min_tokens
        slots = work.by_row[row]
        numbers = self.counted([slot.text for slot in slots])
        return [slot for slot, number in zip(slots, numbers, strict=True) if slot.kind == "marked" or number >= least]

    def _job(self, work: Work, row: int, slots: Sequence[Slot]) -> Job | None:
        options, settings, ask = work.ask.options, self.service.settings, work.ask
        question = question_of(work, row, slots[0])
        is_tool = slots[0].kind == "tool"
        is_data = is_tool and is_structured(slots[0].text)
        limit = settings.gateway_read_tokens * CHARACTERS_A_TOKEN
        texts = [slot.text if is_data else lexical_cut(slot.text, question, characters=limit) for slot in slots]
        documents = [Document(text) for text in texts]
        if not question and not self._needs_none(options.compressor):
            agnostic = settings.gateway_agnostic
            if agnostic not in settings.compressors or not all(map(is_prose, texts)):
                work.causes.append("no_question")
                return None
            options = without_question(options, str(agnostic))
        elif not options.compressor:
            options = self._careful(options)
        keeps_form = is_tool and len(slots) == 1 and self._scores(options.compressor)
        if is_data and not keeps_form:
            work.causes.append("no_question")
            return None
        query = shortened_question(question)
        job = job_from(options, self.service, query=query, documents=documents, caller=ask.caller)
        return replace(job, is_tool_output=keeps_form)

    def _scores(self, compressor: str | None) -> bool:
        """Whether it scores sentences, so that the form of a tool's result can be kept with it."""
        name = compressor or self.service.settings.default_compressor
        return isinstance(self.service.engine.runner.catalog.template(name), ScoringCompressor)

    def _needs_none(self, compressor: str | None) -> bool:
        name = compressor or self.service.settings.default_compressor
        return not getattr(self.service.engine.runner.catalog.template(name), "needs_query", True)

    def _careful(self, options: GatewayOptions) -> GatewayOptions:
        """The options of the default compressor, with which a tool's result never vanishes."""
        if not self._scores(None) or options.on_empty is not None:
            return options
        return options.model_copy(update={"on_empty": "keep_top1"})

    def _groups(self, jobs: Sequence[tuple[list[Slot], Job]]) -> Iterator[list[tuple[list[Slot], Job]]]:
        """Jobs that are admitted together: half of what one caller may have in flight."""
        settings, share = self.service.settings, self.service.engine.share / 2
        most = int(settings.max_queue_tokens * share), int(settings.max_queue_units * share)
        group: list[tuple[list[Slot], Job]] = []
        tokens = units = 0
        for slots, job in jobs:
            if group and (tokens + job.cost > most[0] or units + job.units > most[1]):
                yield group
                group, tokens, units = [], 0, 0
            group.append((slots, job))
            tokens, units = tokens + job.cost, units + job.units
        if group:
            yield group

    def _check_closed(self, ask: Ask, causes: Sequence[str]) -> None:
        closed = ask.options.fail_closed
        closed = self.service.settings.fail_closed if closed is None else closed
        if closed and ask.mode == "on" and (cause := failure(causes)):
            raise ApiError(503, f"the conversation could not be pruned ({cause})", code=cause, retry_after=1)

    def _finish(self, work: Work) -> Pruned:
        """Markers, what is not shorter after all, and what is remembered."""
        fresh = {slot for row in work.fresh for slot in work.by_row[row]}
        for (row, path), slots in by_place(work.texts).items():
            self._settle(work, row, path, slots, is_fresh=slots[0] in fresh)
        for row in work.fresh:
            self._memory.put(work.keys[row], work.by_row[row], work.texts)
        return self._pruned(work)

    def _settle(self, work: Work, row: int, path: Path, slots: Sequence[Slot], *, is_fresh: bool) -> None:
        """One text of a message: keep its original where that is asked for, and undo what saves nothing."""
        wants_original = work.ask.options.originals in ("marker", "tool") and work.ask.mode == "on"
        whole = value_at(work.conversation.messages[row], path)
        hash_value = self.originals.put(work.ask.caller, whole) if wants_original else None
        if is_fresh and wants_original and hash_value is None:
            work.causes.append("originals_full")
            self._undo(work, slots)
            return
        if is_fresh and hash_value:
            work.texts[slots[-1]] = marked(work.texts[slots[-1]], hash_value)
        if is_fresh and self._saved({slot: work.texts[slot] for slot in slots}) == 0:
            self._undo(work, slots)
        elif hash_value:
            work.hashes.append(hash_value)

    def _undo(self, work: Work, slots: Sequence[Slot]) -> None:
        for slot in slots:
            del work.texts[slot]

    def _pruned(self, work: Work) -> Pruned:
        slots = work.slots
        before = self.counted([slot.text for slot in slots])
        after = self.counted([work.texts.get(slot, slot.text) for slot in slots])
        is_on, changed = work.ask.mode == "on", bool(work.texts)
        cause = failure(work.causes)
        status = "degraded" if cause else "compressed" if is_on and changed else "passthrough"
        reason = cause or ("" if is_on and changed else reason_of(work))
        pruned = Pruned(
            messages=replaced(work.ask.messages, work.texts) if is_on and changed else work.ask.messages,
            status=status,
            reason=reason,
            texts=work.texts if is_on else {},
            hashes=tuple(dict.fromkeys(work.hashes)),
            offers_tool=bool(work.hashes) and work.ask.options.originals == "tool",
            tokens_before=sum(before),
            tokens_after=sum(after if is_on else before),
            tokens_would_be=None if is_on else sum(after),
            tokens_sent=sum(work.tokens) - (sum(before) - sum(after) if is_on else 0),
        )
        if work.ask.mode != "shadow":
            return pruned
        texts = [slot.text for slot in slots], [work.texts.get(slot, slot.text) for slot in slots]
        return replace(pruned, before="\n".join(texts[0]), after="\n".join(texts[1]))

    def _told(self, work: Work, pruned: Pruned, seconds: float) -> Pruned:
        """Enter it into the books."""
        ask, left = work.ask, pruned.tokens_after if pruned.tokens_would_be is None else pruned.tokens_would_be
        saved = pruned.tokens_before - left
        money = saved_money(self.models.get(ask.model), new=saved - work.saved_again, again=work.saved_again)
        is_on = ask.mode == "on"
        sums = Sums(
            degraded=int(pruned.status == "degraded"),
            tokens_in=sum(work.tokens),
            tokens_before=pruned.tokens_before,
            tokens_after=left,
            tokens_saved=saved if is_on else 0,
            tokens_would_save=0 if is_on else saved,
            prefix_tokens=work.prefix_tokens,
            seconds=seconds,
            money_saved=money if is_on else 0.0,
            money_would_save=0.0 if is_on else money,
        )
        self.ledger.request(ask.key, sums, dialect=ask.dialect, mode=ask.mode, status=pruned.status)
        return pruned
