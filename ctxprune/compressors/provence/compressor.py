"""Provence: prune sentences and rerank documents for a question in one encoder pass (Chirkova et al., ICLR 2025)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal, Unpack, get_args

import numpy as np

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.base import Choice, Rules, ScoringCompressor, narrow, readable_units, visible_sentences
from ctxprune.compressors.provence.fusion import Array, SentenceEvidence
from ctxprune.compressors.provence.pruner import Passage, PrunerModel, Reading, relevance
from ctxprune.compressors.readings import DocumentCache
from ctxprune.compressors.sentences import relevance_of, with_extracts
from ctxprune.errors import InputError
from ctxprune.models.formats import check_source, token_spans
from ctxprune.runtime import sigmoid
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.select import Policy
from ctxprune.text import UnitKind
from ctxprune.text.language import in_latin_letters
from ctxprune.timing import stage
from ctxprune.types import Context, Extract, Span

#: How token probabilities become a sentence's: their mean, the share of tokens above one half, or the fitted fusion.
Rounding = Literal["fused", "mean", "share"]
BUNDLED = "provence-mini"
#: The bundled model of many languages.
MULTILINGUAL = "provence-mini-multilingual"
#: What reads contexts that are not in Latin letters. In Latin ones it orders sentences better but removes less.
OTHER_LANGUAGES: str | None = MULTILINGUAL
#: For models that came without a floor of their own: at budgets of 100 tokens it cost none of 339 answers of SQuAD,
#: HotpotQA and web questions, twice as much cost one in a hundred.
DEFAULT_FLOOR = 0.01
#: Contexts read at once; bounds the memory of very large batches without slowing small ones.
_CHUNK = 32
#: Log-odds of a sentence without tokens.
_NOTHING = -10.0


class Provence(ScoringCompressor):
    """Keeps the sentences that help to answer the question; documents get a relevance score on the way.

    model: see `load_model`. rounding: "fused" where the model has a fusion (the bundled one has), else "mean" over the
    tokens' keep probabilities as in OpenProvence, or "share" of tokens above one half. Scores are probabilities;
    the default is the model's operating point "balanced". A model without calibrated points has
    `OperatingPoints.around` its default threshold (0.05, 0.1 and 0.3 for 0.1); one without a floor has DEFAULT_FLOOR.
    other_languages: a model (see `load_model`) that reads a context instead, by its own thresholds, where the question
    or the documents are not in Latin letters; loaded when first needed, and `Context.model` says which one
    it was. None: `model` reads all.
    """

    name = "provence"
    default_threshold: float | None = 0.1
    default_floor: float | None = DEFAULT_FLOOR
    default_companions = True
    splits_units = True

    def __init__(
        self,
        model: PrunerModel | None = None,
        *,
        other_languages: str | None = None,
        rounding: Rounding | None = None,
        **choice: Unpack[Choice],
    ) -> None:
        self.model = model or load_model(BUNDLED)
        self.other_languages = other_languages
        #: From the name of the second model to the model: another one keeps its readings, or waits for its turn.
        self.open_other: Callable[[str], PrunerModel] = shared_model
        self.rounding: Rounding = rounding or _fitted(self.model)
        self.default_threshold = self.model.default_threshold
        self.operating_points, self.default_floor = calibrated(self.model, self.rounding)
        super().__init__(**choice)
        if self.rounding not in get_args(Rounding):
            raise InputError(f"rounding must be one of {', '.join(get_args(Rounding))}, got {rounding!r}")
        if self.rounding == "fused" and self.model.fusion is None:
            raise InputError(f"{self.model.name} came without a fusion; pass rounding='mean' or 'share'")

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        models = [self._model_for(context) for context in contexts]
        scored = list(contexts)
        for model in {id(model): model for model in models}.values():
            places = [place for place, mine in enumerate(models) if mine is model]
            for begin in range(0, len(places), _CHUNK):
                part = places[begin : begin + _CHUNK]
                for place, context in zip(part, self._score([contexts[place] for place in part], model), strict=True):
                    scored[place] = context
        return scored

    def rules(self, scored: Context) -> Rules:
        if self.other_languages is None or scored.model in ("", self.model.name):
            return super().rules(scored)
        return other_rules(self.other_languages, self.rounding, self.policy, own_floor=self.default_floor)

    def _model_for(self, context: Context) -> PrunerModel:
        """The model that reads a context: one for all of its documents, since they are judged together."""
        if self.other_languages is None:
            return self.model
        texts = [extract.source.text for extract in context.extracts]
        if in_latin_letters(context.query, texts, self.language):
            return self.model
        return self.open_other(self.other_languages)

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        """Relevance of each context's documents, so that the model serves as a reranker too."""
        return relevance_of(self.score(contexts))

    def _score(self, contexts: Sequence[Context], model: PrunerModel) -> list[Context]:
        with stage("tokenize"):
            items = [sentences_of(context, self.language, self.units) for context in contexts]
        readings = iter(model.read([passage for item in items for passage in item.passages()]))
        read = [[next(readings) for _ in item.extracts] for item in items]
        with stage("infer"):
            return [self._scored(*parts, model) for parts in zip(contexts, items, read, strict=True)]

    def _scored(self, context: Context, item: Sentences, readings: list[Reading], model: PrunerModel) -> Context:
        evidence = gather(item, readings)
        scores, ranks = self._rounded(evidence, model)
        fresh, place = {}, 0
        for extract, spans, rank in zip(item.extracts, item.spans, ranks, strict=True):
            mine = scores[place : place + len(spans)]
            place += len(spans)
            units = [replace(span, score=float(score)) for span, score in zip(spans, mine, strict=True)]
            fresh[extract.index] = narrow(extract, units, score=relevance(float(rank), model.score))
        context = with_extracts(context, [fresh.get(extract.index, extract) for extract in context.extracts])
        if self.other_languages is not None:
            context = replace(context, model=model.name)
        if any(reading.question_cut for reading in readings):
            context = context.warn(
                "the query is longer than a quarter of the model's input; only its beginning was read"
            )
        return context

    def _rounded(self, evidence: Evidence, model: PrunerModel) -> tuple[Array, Array]:
        """Keep probabilities of the sentences and relevance log-odds of the documents."""
        if self.rounding == "fused" and model.fusion is not None:
            logits, ranks = model.fusion.score(evidence.fusable)
            return sigmoid(logits), ranks
        return evidence.mean if self.rounding == "mean" else evidence.share, evidence.fusable.rank


