"""What an agent's tools return, pruned once for its question and the same at every later turn; the original on demand.

The adapters of agents' frameworks find the results in a conversation and put these texts in their place.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Self

from ctxprune.cache import BoundedCache, key_of
from ctxprune.errors import InputError
from ctxprune.integrations.adapter import loaded_compressor
from ctxprune.integrations.originals import OwnOriginals, gives_originals, marked, retrieve_tool
from ctxprune.plain import checked_whole
from ctxprune.result import span_rows
from ctxprune.text import UnitKind
from ctxprune.tokens import default_counter, load_counter
from ctxprune.tools import ToolOutput, ToolOutputs
from ctxprune.types import Compressor, TokenCounter

logger = logging.getLogger(__name__)

#: The tool for originals: its name, its description and the schema of its parameters.
TOOL: dict[str, Any] = retrieve_tool()["function"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a result's text became. report: JSON values: status, kind, kept_spans, tokens before and after, ..."""

    text: str
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a text was sent as; None as it came."""

    pruned: Pruned | None


class ToolResults:
    """Prunes texts that tools gave, of at least `min_tokens` tokens, by their shape: JSON still parses.

    compressor: a name, checkpoint folder or hub id, or a compressor that scores text; threshold, operating_point,
    budget: as of `ctxprune.tools.prune_tool_output`, the budget being of one text; tokenizer, language, units: as in
    `CtxPruneCompressor`. only: prune the results of these tools and no others (None: of all). never: leave the results
    of these tools alone. originals: name the original of each pruned text in its note, and keep it for an hour (at most
    64 MB of them), for the tool that every adapter offers; the names are new in each process. remember: so many texts
    are known again without reading them anew.
    Safe to call from several threads; copies share what they remember, in another process they begin anew. Raises
    InputError for options that cannot be, a tool in both only and never, and a compressor that scores no text,
    BudgetError for one that needs a budget.
    """

    def __init__(
        self,
        compressor: str | Compressor = "provence",
        *,
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        tokenizer: str | TokenCounter | None = None,
        language: str | None = None,
        units: UnitKind | None = None,
        only: tuple[str, ...] | list[str] | None = None,
        never: tuple[str, ...] | list[str] = (),
        min_tokens: int = 200,
        originals: bool = False,
        remember: int = 1000,
    ) -> None:
        _check_tools(only, never)
        remember = checked_whole("remember", remember, least=0)
        self.min_tokens = checked_whole("min_tokens", min_tokens, least=0)
        self.only, self.never = only, never or ()
        counter = load_counter(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self._outputs = ToolOutputs(loaded_compressor(compressor, counter, None, language, units))
        self._counter = counter or self._outputs.counter or default_counter()
        self._limits: dict[str, Any] = {"threshold": threshold, "operating_point": operating_point, "budget": budget}
        self._outputs.prune("", "?", **self._limits)  # nothing to read, but every option is looked at
        self._sent: BoundedCache[bytes, _Sent] = BoundedCache(remember)
        self._store = OwnOriginals() if originals else None

    def __deepcopy__(self, memo: object) -> Self:
        return self  # frameworks copy what agents hold, and a copy must send the same texts

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sent": self._sent.limit, "_store": self._store is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._sent = BoundedCache(state["_sent"])
        self._store = OwnOriginals() if state["_store"] else None

    def prune(self, text: str, question: str, *, tool: str = "") -> Pruned | None:
        """The pruned text; None for one that stays: small, of a tool that is left alone, already pruned, or one that
        cannot be pruned, which is logged. The same text and question give the same again, failures too."""
        if not self._takes(tool) or not (question.strip() or not self._outputs.needs_query):
            return None
        key = key_of(tool, question, text)
        sent = self._sent.get(key)
        if sent is None:
            sent = _Sent(self._pruned(text, question, tool))
            self._sent.put(key, sent)
        elif sent.pruned is not None and self._store is not None:
            self._store.put(text)  # as long as the conversation goes on, its originals are there
        return sent.pruned

    def original(self, hash_value: str) -> str:
        """What the tool for originals answers: the whole text, or that there is none under this hash."""
        whole = None if self._store is None else self._store.get(hash_value)
        return f"no original under {hash_value!r:.60}; originals are kept for an hour" if whole is None else whole

    def _takes(self, tool: str) -> bool:
        if tool in self.never or gives_originals(tool):
            return False
        return self.only is None or tool in self.only

    def _pruned(self, text: str, question: str, tool: str) -> Pruned | None:
        try:
            if self._counter.count([text])[0] < self.min_tokens:
                return None
            output = self._outputs.prune(text, question, counter=self._counter, **self._limits)
            return self._told(output, text) if output.status == "compressed" else None
        except Exception:
            logger.warning("the result of tool %r goes through unpruned", tool, exc_info=True)
            return None

    def _told(self, output: ToolOutput, whole: str) -> Pruned | None:
        report = _report(output, self._outputs.name)
        if self._store is None:
            return Pruned(output.text, report)
        name = self._store.put(whole)
        if name is None:
            logger.warning("a result of %d characters stays whole: its original has no room", len(whole))
            return None
        text = marked(output.text, name)
        tokens = self._counter.count([text])[0]
        shorter = tokens < output.tokens_before
        return Pruned(text, report | {"tokens_after": tokens, "hash": name}) if shorter else None


def _check_tools(only: object, never: object) -> None:
    for name, tools in (("only", only), ("never", never)):
        if isinstance(tools, str):
            raise InputError(f"{name} must be a list of tool names, got the string {tools!r}")
    if isinstance(only, list | tuple) and isinstance(never, list | tuple) and (both := sorted(set(only) & set(never))):
        raise InputError(f"{', '.join(both)} stands in both only and never; leave it out of one")


def _report(output: ToolOutput, compressor: str) -> dict[str, Any]:
    report = {
        "compressor": compressor,
        "kind": output.kind,
        "status": output.status,
        "left_out": output.left_out,
        "of": output.of,
        "kept_spans": span_rows(output.kept_spans),
        "tokens_before": output.tokens_before,
        "tokens_after": output.tokens_after,
        "tokenizer": output.tokenizer,
        "exact": output.exact,
        "over_budget": None if output.budget is None else output.over_budget,
        "warnings": list(output.warnings) or None,
    }
    return {key: value for key, value in report.items() if value is not None}
