"""The compress stage: run each compressor once over all questions, remember its scores, choose among them later."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ctxprune import __version__, load
from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.base import Rules, ScoringCompressor
from ctxprune.compressors.provence.compressor import other_rules
from ctxprune.compressors.sentences import RerankTruncate
from ctxprune.data.questions import Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.eval.config import Step
from ctxprune.eval.judge import context_of
from ctxprune.eval.run.folder import Store, key
from ctxprune.files import batched
from ctxprune.pipeline import Pipeline
from ctxprune.result import CompressionResult
from ctxprune.runtime.weights import file_sha256
from ctxprune.select import Policy
from ctxprune.types import (
    About,
    Compressor,
    Context,
    Extract,
    Faithfulness,
    Piece,
    Span,
    Summary,
    TokenCounter,
    about_of,
)


def pack(context: Context) -> dict[str, Any]:
    """The context without the texts of its documents. Raises InputError for soft tokens, which no cache holds."""
    return {
        "pieces": [_pack_piece(piece) for piece in context.pieces],
        "warnings": list(context.warnings),
        "model": context.model,
    }


def unpack(packed: dict[str, Any], question: Question) -> Context:
    """The inverse of `pack`, for the question whose context it was."""
    pieces = tuple(_unpack_piece(piece, question) for piece in packed["pieces"])
    warnings, model = tuple(packed["warnings"]), packed.get("model", "")  # runs made before it was kept
    return Context(question.text, pieces, id=question.id, warnings=warnings, model=model)


def _pack_piece(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Extract):
        return {
            "index": piece.index,
            "score": None if piece.score is None else float(piece.score),
            "titled": piece.titled,
            "elision": piece.elision,
            # by column, which packs best; bits as a string
            "starts": [unit.start for unit in piece.units],
            "ends": [unit.end for unit in piece.units],
            "scores": [float(unit.score) for unit in piece.units],
            "kept": "".join("01"[flag] for flag in piece.kept),
        }
    if isinstance(piece, Summary):
        return {
            "index": piece.index,
            "summary": piece.text,
            "faithfulness": piece.faithfulness and asdict(piece.faithfulness),
        }
    raise InputError(
        f"document {piece.index} is soft tokens for {piece.generator!r}; the benchmark measures text compressors"
    )


def _unpack_piece(piece: dict[str, Any], question: Question) -> Piece:
    if "summary" in piece:
        sources = tuple(labelled.document for labelled in question.documents)
        return Summary(
            piece["summary"], sources, index=piece["index"], faithfulness=_faithfulness(piece["faithfulness"])
        )
    columns = zip(piece["starts"], piece["ends"], piece["scores"], strict=True)
    return Extract(
        question.documents[piece["index"]].document,
        tuple(Span(start, end, score) for start, end, score in columns),
        tuple(flag == "1" for flag in piece["kept"]),
        score=piece["score"],
        index=piece["index"],
        titled=piece["titled"],
        elision=piece.get("elision", ""),  # runs made before there was one
    )


def _faithfulness(packed: dict[str, Any] | None) -> Faithfulness | None:
    # JSON has no tuples
    if packed is None:
        return None
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in packed.items()}
    return Faithfulness(**fields)


@dataclass(frozen=True, slots=True)
class Compressed:
    """A context, and the seconds that its compressor took for it (its share of its batch)."""

    context: Context
    seconds: float


class Scorer:
    """One chain of compressors whose outputs are in a store; the models are loaded when something is missing there.

    at_once: questions compressed together. The last compressor's scores do not depend on threshold and budget, so they
    are computed once and every setting is a choice among them. A last compressor that does more than score (it writes
    summaries, or chooses words by rules of its own) runs once a setting. language: of the documents, for steps that
    name none of their own; those that know no languages go without. reader: of a reranker by the model that this one
    has read the questions with: its scores are then taken, and its seconds counted, in place of a second reading.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        store: Store,
        counter: TokenCounter,
        at_once: int = 1,
        language: str | None = None,
        reader: Scorer | None = None,
    ) -> None:
        self.reader = reader
        self.steps = tuple(steps)
        self._language = language
        self.at_once = at_once
        self._store = store
        self._counter = counter
        self._chain: list[Compressor] | None = None
        self._identity = [[step.name, dict(step.options), model_hash(step)] for step in steps] + [package_hash()]
        if language is not None:
            self._identity.append(["language", language])
        self._about: dict[str, Any] | None = None

    @property
    def about(self) -> Mapping[str, Any]:
        """What choosing needs: policy, operating points, the limits it was built with, whether it "scores"."""
        if self._about is None:
            place = key("about", self._identity)
            self._about = self._store.get_many([place]).get(place)
            if self._about is None:
                self._about = _about(self._loaded()[-1])
                self._store.put_many({place: self._about})
        return self._about

    def prepare(self, questions: Sequence[Question], settings: Iterable[Mapping[str, Any]]) -> None:
        """Compute what the store lacks for these questions."""
        for setting in [{}] if self.about["scores"] else list(settings):
            keys = self._keys(questions, setting)
            known = self._store.get_many(list(keys.values()))
            missing = [question for question in questions if keys[question.id] not in known]
            rows: dict[str, Any] = {}
            for batch in batched(missing, self.at_once):
                began = time.perf_counter()
                read = [] if self.reader is None else self.reader.outputs(batch, {})
                contexts = self._run([context_of(question) for question in batch], setting, read)
                seconds = (time.perf_counter() - began + sum(each.seconds for each in read)) / len(batch)
                packed = ({"context": pack(context), "seconds": seconds} for context in contexts)
                rows |= {keys[question.id]: row for question, row in zip(batch, packed, strict=True)}
            self._store.put_many(rows)

    def outputs(self, questions: Sequence[Question], setting: Mapping[str, Any]) -> list[Compressed]:
        """The prepared contexts: with a scoring compressor everything still kept (see `choose`), else compressed."""
        keys = self._keys(questions, {} if self.about["scores"] else setting)
        rows = self._store.get_many(list(keys.values()))
        outputs = []
        for question in questions:
            row = rows.get(keys[question.id])
            if row is None:
                raise InputError(f"the cache lost question {question.id!r} of this run; run again to compute it anew")
            outputs.append(Compressed(unpack(row["context"], question), row["seconds"]))
        return outputs

    def choose(
        self,
        full: Context,
        output: Compressed,
        *,
        threshold: float | None,
        budget: int | None,
        operating_point: str | None = None,
    ) -> CompressionResult:
        """What `Pipeline.run` makes of `full` at a threshold or an operating point, a budget, or the compressor's own
        default, without reading it again; `seconds` hold only the total, of reading and choosing."""
        if self.about["scores"]:
            replay: Compressor = Replay(self.name, self.about, self._counter, output.context)
        else:
            replay, threshold, operating_point = Repeat(self.name, output.context, self.about["budget"]), None, None
        pipeline = Pipeline(replay, counter=self._counter)
        result = pipeline.run(full, threshold=threshold, operating_point=operating_point, budget=budget)
        return replace(result, seconds={"total": output.seconds + result.seconds["select"]})

    @property
    def name(self) -> str:
        return "+".join(step.name for step in self.steps)

    def release(self) -> None:
        """Let go of the models, before the next stage loads its own."""
        self._chain = None

    def _loaded(self) -> list[Compressor]:
        if self._chain is None:
            self._chain = [self._load(step) for step in self.steps]
        return self._chain

    def _load(self, step: Step) -> Compressor:
        options = {"counter": self._counter, **_options(step)}
        if self.reader is not None:
            options["scorer"] = "retriever"  # its own would be a second model, and is never asked
        if self._language is None or "language" in options:
            return load(step.name, **options)
        try:
            return load(step.name, language=self._language, **options)
        except InputError as error:
            if "takes no language" not in str(error):
                raise
            return load(step.name, **options)

    def _run(
        self, contexts: list[Context], setting: Mapping[str, Any], read: Sequence[Compressed] = ()
    ) -> list[Context]:
        *first, last = self._loaded()
        if read and isinstance(last, RerankTruncate):
            last = last.after([each.context for each in read])
        scored = Pipeline([*first, last], counter=self._counter).score(contexts)
        if self.about["scores"]:
            return scored.contexts
        return [result.after for result in scored.choose(**setting)]

    def _keys(self, questions: Sequence[Question], setting: Mapping[str, Any]) -> dict[str, str]:
        parts = [self._identity, self._counter.name, dict(setting)]
        return {question.id: key("compress", content_hash(question), parts) for question in questions}


