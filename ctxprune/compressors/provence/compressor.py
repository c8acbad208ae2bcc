"""Provence: prune sentences and rerank documents for a question in one encoder pass (Chirkova et al., ICLR 2025)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, Unpack, get_args

import numpy as np
import numpy.typing as npt

from ctxprune.bundled import bundled_folder
from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.base import Choice, Rules, ScoringCompressor, narrow, relevance_of, with_extracts
from ctxprune.compressors.provence.fusion import Array
from ctxprune.compressors.provence.pruner import (
    Evidence,
    PrunerModel,
    Reading,
    Sentences,
    gather,
    relevance,
    sentences_of,
)
from ctxprune.compressors.provence.second_look import Look, SecondLook, either, leads, passages
from ctxprune.compressors.readings import DocumentCache
from ctxprune.errors import InputError, check_choice
from ctxprune.models.formats import check_source
from ctxprune.runtime import sigmoid
from ctxprune.runtime.device import only_on_cpu
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.select import Policy
from ctxprune.text.language import reads_as_english
from ctxprune.text.words import bm25_scores
from ctxprune.timing import stage
from ctxprune.types import Context, Extract

#: How token probabilities become a sentence's: their mean, the share of tokens above one half, or the fitted fusion.
Rounding = Literal["fused", "mean", "share"]
#: Keep probabilities of the sentences, and relevance log-odds of the documents.
Judged = tuple[Array, Array]
BUNDLED = "provence-mini"
#: The bundled model of many languages.
MULTILINGUAL = "provence-mini-multilingual"
#: What reads contexts that are not in English.
OTHER_LANGUAGES: str | None = MULTILINGUAL
#: For models that came without a floor of their own: at budgets of 100 tokens it cost none of 339 answers of SQuAD,
#: HotpotQA and web questions, twice as much cost one in a hundred.
DEFAULT_FLOOR = 0.01
#: Contexts read at once; bounds the memory of very large batches without slowing small ones.
_CHUNK = 32


class Provence(ScoringCompressor):
    """Keeps the sentences that help to answer the question; documents get a relevance score on the way.

    model: see `load_model`. rounding: "fused" where the model has a fusion (the bundled one has), else "mean" over the
    tokens' keep probabilities as in OpenProvence, or "share" of tokens above one half. Scores are probabilities;
    the default is the model's operating point "balanced". A model without calibrated points has
    `OperatingPoints.around` its default threshold (0.05, 0.1 and 0.3 for 0.1); one without a floor has DEFAULT_FLOOR.
    other_languages: a model (see `load_model`) that reads a context instead, by its own thresholds, where the question
    or the documents are not in English; loaded when first needed, and `Context.model` says which one
    it was. None: `model` reads all.
    second_look: which documents are read again for the question and a sentence of the first look, for questions of
    several steps: those that a good sentence "named" or that name its own document (few: they cost a tenth of the
    time), "all" of a context, for the best sentence (twice the time), or "none". A sentence is kept that helps by
    either reading.
    first_stage: read only so many documents of a context, the best by BM25; the sentences of the others score 0, and a
    warning says how many these are. Off by default, since it loses answers. None: all are read.
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
        second_look: SecondLook = "named",
        first_stage: int | None = None,
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
        self.second_look: SecondLook = second_look
        check_choice("second_look", second_look, get_args(SecondLook))
        #: How many documents of a context are read; None for all.
        self.first_stage = checked_number(first_stage)
        check_choice("rounding", self.rounding, get_args(Rounding))
        if self.rounding == "fused" and self.model.fusion is None:
            raise InputError(f"{self.model.name} came without a fusion; pass rounding='mean' or 'share'")

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return self._by_models(contexts, self.second_look)

    def _by_models(self, contexts: Sequence[Context], second_look: SecondLook) -> list[Context]:
        models = [self._model_for(context) for context in contexts]
        scored = list(contexts)
        for model in {id(model): model for model in models}.values():
            places = [place for place, mine in enumerate(models) if mine is model]
            for begin in range(0, len(places), _CHUNK):
                part = places[begin : begin + _CHUNK]
                read = self._score([contexts[place] for place in part], model, second_look)
                for place, context in zip(part, read, strict=True):
                    scored[place] = context
        return scored

    def rules(self, scored: Context) -> Rules:
        if self.other_languages is None or scored.model in ("", self.model.name):
            return super().rules(scored)
        return other_rules(self.other_languages, self.rounding, self.policy, own_floor=self.default_floor)

    def _reads(self) -> dict[str, str]:
        reads = {} if self.second_look == "none" else {"second_look": str(self.second_look)}
        return reads if self.first_stage is None else reads | {"first_stage": str(self.first_stage)}

    def _model_for(self, context: Context) -> PrunerModel:
        """The model that reads a context: one for all of its documents, since they are judged together."""
        if self.other_languages is None:
            return self.model
        texts = [extract.source.text for extract in context.extracts]
        if reads_as_english(context.query, texts, self.language):
            return self.model
        return self.open_other(self.other_languages)

    def score_documents(self, contexts: Sequence[Context]) -> list[list[float]]:
        """Relevance of each context's documents, so that the model serves as a reranker too."""
        return relevance_of(self._by_models(contexts, "none"))  # a second look changes no document's relevance

    def _score(self, contexts: Sequence[Context], model: PrunerModel, second_look: SecondLook) -> list[Context]:
        with stage("tokenize"):
            stages = [
                staged(sentences_of(context, self.language, self.units), self.first_stage, self.language)
                for context in contexts
            ]
        looks = self._first_looks([each.read for each in stages], model)
        if second_look != "none":
            looks = self._second_looks(looks, model, second_look)
        with stage("infer"):
            return [self._scored(*parts, model) for parts in zip(contexts, stages, looks, strict=True)]

    def _first_looks(self, items: Sequence[Sentences], model: PrunerModel) -> list[Look]:
        read = _read(items, model)
        with stage("infer"):
            evidence = [gather(*parts) for parts in zip(items, read, strict=True)]
            return [
                Look(item, readings, each.fusable, *self._rounded(each, model))
                for item, readings, each in zip(items, read, evidence, strict=True)
            ]

    def _second_looks(self, looks: Sequence[Look], model: PrunerModel, second_look: SecondLook) -> list[Look]:
        """The sentences by either look; the documents keep the relevance that they have for the question itself."""
        led = [leads(look, second_look) for look in looks]
        again = iter(model.read([passage for pair in zip(looks, led, strict=True) for passage in passages(*pair)]))

        def score(evidence: Evidence) -> Array:
            return self._rounded(evidence, model)[0]

        return [
            replace(look, scores=either(look, lead, list(islice(again, len(lead))), score))
            for look, lead in zip(looks, led, strict=True)
        ]

    def _scored(self, context: Context, stages: Staged, look: Look, model: PrunerModel) -> Context:
        scores, ranks = look.scores, look.ranks
        item, place = stages.read, 0
        lowest = min((relevance(float(rank), model.score) for rank in ranks), default=0.0)
        fresh = stages.unread_extracts(score=0.0 if model.score == "sigmoid" else lowest - 1.0)
        for extract, spans, rank in zip(item.extracts, item.spans, ranks, strict=True):
            mine = scores[place : place + len(spans)]
            place += len(spans)
            units = [replace(span, score=float(score)) for span, score in zip(spans, mine, strict=True)]
            fresh[extract.index] = narrow(extract, units, score=relevance(float(rank), model.score))
        context = with_extracts(context, [fresh.get(extract.index, extract) for extract in context.extracts])
        if self.other_languages is not None:
            context = replace(context, model=model.name)
        if stages.warning is not None:
            context = context.warn(stages.warning)
        if any(reading.question_cut for reading in look.readings):
            context = context.warn(
                "the query is longer than a quarter of the model's input; only its beginning was read"
            )
        return context

    def _rounded(self, evidence: Evidence, model: PrunerModel) -> Judged:
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


