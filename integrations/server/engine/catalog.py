"""The compressors and tokenizers that a server offers: loaded once, given to each request with its own options."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ctxprune.compressors import available, load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.llmlingua.compressor import LLMLingua2
from ctxprune.compressors.llmlingua.words import Reader, TokenReading
from ctxprune.compressors.provence.compressor import BUNDLED, OTHER_LANGUAGES, Provence
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.recomp.extractive import RecompExtractive
from ctxprune.compressors.recomp.vectors import DualEncoder
from ctxprune.compressors.sentences import DSLR, RerankTruncate
from ctxprune.errors import InputError, UnknownNameError
from ctxprune.integrations.server.engine.ticket import ModelError
from ctxprune.integrations.server.settings import Settings
from ctxprune.models.sentence_encoders import Vectors
from ctxprune.text import UnitKind
from ctxprune.text.language import checked_language
from ctxprune.tokens import TokenizerCounter, load_counter
from ctxprune.types import Compressor, TokenCounter, about_of

#: Names the pruner itself, which reranks whatever compressors are on offer; no caller can say this name.
RERANKER = ""

#: Sentences that are embedded between two looks at the clock, about a quarter of a second.
PIECE_TEXTS = 64


#: Those without a model of their own: they are made at once, whoever asks.
AT_HAND = frozenset(
    ("provence", "dslr", "rerank-truncate", "bm25-sentences", "lead", "random", "content-words", "random-words")
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A compressor as `GET /v1/compressors` lists it. is_loaded: False when its model is read with the first request
    that names it; what only the model says is None until then. threshold: its default; None also when it needs a budget
    or rate."""

    name: str
    description: str
    is_loaded: bool
    threshold: float | None = None
    needs_query: bool | None = None


