"""One encoder pass over (question, document) pairs: what it says of documents, of tokens and of sentences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.base import readable_units, visible_sentences
from ctxprune.compressors.provence.context_head import Scorer, read_scorer
from ctxprune.compressors.provence.fusion import Array, SentenceEvidence
from ctxprune.compressors.provence.reference import Reference
from ctxprune.compressors.readings import DocumentCache, KeptOutputs, open_cache
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.formats import (
    PairFormat,
    Windows,
    lay_windows,
    pair_format,
    plain_tokenizer,
    seams,
    stitch,
    token_spans,
)
from ctxprune.runtime import EncoderOutput, EncoderRuntime, FloatArray, IntArray, sigmoid
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.weights import model_file
from ctxprune.text import UnitKind
from ctxprune.text.normal import normalise, readable
from ctxprune.timing import stage
from ctxprune.types import Context, Extract, Span

ScoreKind = Literal["logit", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Passage:
    """What the encoder reads together: a question, a title ("" for none) and a text."""

    query: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the encoder says of one passage.

    offsets: (n_tokens, 2) characters of the text. keep, answer: (n_tokens,) log-odds; answer is None without that head.
    ranks: (n_windows,) relevance log-odds of the windows that it was read in. ends: (n_windows,) one past the last
    token that each window answers for. question_cut: the question was longer than its share of the input.
    """

    offsets: IntArray
    keep: FloatArray
    answer: FloatArray | None
    ranks: FloatArray
    ends: IntArray
    question_cut: bool

    @property
    def rank(self) -> float:
        """Relevance log-odds of the best window."""
        return float(self.ranks.max())