def _options(step: Step) -> dict[str, Any]:
    """The options of a step as `load` takes them; a policy is written as a mapping of its fields."""
    options = dict(step.options)
    if "counter" in options:
        raise InputError(f"{step.name}: tokens are counted in one way in a run; set tokenizer: instead of counter")
    if isinstance(options.get("policy"), Mapping):
        options["policy"] = _policy(options["policy"])
    return options


def _policy(fields: Mapping[str, Any]) -> Policy:
    """A policy from its fields, of which YAML and the store have tuples as lists."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Policy(**values)


class Replay(ScoringCompressor):
    """Chooses as a compressor would whose scores are known already. about: see `Scorer.about`."""

    #: The question was looked at when the scores were made.
    needs_query = False

    def __init__(self, name: str, about: Mapping[str, Any], counter: TokenCounter, scored: Context) -> None:
        self._scored = scored
        self.name = name  # type: ignore[misc]  # the name of each instance is that of what it replays
        self.default_threshold = about["default_threshold"]
        self.default_companions = about["companions"]
        points = about["operating_points"]
        self.operating_points = None if points is None else OperatingPoints.from_dict(points)
        self._others, self._rounding = about.get("other_languages"), about.get("rounding")
        self._own_model = about.get("model")
        self.default_floor = about.get("default_floor")
        limits = {name: about[name] for name in ("threshold", "operating_point", "budget")}
        super().__init__(**limits, counter=counter, policy=_policy(about["policy"]))

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        return [self._scored for _ in contexts]

    def rules(self, scored: Context) -> Rules:
        if self._others is None or self._rounding is None or scored.model in ("", self._own_model):
            return super().rules(scored)
        return other_rules(self._others, self._rounding, self.policy, own_floor=self.default_floor)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Gives what a compressor made of a context before."""

    name: str
    made: Context
    budget: int | None

    @property
    def about(self) -> About:
        return About(needs_query=False, budget=self.budget)

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        return [self.made for _ in contexts]