class Catalog:
    """Loads a compressor when it is first asked for. Safe to use from several threads.

    pruner: the model that provence, dslr and rerank-truncate share; `other_languages`: the source of the one that reads
    in its place for provence and rerank-truncate, as in the library. Raises UnknownNameError for a configured name
    that `ctxprune.load` does not know.
    """

    def __init__(self, settings: Settings, pruner: PrunerModel) -> None:
        self.pruner = pruner
        self.other_languages = other_source(settings)
        self._tokenizers = settings.tokenizers
        self._descriptions = {known.name: known.description for known in available()}
        self.names = settings.compressors
        for name in self.names:
            if name not in self._descriptions:
                raise UnknownNameError(f"no compressor named {name!r}; known: {', '.join(self._descriptions)}")
        self._templates: dict[str, Compressor] = {}
        self._counters: dict[str, TokenCounter] = {}
        self._lock = threading.Lock()

    def offers(self) -> list[Offer]:
        """Loads no model."""
        return [self._offer(name) for name in self.names]

    def counter(self, name: str) -> TokenCounter:
        """The token counter that the operator calls `name`. Raises InputError for another."""
        if name not in self._tokenizers:
            raise InputError(f"tokenizer must be one of {', '.join(self._tokenizers)}, got {name!r:.80}")
        with self._lock:
            if name not in self._counters:
                self._counters[name] = _named(load_counter(self._tokenizers[name]), name, self._tokenizers[name])
            return self._counters[name]

    def template(self, name: str) -> Compressor:
        """The compressor as loaded, not to be changed. Raises InputError for one that is not offered."""
        if name not in (*self.names, RERANKER):
            raise InputError(f"compressor must be one of {', '.join(self.names)}, got {name!r:.80}")
        if (loaded := self._templates.get(name)) is not None:  # without the lock: another model may be loading
            return loaded
        with self._lock:
            if name not in self._templates:
                self._templates[name] = self._load(name)
            return self._templates[name]

    def compressor(
        self,
        name: str,
        *,
        pruner: PrunerModel,
        open_other: Callable[[str], PrunerModel],
        counter: TokenCounter,
        policy: Mapping[str, Any],
        language: str | None = None,
        units: UnitKind | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Compressor:
        """A compressor of one request: the template with the models as the request sees them, its counter and policy.

        policy: fields of `ctxprune.Policy`; those left out stay as the compressor has them. language: of the documents.
        units: what to choose among. check: called between units of the work that needs no pruner; raises when it is of
        no more use. Raises InputError for a value out of range, and for any policy, language or units where the
        compressor has none.
        """
        template = self.template(name)
        if not isinstance(template, ScoringCompressor):
            if policy:
                raise InputError(f"{name} takes no {', '.join(sorted(policy))}; leave it out")
            mine = copy.copy(template)
            if units is not None:
                raise InputError(f"{name} takes no units; leave it out")
            if language is not None:
                mine.language = _language(name, mine, language)  # type: ignore[attr-defined]  # it has one
            if hasattr(mine, "counter"):
                mine.counter = counter
            return mine
        mine = copy.copy(template)
        mine.counter = counter
        mine.policy = mine.settled(replace(template.policy, **policy))
        mine.language = checked_language(language) or template.language
        mine.units = mine.checked_kind(units or template.units)
        return _through(mine, pruner, open_other, check)

    def _load(self, name: str) -> Compressor:
        if name in ("provence", RERANKER):
            return self._provence()
        if name == "dslr":
            return DSLR(self.pruner)
        if name == "rerank-truncate":
            return RerankTruncate(self._provence())
        return load(name)

    def _provence(self) -> Provence:
        return Provence(self.pruner, other_languages=self.other_languages)

    def _offer(self, name: str) -> Offer:
        template = self.template(name) if name in AT_HAND else self._templates.get(name)
        if template is None:
            return Offer(name, self._descriptions[name], is_loaded=False)
        about = about_of(template)
        return Offer(name, self._descriptions[name], True, about.default_threshold, about.needs_query)


def _language(name: str, compressor: Compressor, language: str) -> str | None:
    if not hasattr(compressor, "language"):
        raise InputError(f"{name} takes no language; leave it out")
    return checked_language(language)


def other_source(settings: Settings) -> str | None:
    """The model for other languages than English; by itself the bundled one, beside the bundled model."""
    if settings.other_languages != "auto":
        return settings.other_languages
    return OTHER_LANGUAGES if settings.model == BUNDLED else None


def _through(
    compressor: ScoringCompressor,
    pruner: PrunerModel,
    open_other: Callable[[str], PrunerModel],
    check: Callable[[], None],
) -> ScoringCompressor:
    """The (already copied) compressor with the shared models replaced by the request's view of them."""
    if isinstance(compressor, Provence):
        compressor.model, compressor.open_other = pruner, open_other
    elif isinstance(compressor, DSLR) and isinstance(compressor.scorer, PrunerModel):
        compressor.scorer = pruner
    elif isinstance(compressor, RerankTruncate) and isinstance(compressor.scorer, Provence):
        compressor.scorer = copy.copy(compressor.scorer)
        compressor.scorer.model, compressor.scorer.open_other = pruner, open_other
    elif isinstance(compressor, RecompExtractive):
        compressor.model = StoppingEncoder(compressor.model, check)
        compressor.sentences = copy.copy(compressor.sentences)
        compressor.sentences.model, compressor.sentences.units = compressor.model, compressor.units
    elif isinstance(compressor, LLMLingua2):
        compressor.model = StoppingReader(compressor.model, check)
    return compressor


class StoppingReader:
    """A word model that reads a text at a time, so that it can be ended, and whose faults are not the caller's."""

    def __init__(self, model: Reader, check: Callable[[], None]) -> None:
        self._model = model
        self._check = check
        self.fingerprint = model.fingerprint

    def read(self, texts: Sequence[str]) -> list[TokenReading]:
        readings = []
        for text in texts:
            self._check()
            readings += self._model.read([text])
        if not all(np.isfinite(reading.keep).all() for reading in readings):
            raise ModelError("the word model gave scores that are no finite numbers")
        return readings


class StoppingEncoder:
    """A dual encoder that works in pieces, so that it can be ended, and whose faults are not taken for the caller's."""

    def __init__(self, model: DualEncoder, check: Callable[[], None]) -> None:
        self._model = model
        self._check = check
        self.name, self.similarity = model.name, model.similarity
        self.with_title, self.default_threshold = model.with_title, model.default_threshold

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        self._check()
        return self._finite(self._model.embed_queries(texts))

    def embed_sentences(self, texts: Sequence[str]) -> Vectors:
        """The vectors of a text do not depend on its neighbours, so the pieces give what the whole would."""
        parts = []
        for first in range(0, max(len(texts), 1), PIECE_TEXTS):
            self._check()
            parts.append(self._finite(self._model.embed_sentences(texts[first : first + PIECE_TEXTS])))
        return np.concatenate(parts)

    def _finite(self, vectors: Vectors) -> Vectors:
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.name} gave vectors that are no finite numbers")
        return vectors


def _named(counter: TokenCounter, name: str, spec: str) -> TokenCounter:
    """The counter under its public name, so that no path of the server's disk gets into an answer."""
    if isinstance(counter, TokenizerCounter) and counter.name == spec != name:
        counter.name = name
    return counter
