"""One compression as a value, and how it is carried out: the library's own `Pipeline`, with the model shared."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctxprune.compressors.provence.pruner import Passage, PrunerModel
from ctxprune.errors import BudgetError, InputError
from ctxprune.integrations.server.engine.catalog import Catalog
from ctxprune.integrations.server.engine.queue import (
    OtherReader,
    SharedReader,
    estimated_units,
    model_tokens,
    public_name,
)
from ctxprune.integrations.server.engine.ticket import AbandonedError, ExpiredError, Ticket
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.observe import Drift, Log
from ctxprune.integrations.server.patterns import Search
from ctxprune.pipeline import Pipeline, require_query
from ctxprune.prompt import count_contexts
from ctxprune.result import CompressionResult
from ctxprune.select import Policy
from ctxprune.select.budget import budget_at
from ctxprune.text import UnitKind
from ctxprune.text.language import reads_as_english
from ctxprune.tools import ToolOutputs
from ctxprune.types import Compressor, Context, Document, TokenCounter, about_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a caller asked for. compressor: a name on offer, or catalog.RERANKER. rate: the budget as a share of the
    tokens before. policy: fields of `Policy`, whose `protect` holds `patterns.Pattern`. language: of the documents;
    None: guessed. unit_kind: what to choose among; None: as the compressor does. caller: whose cached readings it may
    use. is_tool_output: the document is what a tool gave, and stays of its form."""

    query: str
    documents: tuple[Document, ...]
    compressor: str
    tokenizer: str = "default"
    threshold: float | None = None
    operating_point: str | None = None
    budget: int | None = None
    rate: float | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    unit_kind: UnitKind | None = None
    caller: bytes = b""
    is_tool_output: bool = False

    @property
    def characters(self) -> int:
        return len(self.query) + sum(len(document.title) + len(document.text) for document in self.documents)

    @property
    def cost(self) -> int:
        """Tokens that a model reads for it, about."""
        return sum(model_tokens(passage) for passage in self.passages())

    @property
    def units(self) -> int:
        """Sentences that are scored and answered with, at most, about."""
        return sum(estimated_units(document.text) for document in self.documents)

    def passages(self) -> list[Passage]:
        return [Passage(self.query, document.title, document.text) for document in self.documents]

    def context(self) -> Context:
        return Context.of(self.query, self.documents)