def calibrated(model: PrunerModel, rounding: Rounding) -> tuple[OperatingPoints, float]:
    """The model's operating points and floor for scores of this rounding; what was calibrated is of its own alone."""
    around = OperatingPoints.around(model.default_threshold)
    if rounding != _fitted(model):
        return around, DEFAULT_FLOOR
    return model.operating_points or around, DEFAULT_FLOOR if model.floor is None else model.floor


def other_rules(source: str, rounding: Rounding, policy: Policy, *, own_floor: float | None) -> Rules:
    """The rules for scores of the model `source`, under a policy that was settled for the first model's scores.

    own_floor: the first model's floor, which this one's replaces.
    """
    model = shared_model(source)
    points, floor = calibrated(model, rounding)
    floored = replace(policy, floor=floor) if policy.floor == own_floor else policy
    return Rules(model.default_threshold, points, floored)


def _fitted(model: PrunerModel) -> Rounding:
    return "fused" if model.fusion else "mean"


@dataclass(frozen=True, slots=True)
class Sentences:
    """The extracts of a context that still hold text, and the kept sentences of each."""

    query: str
    extracts: tuple[Extract, ...]
    spans: tuple[tuple[Span, ...], ...]

    def passages(self) -> list[Passage]:
        """Whole documents, because a sentence is judged in its surroundings, even those removed earlier."""
        return [Passage(self.query, extract.source.title, extract.source.text) for extract in self.extracts]