def _read(items: Sequence[Sentences], model: PrunerModel) -> list[list[Reading]]:
    """The readings of all documents of each item, made in one call."""
    readings = iter(model.read([passage for item in items for passage in item.passages()]))
    return [[next(readings) for _ in item.extracts] for item in items]


def _fitted(model: PrunerModel) -> Rounding:
    return "fused" if model.fusion else "mean"


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

    revision, device, dtype: for checkpoints on torch; exports run on the CPU, and warn. Raises UnknownNameError for a
    path that is not there, CheckpointError for what cannot be loaded.
    """
    path = bundled_folder(source, "pruner.json") or Path(source)
    if (path / "pruner.json").is_file():
        only_on_cpu(source, device=device, dtype=dtype, revision=revision)
        return PrunerModel.from_export(path)
    check_source(source, bundled=BUNDLED)
    return PrunerModel.from_checkpoint(source, revision=revision, device=device, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Staged:
    """The documents of a context that are read, and those that are not."""

    read: Sentences
    unread: Sentences

    def unread_extracts(self, *, score: float) -> dict[int, Extract]:
        """The documents that were not read by their places in the input, all of their sentences with a score of 0.

        score: of each document, below those of the documents that were read.
        """
        pairs = zip(self.unread.extracts, self.unread.spans, strict=True)
        return {extract.index: narrow(extract, spans, score=score) for extract, spans in pairs}

    @property
    def warning(self) -> str | None:
        """What a user must know of it; None where all was read."""
        unread, read = len(self.unread.extracts), len(self.read.extracts)
        if not unread:
            return None
        return (
            f"{unread} of {unread + read} documents were not read and score 0: they share less with the question than "
            f"the {read} that first_stage let through; leave it out to read all"
        )


def checked_number(first_stage: int | None) -> int | None:
    """How many documents are read; raises InputError for anything but a whole number from 1 up, or None."""
    if first_stage is not None and (type(first_stage) is not int or first_stage < 1):
        raise InputError(f"first_stage must be a whole number of documents from 1 up, got {first_stage!r}")
    return first_stage


def staged(item: Sentences, number: int | None, language: str | None = None) -> Staged:
    """Let the `number` best documents of a context through, and those that score as well as the last of them.

    So no order of documents enters, and where the question shares no word with the `number`th, all are read. None: all
    are read anyway.
    """
    if number is None or len(item.extracts) <= number:
        return Staged(item, _part(item, np.zeros(len(item.extracts), np.bool_)))
    sources = [extract.source for extract in item.extracts]
    titles = [source.title for source in sources]
    scores = bm25_scores(item.query, [source.text for source in sources], titles=titles, language=language)
    # sums of the same words in another order differ in the last digit
    through = scores >= np.partition(scores, len(scores) - number)[len(scores) - number] - 1e-9
    return Staged(_part(item, through), _part(item, ~through))


def _part(item: Sentences, chosen: npt.NDArray[np.bool_]) -> Sentences:
    places = np.flatnonzero(chosen)
    return replace(
        item,
        extracts=tuple(item.extracts[place] for place in places),
        spans=tuple(item.spans[place] for place in places),
    )
