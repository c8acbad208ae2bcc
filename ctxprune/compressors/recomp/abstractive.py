"""RECOMP, abstractive: a summary of the documents with the question in view (Xu et al., ICLR 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from ctxprune.compressors import load
from ctxprune.compressors.recomp.faithfulness import MIN_NAMES, checked, unfaithful
from ctxprune.compressors.recomp.summaries import (
    NOTHING,
    GeneratorSummarizer,
    Seq2SeqSummarizer,
    Summarizer,
    Window,
    prompt_of,
    windowed,
    within_budget,
)
from ctxprune.errors import BudgetError, CheckpointError, InputError, check_choice
from ctxprune.generators.local import LocalGenerator
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.models.seq2seq import (
    SUPPORTED,
    FirstTokenThreshold,
    Seq2Seq,
    Written,
    adapter_folder,
    base_of,
    check_empty_threshold,
    merge_adapter,
    model_config,
)
from ctxprune.plain import plain_budget
from ctxprune.prompt import count_contexts
from ctxprune.select import Policy
from ctxprune.text import split_sentences
from ctxprune.text.language import checked_language
from ctxprune.timing import stage
from ctxprune.tokens import CounterLike, as_counter, default_counter, load_counter
from ctxprune.types import About, Compressor, Context, Extract, Piece, SoftTokens, Summary

OnUnfaithful = Literal["keep", "drop", "extractive"]


class Settled(NamedTuple):
    """What stands for a window, and what had to be given up for it."""

    pieces: tuple[Piece, ...]
    warnings: tuple[str, ...] = ()


class RecompAbstractive:
    """Replaces the documents by one summary, or by one a window where they do not fit into one prompt.

    A summary may be empty: nothing helps, and the prompt says so. It knows the documents it was made from, and how
    much of it stands in them (see `check_faithfulness`). What earlier compressors removed is not shown to the model;
    summaries of theirs stay. A summary that takes more tokens than its documents gives way to them.

    max_summary_tokens: limit of each summary, in the model's tokens. source_tokens: limit of each prompt.
    on_unfaithful: what to do with a summary that `unfaithful` finds so, always with a warning: "keep" it, "drop" it
    (empty, with the report on what it said), or let an "extractive" compressor choose from the window in at most
    `max_summary_tokens` tokens.
    extractive: that compressor, or its name. min_names: see `unfaithful`.
    budget: target tokens for the context; longer summaries are shortened at a sentence's end, with a warning.
    threshold, policy: refused, for there is nothing to choose from.
    language: of the documents and summaries, by which sentences are split; None: guessed.
    """

    name = "recomp-abstractive"

    def __init__(
        self,
        summarizer: Summarizer,
        *,
        max_summary_tokens: int = 128,
        source_tokens: int = 1024,
        on_unfaithful: OnUnfaithful = "keep",
        extractive: str | Compressor = "bm25-sentences",
        min_names: float = MIN_NAMES,
        budget: int | None = None,
        threshold: float | None = None,
        counter: CounterLike | None = None,
        policy: Policy | None = None,
        language: str | None = None,
    ) -> None:
        if max_summary_tokens < 1 or source_tokens < 1:
            raise InputError(
                f"max_summary_tokens and source_tokens must be at least 1, got {max_summary_tokens} and {source_tokens}"
            )
        check_choice("on_unfaithful", on_unfaithful, get_args(OnUnfaithful))
        if not 0 <= min_names <= 1:
            raise InputError(f"min_names must be in [0, 1], got {min_names}")
        if policy not in (None, Policy()):
            raise InputError(
                "recomp-abstractive writes text of its own, so a policy of choice does not apply; leave it"
            )
        self._check(budget, threshold)
        self.language = checked_language(language)
        self.budget = budget
        self.counter = None if counter is None else as_counter(counter)
        self.on_unfaithful: OnUnfaithful = on_unfaithful
        self.max_summary_tokens = max_summary_tokens
        self.source_tokens = source_tokens
        self.min_names = min_names
        self._summarizer = summarizer
        self._extractive: Compressor | None = None
        if on_unfaithful == "extractive":
            self._extractive = (
                load(extractive, counter=counter, language=language) if isinstance(extractive, str) else extractive
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the summariser holds open, such as connections to an endpoint."""
        self._summarizer.close()

    @property
    def about(self) -> About:
        return About(language=self.language, budget=self.budget, counts=True, counter=self.counter)

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        """Raises InputError for a threshold, for soft tokens, and for a question that leaves the documents no room in
        a prompt; GeneratorError when a generator fails, and then no context is compressed."""
        self._check(budget, threshold)
        budget = self.budget if budget is None else budget
        limit = self.max_summary_tokens if budget is None else min(self.max_summary_tokens, budget)
        with stage("tokenize"):
            windows = [self._windows(context) for context in contexts]
            prompts = [
                prompt_of(context.query, window, self._summarizer)
                for context, mine in zip(contexts, windows, strict=True)
                for window in mine
            ]
        with stage("infer"):
            answers = iter(self._summarizer.summarize(prompts, max_new_tokens=limit) if prompts else [])
        with stage("select"):
            return [
                self._replaced(context, mine, [next(answers) for _ in mine], limit, budget)
                for context, mine in zip(contexts, windows, strict=True)
            ]

    def _check(self, budget: int | None, threshold: float | None) -> None:
        budget = plain_budget(budget)
        if threshold is not None:
            raise InputError(f"{self.name} scores nothing, so threshold={threshold} means nothing; pass budget=")
        if budget is not None and budget <= 0:
            raise BudgetError(f"budget must be positive, got {budget}; leave it out to let max_summary_tokens hold")

    def _windows(self, context: Context) -> list[Window]:
        for piece in context.pieces:
            if isinstance(piece, SoftTokens):
                raise InputError(
                    f"document {piece.index} is soft tokens for {piece.generator!r}, which no summariser can read; "
                    f"put {self.name} before the compressor that makes them"
                )
        return windowed(
            context.query,
            [extract for extract in context.extracts if _is_shown(extract)],
            summarizer=self._summarizer,
            source_tokens=self.source_tokens,
            language=self.language,
        )

    def _replaced(
        self, context: Context, windows: Sequence[Window], answers: Sequence[Written], limit: int, budget: int | None
    ) -> Context:
        """The context with its windows' pieces where its first shown document stood."""
        if not windows:
            return context
        share = limit if budget is None else max(1, min(limit, budget // len(windows)))
        settled = [
            self._settled(context.query, window, answer, limit, share)
            for window, answer in zip(windows, answers, strict=True)
        ]
        fresh = [piece for each in settled for piece in each.pieces]
        first = next(place for place, piece in enumerate(context.pieces) if _is_shown(piece))
        others = [piece for piece in context.pieces[first:] if not _is_shown(piece)]
        result = replace(context, pieces=(*context.pieces[:first], *fresh, *others))
        for warning in (warning for each in settled for warning in each.warnings):
            result = result.warn(warning)
        if budget is None:
            return result
        return within_budget(
            result, fresh, budget=budget, counter=self.counter or default_counter(), language=self.language
        )

    def _settled(self, query: str, window: Window, answer: Written, limit: int, share: int) -> Settled:
        """limit: what the summary was held to. share: tokens that an extractive compressor gets in its place."""
        text, warnings = _finished(answer, limit, _named(window), self.language)
        sources = tuple({id(extract.source): extract.source for extract in window}.values())
        summary = checked(Summary(text, sources, index=window[0].index))
        before, after = count_contexts(
            [Context(query, window), Context(query, (summary,))], self.counter or default_counter()
        )
        if after > before:
            longer = f"the summary of {_named(window)} takes {after} tokens, the text {before}; the text was kept"
            return Settled(window, (longer,))
        if summary.faithfulness is None or not unfaithful(summary.faithfulness, min_names=self.min_names):
            return Settled((summary,), warnings)
        settled = self._guarded(query, window, summary, share)
        return Settled(settled.pieces, (*warnings, *settled.warnings))

    def _guarded(self, query: str, window: Window, summary: Summary, share: int) -> Settled:
        found = f"the summary of {_named(window)} is not faithful ({summary.faithfulness})"
        if self.on_unfaithful == "keep":
            return Settled((summary,), (f"{found}; it was kept",))
        if self._extractive is None:
            return Settled((replace(summary, text=""),), (f"{found}; it was dropped",))
        [chosen] = self._extractive.compress([Context(query, window)], budget=share)
        return Settled(chosen.pieces, (f"{found}; {self._extractive.name} took its place", *chosen.warnings))


def _is_shown(piece: Piece) -> bool:
    return isinstance(piece, Extract) and bool(piece.text.strip())


def _named(window: Window) -> str:
    indices = list(dict.fromkeys(str(extract.index) for extract in window))
    return f"document {indices[0]}" if len(indices) == 1 else f"documents {', '.join(indices)}"


def _finished(answer: Written, limit: int, what: str, language: str | None) -> tuple[str, tuple[str, ...]]:
    """The text without a last sentence that the limit cut off, unless it is the only one."""
    if answer.complete:
        return answer.text, ()
    stopped = f"the summary of {what} reached its limit of {limit} tokens"
    sentences = split_sentences(answer.text, language=language)
    if len(sentences) < 2:
        return answer.text, (f"{stopped} and stops within a sentence",)
    return answer.text[: sentences[-2].end], (f"{stopped}; its unfinished last sentence was left out",)


def recomp_abstractive(
    *,
    model: str | Path | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    adapter: str | Path | None = None,
    tokenizer: str | Path | None = None,
    titles: bool | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 8,
    empty_threshold: float | None = None,
    counter: CounterLike | None = None,
    **options: Any,
) -> RecompAbstractive:
    """model: folder or hub id of a T5-family summariser (with the published RECOMP input) or of a causal language model
    (which is asked in a chat turn), or with base_url the name of a model at an OpenAI-compatible endpoint; None for the
    model that the adapter was trained on.

    adapter: a LoRA adapter's folder or hub id, for a local model. tokenizer: for T5 checkpoints saved
    without one. titles: whether passages carry titles (None: only in a chat turn). empty_threshold: the probability of
    "nothing helps" from which a local model's summary is empty (None: where that is its likeliest beginning, which for
    an unsure model is too often). options: see `RecompAbstractive`.
    """
    if model is None and adapter is not None and base_url is None:
        model = base_of(adapter_folder(adapter))
    if model is None:
        raise InputError("recomp-abstractive needs a model that writes; pass model=, with base_url= for an endpoint")
    local: dict[str, Any] = {"adapter": adapter, "device": device, "dtype": dtype, "empty_threshold": empty_threshold}
    summarizer: Summarizer
    if base_url is not None:
        _refuse_beside_endpoint(local | {"tokenizer": tokenizer})
        generator = OpenAIGenerator(str(model), base_url=base_url, api_key=api_key)
        own_counter = None if counter is None else as_counter(counter)
        summarizer = GeneratorSummarizer(generator, counter=own_counter, titles=titles is not False)
    elif _is_causal(str(model)):
        writer = SummaryGenerator(model, batch_size=batch_size, **local)
        summarizer = GeneratorSummarizer(writer, counter=load_counter(str(model)), titles=titles is not False)
    else:
        t5 = Seq2Seq(model, tokenizer=tokenizer, batch_size=batch_size, **local)
        summarizer = Seq2SeqSummarizer(t5, titles=bool(titles))
    return RecompAbstractive(summarizer, counter=counter, **options)


def _refuse_beside_endpoint(local: Mapping[str, object]) -> None:
    """Raise InputError for an option of a local model that is given."""
    for name, value in local.items():
        if value is not None:
            raise InputError(f"{name}={value!r} is for a local model, and base_url names an endpoint; give only one")


class SummaryGenerator(LocalGenerator):
    """A causal language model that writes summaries or that nothing helps.

    adapter: LoRA weights to merge into its own. empty_threshold: see `recomp_abstractive`.
    """

    def __init__(
        self, path_or_id: str | Path, *, adapter: str | Path | None, empty_threshold: float | None, **options: Any
    ) -> None:
        check_empty_threshold(empty_threshold)
        super().__init__(path_or_id, **options)
        if adapter is not None:
            self._model = merge_adapter(self._model, adapter)
        self._empty_threshold = empty_threshold
        self._nothing = self._encoder.answer_ids(NOTHING)[0]

    def _decoding(self) -> dict[str, Any]:
        if self._empty_threshold is None:
            return {}
        return {"logits_processor": [FirstTokenThreshold(self._nothing, self._empty_threshold)]}


def _is_causal(name: str) -> bool:
    """False for the T5 family. Raises CheckpointError for a model that is neither."""
    config = model_config(name)
    if config.model_type in SUPPORTED:
        return False
    architectures = config.architectures or ()
    if any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in architectures):
        return True
    saved = ", ".join(architectures) or "no architecture named"
    raise CheckpointError(
        f"{name} is a {config.model_type!r} model ({saved}), which writes no text; "
        f"pass one of {', '.join(SUPPORTED)} or a causal language model"
    )