@dataclass(frozen=True, slots=True)
class PrunerModel:
    """A pruner ready to read passages: an exported one on ONNX Runtime, or any checkpoint on torch.

    score: how `Reading.rank` becomes the document's score. fusion: None for checkpoints that came without.
    operating_points: thresholds by name, calibrated with the model; floor: the score below which a unit is not worth a
    place in a budget; reference: what scores looked like when it was calibrated. None for models that came without.
    """

    name: str
    runtime: EncoderRuntime
    tokenizer: Tokenizer
    layout: PairFormat
    max_length: int
    default_threshold: float
    score: ScoreKind
    fusion: Scorer | None = None
    operating_points: OperatingPoints | None = None
    floor: float | None = None
    reference: Reference | None = None

    @classmethod
    def from_export(cls, folder: Path, *, threads: int | None = None) -> PrunerModel:
        """A folder written by the trainer: pruner.json, model.onnx, tokenizer.json. Imports no torch.

        Raises CheckpointError when one of them is missing or damaged.
        """
        tokenizer = plain_tokenizer(model_file(folder, "tokenizer.json"))
        try:
            config = json.loads((folder / "pruner.json").read_text(encoding="utf-8"))
            fusion = read_scorer(config["fusion"]) if config.get("fusion") else None
            max_length, threshold = int(config["max_length"]), float(config["default_threshold"])
            points = config.get("operating_points")
            points = None if points is None else OperatingPoints.from_dict(points)
            floor = _floor(config.get("floor"))
            reference = Reference.from_dict(config["reference"]) if config.get("reference") else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(
                f"{folder / 'pruner.json'} is missing or damaged ({error!r}); export again"
            ) from error
        return cls(
            folder.name,
            OnnxRuntime(folder / "model.onnx", threads=threads),
            tokenizer,
            pair_format(tokenizer, type_ids=True),
            max_length,
            threshold,
            "sigmoid",
            fusion,
            points,
            floor,
            reference,
        )

    @classmethod
    def from_checkpoint(
        cls, source: str, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
    ) -> PrunerModel:
        """A Provence, XProvence or OpenProvence checkpoint, from a folder or a hub id, on torch."""
        from ctxprune.compressors.provence.model import load_pruner  # imports torch, which exports do not need
        from ctxprune.runtime.torch import TorchRuntime

        loaded = load_pruner(source, revision=revision)
        runtime = TorchRuntime(loaded.module, device=device, dtype=dtype)
        threshold = 0.1 if loaded.default_threshold is None else loaded.default_threshold
        return cls(source, runtime, loaded.tokenizer, loaded.layout, loaded.max_length, threshold, loaded.score)

    def remembering(self, cache: DocumentCache | str | Path | None) -> PrunerModel:
        """The same model with its readings kept in a cache (see `open_cache`); the model itself if there is no cache.

        Raises InputError for checkpoints on torch, whose weights have no digest to be found by.
        """
        kept = open_cache(cache)
        if kept is None:
            return self
        if not isinstance(self.runtime, OnnxRuntime):
            raise InputError(f"{self.name} runs on torch and its readings are not kept; export it, or leave cache out")
        digest = hashlib.blake2b(self.runtime.path.read_bytes(), digest_size=16).hexdigest()
        return replace(self, runtime=KeptOutputs(self.runtime, kept, digest))

    def read(self, passages: Sequence[Passage]) -> list[Reading]:
        """One reading a passage, in order; a passage longer than the model's input is read in overlapping windows."""
        with stage("tokenize"):
            laid = list(self.lay(passages))
        with stage("infer"):
            outputs = iter(self.runtime.forward([sequence for windows, _ in laid for sequence in windows.sequences]))
            return [_reading(windows, offsets, [next(outputs) for _ in windows.sequences]) for windows, offsets in laid]

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Relevance log-odds of (query, passage) pairs: the rank head as a plain cross-encoder."""
        return [reading.rank for reading in self.read([Passage(query, "", text) for query, text in pairs])]

    def shortens(self, query: str) -> bool:
        """Whether a query is longer than its share of the input, so that only its beginning is read."""
        return self.read([Passage(query, "", "")])[0].question_cut

    def lay(self, passages: Sequence[Passage]) -> Iterator[tuple[Windows, IntArray]]:
        """The model inputs of each passage, and the character offsets (n_tokens, 2) of its tokens."""
        short = list({text: None for passage in passages for text in (passage.query, title_sentence(passage.title))})
        encodings = self.tokenizer.encode_batch_fast([readable(text) for text in short], add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(short, encodings, strict=True)}
        normal = [normalise(passage.text) for passage in passages]
        texts = self.tokenizer.encode_batch([each.text for each in normal], add_special_tokens=False)
        for passage, read, encoding in zip(passages, normal, texts, strict=True):
            title = ids[title_sentence(passage.title)]
            windows = lay_windows(
                ids[passage.query], title, encoding.ids, layout=self.layout, max_length=self.max_length
            )
            yield windows, read.sources(np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))


def title_sentence(title: str) -> str:
    """The title as the passage's first sentence, the way the models were trained."""
    title = title.strip()
    return f"{title}." if title and title[-1].isalnum() else title


def relevance(rank: float, kind: ScoreKind) -> float:
    """The document's score: the raw logit, or its sigmoid."""
    return rank if kind == "logit" else float(sigmoid(np.array(rank)))


def _floor(value: object) -> float | None:
    """pruner.json's floor, missing in exports of earlier versions. Raises ValueError for no score."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"floor must be in [0, 1], got {value!r:.80}")
    return float(value)


def _reading(windows: Windows, offsets: IntArray, outputs: Sequence[EncoderOutput]) -> Reading:
    keep = stitch(windows, [output["token_logits"][:, 1] - output["token_logits"][:, 0] for output in outputs])
    answer = stitch(windows, [output["answer_logits"] for output in outputs]) if "answer_logits" in outputs[0] else None
    ranks = np.array([output["rank_logits"][0] for output in outputs], dtype=np.float32)
    ends = np.array([end for _, end in seams(windows)], dtype=np.int64)
    return Reading(offsets, keep, answer, ranks, ends, windows.question_cut)


#: Log-odds of a sentence without tokens.
_NOTHING = -10.0


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