def sentences_of(context: Context, language: str | None = None, units: UnitKind = "auto") -> Sentences:
    """Split what is kept; documents of which nothing is kept, or that are empty, are left out."""
    split = [(extract, tuple(visible_sentences(extract, language, units))) for extract in context.extracts]
    alive = [(extract, spans) for extract, spans in split if spans]
    return Sentences(context.query, tuple(extract for extract, _ in alive), tuple(spans for _, spans in alive))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentence scores of one context by plain rounding, and what the fusion needs.

    mean: mean keep probability; share: share of tokens with P(keep) > 0.5; each (n_sentences,) in [0, 1].
    """

    mean: Array
    share: Array
    fusable: SentenceEvidence


def gather(item: Sentences, readings: Sequence[Reading]) -> Evidence:
    """Collect token scores by sentence. A sentence without tokens (only symbols the tokenizer drops) scores 0."""
    tables = [_by_sentence(spans, reading) for spans, reading in zip(item.spans, readings, strict=True)]
    mean, share, answer, peak, tokens, window = np.concatenate([np.zeros((0, 6)), *tables]).T
    document = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    first = np.cumsum([0, *(len(reading.ranks) for reading in readings)])
    fusable = SentenceEvidence(
        item.query,
        tuple(
            text
            for extract, spans in zip(item.extracts, item.spans, strict=True)
            for text in readable_units(extract, spans)
        ),
        tuple(extract.source.title for extract in item.extracts),
        document,
        _log_odds(mean),
        answer,
        np.array([reading.rank for reading in readings]),
        peak=peak,
        tokens=tokens,
        window=first[document] + window.astype(np.int64),
        window_rank=np.concatenate([np.zeros(0), *(reading.ranks for reading in readings)]).astype(np.float64),
    )
    return Evidence(mean, share, fusable)


def _by_sentence(spans: Sequence[Span], reading: Reading) -> Array:
    """(n_sentences, 6): mean keep probability, share of tokens above one half, highest answer log-odds, highest keep
    log-odds, tokens, and the window that the sentence's middle was read in."""
    starts = np.array([span.start for span in spans], dtype=np.int64)
    ends = np.array([span.end for span in spans], dtype=np.int64)
    first, last = token_spans(reading.offsets, starts, ends)
    keep = reading.keep.astype(np.float64)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(np.column_stack([sigmoid(keep), keep > 0]), axis=0)])
    means = (sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]
    answers = keep if reading.answer is None else reading.answer
    places = list(zip(first, last, strict=True))
    highest = [answers[a:b].max() if b > a else _NOTHING for a, b in places]
    peaks = [keep[a:b].max() if b > a else _NOTHING for a, b in places]
    middle = (first + np.maximum(last, first + 1) - 1) // 2
    window = np.minimum(np.searchsorted(reading.ends, middle, side="right"), len(reading.ends) - 1)
    return np.column_stack([means, highest, peaks, last - first, window])


def _log_odds(probabilities: Array) -> Array:
    inside = np.clip(probabilities, 1e-4, 1 - 1e-4)
    odds: Array = np.log(inside / (1 - inside))
    return odds


_loading = threading.Lock()


def shared_model(source: str) -> PrunerModel:
    """A model (see `load_model`), loaded once and shared by all that ask for it."""
    with _loading:
        return _shared_model(source)


@lru_cache(maxsize=4)
def _shared_model(source: str) -> PrunerModel:
    return load_model(source)


class Remembering:
    """Opens shared models, each once, with the readings of exported ones in a cache that the models share."""

    def __init__(self, cache: DocumentCache) -> None:
        self.cache = cache
        self._opened: dict[str, PrunerModel] = {}

    def __call__(self, source: str) -> PrunerModel:
        if source not in self._opened:
            model = shared_model(source)
            exported = isinstance(model.runtime, OnnxRuntime)
            self._opened[source] = model.remembering(self.cache) if exported else model
        return self._opened[source]


def load_model(
    source: str, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> PrunerModel:
    """A bundled model by name, a folder that the trainer exported, or a published checkpoint by folder or hub id.

    device, dtype: for checkpoints on torch; exports run on the CPU. Raises UnknownNameError for a path that is not
    there, CheckpointError for what cannot be loaded.
    """
    if source in (BUNDLED, MULTILINGUAL):
        with resources.as_file(resources.files("ctxprune.bundled") / source) as folder:
            return PrunerModel.from_export(folder)
    path = Path(source)
    if (path / "pruner.json").is_file():
        return PrunerModel.from_export(path)
    check_source(source, bundled=BUNDLED)
    return PrunerModel.from_checkpoint(source, revision=revision, device=device, dtype=dtype)