@dataclass(frozen=True, slots=True)
class Outcome:
    """result: as the library gives it. cause: why it is degraded, in a word ("" when it is not)."""

    result: CompressionResult
    cause: str = ""
    queue_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A job before any model has seen it. known: how many of its documents the cache holds."""

    tokens_before: int
    tokenizer: str
    exact: bool
    budget: int | None
    known: int


@dataclass(frozen=True, slots=True)
class StoppingCounter:
    """A token counter that ends its job when nobody waits for it any more."""

    counter: TokenCounter
    ticket: Ticket

    @property
    def name(self) -> str:
        return self.counter.name

    @property
    def exact(self) -> bool:
        return self.counter.exact

    def count(self, texts: Sequence[str]) -> list[int]:
        self.ticket.check()
        return self.counter.count(texts)


@dataclass(eq=False)
class Runner:
    """Carries jobs out, each in the thread that calls."""

    catalog: Catalog
    reader: SharedReader
    other: OtherReader
    log: Log
    fail_closed: bool
    drift: Drift
    _slot: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, job: Job, ticket: Ticket) -> Outcome:
        """Raises InputError or BudgetError for what the caller must change, AbandonedError when nobody waits.

        When the model fails or the deadline passes the outcome is degraded: the original text; with `fail_closed` it is
        an ApiError, 424 or 504, instead.
        """
        counter = StoppingCounter(self.catalog.counter(job.tokenizer), ticket)
        search = Search(ticket, self._slot)
        try:
            ticket.begin()
            result = self._result(job, counter, ticket, search)
        except (InputError, BudgetError, AbandonedError):
            raise
        except Exception as error:
            return self._failed(job, error)
        finally:
            search.close()
            ticket.pause()
        # the library cannot know that a part of what it took for reading was waiting
        infer = max(result.seconds["infer"] - ticket.queue_seconds, 0.0)
        outcome = Outcome(replace(result, seconds={**result.seconds, "infer": infer}), "", ticket.queue_seconds)
        if job.compressor == "provence" and not job.is_tool_output and self.model_of(outcome) is self.reader.model:
            self.drift.note(result.after)
        return outcome

    def _result(self, job: Job, counter: TokenCounter, ticket: Ticket, search: Search) -> CompressionResult:
        context = job.context()
        compressor = self._compressor(job, counter, ticket, search)
        budget = self._budget(job, context, counter)
        check_needs(compressor, job, context, budget)
        if job.is_tool_output:
            compressor = ToolOutputs(compressor)
        ticket.check()
        (result,) = Pipeline([compressor], counter=counter).run(
            [context], budget=budget, threshold=job.threshold, operating_point=job.operating_point
        )
        return result

    def plan(self, job: Job) -> Plan:
        """A dry run: what the job means in tokens. Raises as `run` does, and reads nothing."""
        counter = self.catalog.counter(job.tokenizer)
        context = job.context()
        (before,) = count_contexts([context], counter)
        budget = self._budget(job, context, counter)
        ticket = Ticket(math.inf)
        check_needs(self._compressor(job, counter, ticket, Search(ticket, self._slot)), job, context, budget)
        return Plan(before, counter.name, counter.exact, budget, self._cached(job))

    def _cached(self, job: Job) -> int:
        """How many documents the cache holds, as the model has read them that reads this job."""
        texts = [document.text for document in job.documents]
        is_other = self.catalog.other_languages and not reads_as_english(job.query, texts, job.language)
        reader = self.other.loaded if is_other else self.reader
        return sum(reader.key(passage, job.caller) in reader.cache for passage in job.passages()) if reader else 0

    def model_of(self, outcome: Outcome) -> PrunerModel:
        """The pruner that read for an outcome."""
        other = self.other.loaded
        is_other = other is not None and outcome.result.model == public_name(other.model)
        return other.model if other is not None and is_other else self.reader.model

    def close(self) -> None:
        self.reader.close()
        self.other.close()

    def degraded(self, job: Job, cause: str, reason: str) -> Outcome:
        """The original text in place of a result, and why."""
        counter = self.catalog.counter(job.tokenizer)
        (result,) = Pipeline([], counter=counter).run([job.context()])
        return Outcome(replace(result, compressor=job.compressor, status="degraded", reason=reason), cause)

    def _compressor(self, job: Job, counter: TokenCounter, ticket: Ticket, search: Search) -> Compressor:
        pruner = self.reader.for_request(ticket)
        policy = dict(job.policy)
        if "protect" in policy:
            policy["protect"] = search.bound(policy["protect"])
        return self.catalog.compressor(
            job.compressor,
            pruner=pruner,
            open_other=self.other.for_request(ticket),
            counter=counter,
            policy=policy,
            language=job.language,
            units=job.unit_kind,
            check=ticket.check,
        )

    def _budget(self, job: Job, context: Context, counter: TokenCounter) -> int | None:
        """The budget asked for; of a rate floor(rate * tokens_before), but at least one token."""
        if job.rate is None:
            return job.budget
        (before,) = count_contexts([context], counter)
        return budget_at(job.rate, before)

    def _failed(self, job: Job, error: Exception) -> Outcome:
        if isinstance(error, ExpiredError):
            status, cause, reason = 504, "deadline", str(error)
        else:
            self.log.exception("a compressor failed", compressor=job.compressor, exc_info=error)
            status, cause = 424, "model"
            reason = f"{job.compressor or 'the reranker'} failed ({type(error).__name__}); the server's log has more"
        if self.fail_closed:
            raise ApiError(status, reason, code=cause)
        return self.degraded(job, cause, reason)


def check_needs(compressor: Compressor, job: Job, context: Context, budget: int | None) -> None:
    """Raise InputError for an empty question or a threshold that means nothing, BudgetError for a missing budget."""
    about = about_of(compressor)
    if about.needs_query:
        require_query(context)
    if about.ranks_only and job.threshold is not None:
        raise InputError(f"{job.compressor} scores are no probabilities; give budget or rate instead of threshold")
    if job.operating_point is not None and about.operating_points is None:
        raise InputError(f"{job.compressor} has no operating points; give budget or rate instead of operating_point")
    policy = about.policy or Policy()
    if about.ranks_only and budget is None and not policy.limits_number:
        raise BudgetError(f"{job.compressor} only ranks text and needs a budget or a rate")