def _about(compressor: Compressor) -> dict[str, Any]:
    about = about_of(compressor)
    points: OperatingPoints | None = about.operating_points
    return {
        "scores": about.common_rules,
        "policy": asdict(about.policy or Policy()),
        "operating_points": None if points is None else points.to_dict(),
        "default_threshold": about.default_threshold,
        "companions": about.companions,
        "default_floor": about.floor,
        "threshold": about.threshold,
        "operating_point": about.operating_point,
        "budget": about.budget,
        "rounding": about.rounding,
        "other_languages": about.other_languages,
        "model": getattr(about.parts.get("model"), "name", None),
    }


def content_hash(question: Question) -> str:
    """Of what a compressor sees: the question and its documents, without labels."""
    documents = [
        [document["id"], document["title"], document["text"], document.get("score"), document.get("metadata")]
        for document in row_from_question(question)["documents"]
    ]
    return key(question.text, documents)


def model_hash(step: Step) -> str | None:
    """Of the files of a local model and adapter, so that a retrained one in the same place is not taken for the old.

    None for a built-in name. A hub id without a `revision` among its options is trusted to stay what it is.
    """
    named = [step.options.get("model", step.name), step.options.get("adapter", "")]
    folders = [Path(str(each)).expanduser() for each in named if each]
    hashes = [_files_hash(folder) for folder in folders if folder.exists()]
    return "+".join(hashes) or None


@cache
def package_hash() -> str:
    """Of the library's code and bundled weights: a changed compressor must not answer from the cache of the old one."""
    package = Path(str(resources.files("ctxprune")))
    files = [
        path
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and path.relative_to(package).parts[0] not in _APART
    ]
    return key(__version__, [[str(path.relative_to(package)), file_sha256(path)] for path in files])


#: Folders of the package that no compressor uses.
_APART = frozenset({"cli", "eval", "trainers", "integrations"})


@cache
def _files_hash(path: Path) -> str:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return key([[each.name, file_sha256(each)] for each in files])
