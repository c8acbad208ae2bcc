"""The frame of compressors that score words without a question: what to read, and how much of it to keep."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ctxprune.compressors.base import Limits, ScoringCompressor, narrow, with_extracts
from ctxprune.compressors.llmlingua.model import BUNDLED, load_word_model
from ctxprune.compressors.llmlingua.words import (
    DocumentScore,
    Reader,
    TokenToWord,
    Words,
    by_document,
    checked_strings,
    cut_at,
    drop_repeats,
    forced_edges,
    forced_pattern,
    keep_best,
    keep_documents,
    protecting,
    score_words,
    word_offsets,
)
from ctxprune.compressors.readings import DocumentCache, open_cache
from ctxprune.errors import BudgetError, InputError, check_choice
from ctxprune.plain import as_float
from ctxprune.prompt import count_contexts
from ctxprune.select import Policy, note_untouched, select
from ctxprune.text.words import STOP_WORDS
from ctxprune.timing import stage
from ctxprune.tokens import CounterLike, default_counter
from ctxprune.types import Context, Extract, Span

Scope = Literal["context", "document"]
Weight = Literal["none", "sentence"]


class WordCompressor(ScoringCompressor):
    """Subclasses give the `words`; the options below say which of them stay.

    rate: share of the incoming tokens to keep, over the whole context or, with scope="document", of each document.
    target_tokens: another name for budget. force_tokens: strings that are always kept; where one is part of a word, the
    word is cut there, and punctuation between letters or digits does not count ("." in "3.14"). force_reserve_digit:
    keep words with digits. drop_consecutive: keep one of several equal forced strings in a row. keep_structure: keep
    headings and list markers (line breaks between kept words always stay). document_rate: drop whole documents first,
    see `keep_documents`. weight: "sentence" multiplies word scores by the score that an earlier compressor left on the
    sentence around them.
    """

    needs_query = False

    def __init__(
        self,
        *,
        rate: float | None = None,
        target_tokens: int | None = None,
        scope: Scope = "context",
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        keep_structure: bool = False,
        document_rate: float | None = None,
        document_score: DocumentScore = "words",
        weight: Weight = "none",
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        counter: CounterLike | None = None,
        policy: Policy | None = None,
        language: str | None = None,
    ) -> None:
        check_shares(rate=rate, document_rate=document_rate)
        check_choice("scope", scope, get_args(Scope))
        check_choice("weight", weight, get_args(Weight))
        check_choice("document_score", document_score, get_args(DocumentScore))
        if sum(option is not None for option in (rate, target_tokens, budget)) > 1:
            raise InputError("pass one of rate, target_tokens and budget, not several")
        self.rate, self.scope, self.weight = rate, scope, weight
        self.document_rate, self.document_score = document_rate, document_score
        self.force_tokens = checked_strings(force_tokens)
        self.drop_consecutive = drop_consecutive
        self._forced = forced_pattern(self.force_tokens)
        super().__init__(
            threshold=threshold,
            operating_point=operating_point,
            budget=budget if target_tokens is None else target_tokens,
            counter=counter,
            policy=protecting(policy or Policy(), self._forced, digits=force_reserve_digit, structure=keep_structure),
            language=language,
        )

    @abstractmethod
    def words(self, texts: Sequence[str]) -> list[Words]:
        """Every word of each text with its score in [0, 1], in order."""

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        """Whole documents are read, also where an earlier compressor has removed parts: words have a context."""
        texts = [extract.source.text for context in contexts for extract in context.extracts if not extract.dropped]
        known = dict(zip(texts, self.words(texts), strict=True))
        with stage("infer"):
            return [
                with_extracts(
                    context,
                    [
                        extract if extract.dropped else self._scored(extract, known[extract.source.text])
                        for extract in self._weighable(context)
                    ],
                )
                for context in contexts
            ]

    def limits(
        self, *, budget: int | None = None, threshold: float | None = None, operating_point: str | None = None
    ) -> Limits:
        """`threshold`, `budget`, or the compressor's own threshold, budget or rate.

        A `rate` is a budget of that share of the tokens that come in, over the whole context or for each document
        (`scope`). At rate 1.0 the contexts come back as they are and nothing is read. Whatever is kept at a lower rate
        or budget is kept at every higher one.
        """
        self._check(budget, threshold, operating_point)
        named = budget is not None or threshold is not None
        budget = self.budget if budget is None else budget
        threshold = self.threshold if threshold is None else threshold
        rate = None if named or budget is not None else self.rate
        if budget is None and rate is None and threshold is None and not self.policy.limits_number:
            threshold = self.default_threshold
            if threshold is None:
                raise BudgetError(f"{self.name} only ranks text; pass rate= or budget=<generator tokens>")
        whole = rate is not None and rate >= 1.0 and threshold is None and self.document_rate is None
        return Limits(threshold, None, budget, rate, untouched=whole)

    def choose_one(self, before: Context, scored: Context, limits: Limits) -> Context:
        context, budget, rate, threshold = scored, limits.budget, limits.rate, limits.threshold
        counter = self.counter or default_counter()
        if self.document_rate is not None:
            context = keep_documents(context, rate=self.document_rate, by=self.document_score)
        if self.scope == "document" and (budget is not None or rate is not None):
            parts = [
                self._within(replace(before, pieces=(old,)), replace(context, pieces=(new,)), budget, rate, threshold)
                for old, new in zip(before.extracts, context.extracts, strict=True)
            ]
            context = select(
                by_document(parts, context), threshold=None, budget=None, counter=counter, policy=self.policy
            )
        else:
            context = self._within(before, context, budget, rate, threshold)
        if self.drop_consecutive:
            context = with_extracts(context, [drop_repeats(each, self.force_tokens) for each in context.extracts])
        return context

    def _within(
        self, before: Context, context: Context, budget: int | None, rate: float | None, threshold: float | None
    ) -> Context:
        counter = self.counter or default_counter()
        if rate is not None:
            budget = math.floor(rate * count_contexts([before], counter)[0] + 1e-9)
        if budget is None:
            chosen = select(context, threshold=threshold, budget=None, counter=counter, policy=self.policy)
            return note_untouched(context, chosen, threshold)
        return keep_best(context, budget=budget, threshold=threshold, counter=counter, policy=self.policy)

    def _weighable(self, context: Context) -> Sequence[Extract]:
        extracts = context.extracts
        if self.weight == "sentence":
            scores = [unit.score for extract in extracts for unit in extract.kept_units()]
            if scores and not any(scores):
                raise InputError(
                    "weight='sentence' needs sentence scores and finds none; put a compressor such as provence before "
                    "this one, or leave weight out"
                )
            if any(not 0.0 <= score <= 1.0 for score in scores):
                raise InputError(
                    "weight='sentence' multiplies by sentence scores and needs them in [0, 1], got "
                    f"{min(scores)} to {max(scores)}; use a compressor whose scores are probabilities"
                )
        return extracts

    def _scored(self, extract: Extract, words: Words) -> Extract:
        """The words that lie in what is still kept, with their scores."""
        units: list[Span] = []
        edges = forced_edges(extract.source.text, self._forced)
        stretches = (
            list(extract.kept_units())
            if self.weight == "sentence"
            else [Span(start, end) for start, end in extract.slices()]
        )
        for stretch in stretches:
            factor = stretch.score if self.weight == "sentence" else 1.0
            first = int(np.searchsorted(words.ends, stretch.start, side="right"))
            last = int(np.searchsorted(words.starts, stretch.end, side="left"))
            starts = np.maximum(words.starts[first:last], stretch.start).tolist()
            ends = np.minimum(words.ends[first:last], stretch.end).tolist()
            scores = (words.scores[first:last] * factor).tolist()
            fresh = [Span(*parts) for parts in zip(starts, ends, scores, strict=True)]
            units += [piece for span in fresh for piece in cut_at(span, edges)] if len(edges) else fresh
        return narrow(extract, units)


def check_shares(**shares: object) -> None:
    """InputError for a share outside [0, 1], and for what is no number."""
    for name, share in shares.items():
        if share is not None and not 0.0 <= (math.nan if (number := as_float(share)) is None else number) <= 1.0:
            raise InputError(f"{name} must be in [0, 1], got {share!r:.80}; it is the share to keep")


class LLMLingua2(WordCompressor):
    """Keeps the words that a token classifier would keep, whatever is asked.

    model: see `load_word_model`; anything with a fingerprint and `read` will do. token_to_word: a word's probability is
    the mean of its tokens' or that of its first. cache: see `open_cache`; scores are then rounded to 1/255. Default
    threshold: the model's own, on P(keep). Other options: see `WordCompressor`.
    """

    name = "llmlingua2"
    default_threshold: float | None = 0.5

    def __init__(
        self,
        model: Reader | None = None,
        *,
        token_to_word: TokenToWord = "mean",
        cache: DocumentCache | str | Path | None = None,
        **options: Any,
    ) -> None:
        check_choice("token_to_word", token_to_word, get_args(TokenToWord))
        self.model = model or load_word_model(BUNDLED)
        self.default_threshold = getattr(self.model, "default_threshold", 0.5)
        self.token_to_word: TokenToWord = token_to_word
        self.cache = open_cache(cache)
        super().__init__(**options)

    def words(self, texts: Sequence[str]) -> list[Words]:
        return score_words(texts, self.model, how=self.token_to_word, cache=self.cache)

    def index(self, texts: Sequence[str]) -> int:
        """Score documents ahead of time; returns how many words they have. InputError without a cache."""
        if self.cache is None:
            raise InputError("indexing scores needs somewhere to keep them; pass cache='memory' or a file's path")
        return sum(len(words.scores) for words in self.words(texts))


def llmlingua2(
    *,
    model: str = BUNDLED,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> LLMLingua2:
    """model: the bundled one by name, an exported folder, or a token classifier's folder or hub id."""
    return LLMLingua2(load_word_model(model, revision=revision, device=device, dtype=dtype), **options)


class RandomWords(WordCompressor):
    """Words in an order drawn from `seed` and their text: the same in any batch and after any call.

    Scores only rank: a rate or budget must be given. Other options: see `WordCompressor`.
    """

    name = "random-words"

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed

    def words(self, texts: Sequence[str]) -> list[Words]:
        return [self._ranked(text) for text in texts]

    def _ranked(self, text: str) -> Words:
        starts, ends = word_offsets(text)
        digest = hashlib.blake2b(f"{self.seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return Words(starts, ends, np.random.default_rng(int.from_bytes(digest, "little")).random(len(starts)))


class ContentWords(RandomWords):
    """English stop words go first, then other words; in random order within each kind."""

    name = "content-words"

    def _ranked(self, text: str) -> Words:
        words = super()._ranked(text)
        spellings = [text[start:end] for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)]
        content = np.array([each.strip(".,;:!?\"'()[]").lower() not in STOP_WORDS for each in spellings], np.float64)
        return Words(words.starts, words.ends, (words.scores + content) / 2)
