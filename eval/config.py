"""The settings of a benchmark run: read from YAML or flags, checked whole, written back beside the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ctxprune.calibration import PointName
from ctxprune.errors import InputError
from ctxprune.eval.run.folder import key
from ctxprune.plain import refuse_truth
from ctxprune.prompt import DEFAULT_TEMPLATE
from ctxprune.select.budget import budget_at
from ctxprune.text.language import checked_language

Baseline = Literal["full", "none", "gold", "gold-documents", "lead", "random", "bm25-sentences", "rerank-truncate"]
#: Not "gold-documents", since each reference costs an answer a question.
DEFAULT_BASELINES: tuple[Baseline, ...] = (
    *("full", "none", "gold"),
    *("lead", "random", "bm25-sentences", "rerank-truncate"),
)

#: Asked without a context, so that "none" shows what the generator knows by itself.
CLOSED_BOOK_TEMPLATE = "Answer the question.\n\nQuestion: {question}\nAnswer:"


def _known_language(language: str | None) -> str | None:
    try:
        return checked_language(language)
    except InputError as error:
        raise ValueError(str(error)) from None


class Section(BaseModel):
    """Unknown keys are errors: a misspelt setting must not be a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return refuse_truth(name, value, cls.model_fields[name].annotation)


class DataConfig(Section):
    """One question set, which of its questions to take, and where their documents come from.

    path: a question file, BEIR folder or Hugging Face data set; format, columns, split: see `read_questions` of
    `ctxprune.data`. corpus: a BEIR folder's corpus where it is not inside. limit, seed: a frozen random subset.
    answerable: True or False takes only such questions. name: None for the file's own without its endings.
    retriever: "given" for the documents that the questions bring (the first `k`, None: all), or bm25, dense (the
    bundled encoder, exact) and hybrid (both, by reciprocal rank), which find `k` documents a question in the passages
    of all questions of the source (`pool`) and in the `corpora` (files or folders, see `read_corpus`), equal texts
    once, all cut into runs of `chunk_words` first if given.
    needles: also run with the gold documents at these relative places (0 first, 1 last). documents: also run with so
    many documents a question.
    """

    path: str
    name: str | None = None
    format: Literal["auto", "jsonl", "flashrag", "squad", "beir", "dpr", "datasets"] = "auto"
    columns: Mapping[str, str] | None = None
    corpus: str | None = None
    split: str = "train"
    limit: Annotated[int | None, Field(ge=1)] = None
    seed: int = 0
    answerable: bool | None = None
    retriever: Literal["given", "bm25", "dense", "hybrid"] = "given"
    k: Annotated[int | None, Field(ge=1)] = None
    corpora: tuple[str, ...] = ()
    pool: bool = True
    chunk_words: Annotated[int | None, Field(ge=1)] = None
    needles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    documents: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        if self.retriever == "given" and (self.corpora or self.chunk_words):
            raise ValueError("corpora and chunk_words need a retriever; give retriever: bm25, dense or hybrid")
        if self.retriever != "given" and self.k is None:
            raise ValueError(f"retriever {self.retriever!r} needs k, the number of documents a question, such as k: 5")
        if self.retriever != "given" and not (self.pool or self.corpora):
            raise ValueError("there is nothing to search: leave pool on, or name corpora")
        return self


class Step(Section):
    """One compressor of a chain: a name, folder or hub id of `ctxprune.load`, and the options it is loaded with."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class CompressorConfig(Section):
    """What is tested: one compressor or a chain, at each threshold, operating point, budget and rate.

    thresholds, operating_points (thresholds by name), budgets (tokens of the whole context), rates (a budget of that
    share of a question's tokens): of the last compressor of a chain. With none, the compressor's own default holds.
    baselines: at the tokens this one used; None: those of the run. batch_size: questions compressed together; 1 gives
    the seconds that a single request takes, more is faster on a GPU.
    """

    chain: Annotated[tuple[Step, ...], Field(min_length=1)]
    name: str | None = None
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    operating_points: tuple[PointName, ...] = ()
    budgets: tuple[Annotated[int, Field(ge=1)], ...] = ()
    rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    baselines: tuple[Baseline, ...] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _one_step(cls, given: Any) -> Any:
        """`{name, options}` stands for a chain of one."""
        if isinstance(given, str):
            given = {"name": given}
        if isinstance(given, Mapping) and "chain" not in given and "name" in given:
            steps = [{"name": given["name"], "options": given.get("options", {})}]
            return {"chain": steps, **{key: value for key, value in given.items() if key != "options"}}
        return given

    @property
    def label(self) -> str:
        return self.name or "+".join(step.name for step in self.chain)


class GeneratorConfig(Section):
    """What answers. kind "none" measures the contexts alone.

    model: a folder or hub id (local), or the endpoint's model name. chat: whether a prompt is a user's turn; None: as
    the local tokenizer does it, and for an endpoint True; False for a base model, whose endpoint is then that of plain
    completions. stop: up to four texts before which an endpoint ends the answer, such as the line break after a base
    model's. batch_size: prompts together, of an endpoint the requests in flight. order: prompts of one "length"
    together, so that the seconds of arms compare; or, for an endpoint that keeps the beginnings of prompts, those with
    the same "beginning" one after the other, which is less work and says nothing of an arm's seconds. timeout: seconds
    that an endpoint may be silent before it is asked again; a slow machine takes more for a long context.
    api_key_env: the environment variable that holds the key; the key itself is never written down.
    """

    kind: Literal["none", "local", "openai"] = "none"
    model: str | None = None
    gguf_file: str | None = None
    dtype: str | None = None
    device: str | None = None
    chat: bool | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=4)] = ()
    batch_size: Annotated[int, Field(ge=1)] = 8
    order: Literal["length", "beginning"] = "length"
    max_new_tokens: Annotated[int, Field(ge=1)] = 32
    base_url: str | None = None
    api_key_env: str | None = None
    timeout: Annotated[float, Field(gt=0)] = 60.0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind != "none" and not self.model:
            raise ValueError(f"generator.model is needed for kind {self.kind!r}")
        if self.kind == "openai" and not self.base_url:
            raise ValueError("generator.base_url is needed for kind 'openai', e.g. http://localhost:8000/v1")
        if self.kind == "local" and self.stop:
            raise ValueError("generator.stop is for endpoints; a local generator ends at its model's end tokens")
        if self.kind == "local" and self.order == "beginning":
            raise ValueError("generator.order 'beginning' is for endpoints; a local generator keeps no prompt")
        return self


class Statistics(Section):
    """Of intervals and tests. margin: how much worse a score may be and still count as no worse (0.01: one point)."""

    resamples: Annotated[int, Field(ge=1)] = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    seed: int = 0


class PriceConfig(Section):
    """What a generator and the compressor's machine cost, in one currency, to tell when compression pays.

    per_million_tokens: of input; per_million_output_tokens: of answers, which are not counted where it is 0.
    """

    per_million_tokens: Annotated[float, Field(gt=0)]
    per_million_output_tokens: Annotated[float, Field(ge=0)] = 0.0
    per_compute_hour: Annotated[float, Field(ge=0)]


class EvalConfig(Section):
    """Everything that decides the figures of a run.

    compressed: files of contexts that another tool has compressed, see `ctxprune.eval.interchange`. full_context:
    False leaves out the reference that all are compared with, where generating from it is too dear. tokenizer: what
    counts tokens (see `ctxprune.load_counter`); None: the local generator's, else an estimate. language: of all
    documents, for the compressors and baselines that split sentences; None: each document's is guessed. A compressor's
    own `language` among its options wins.
    template, closed_book_template: see `ctxprune.prompt.render_prompt`; the second, without {context}, is for "none".
    """

    data: Annotated[tuple[DataConfig, ...], Field(min_length=1)]
    compressors: tuple[CompressorConfig, ...] = ()
    compressed: tuple[str, ...] = ()
    baselines: tuple[Baseline, ...] = DEFAULT_BASELINES
    full_context: bool = True
    generator: GeneratorConfig = GeneratorConfig()
    judge: GeneratorConfig = GeneratorConfig()
    tokenizer: str | None = None
    language: Annotated[str | None, AfterValidator(_known_language)] = None
    template: str = DEFAULT_TEMPLATE
    closed_book_template: str = CLOSED_BOOK_TEMPLATE
    statistics: Statistics = Statistics()
    price: PriceConfig | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.compressors and not self.compressed:
            raise ValueError("nothing to test: give at least one compressor, or a file of compressed contexts")
        labels = [each.label for each in self.compressors] + [Path(file).name for file in self.compressed]
        for label in labels:
            if labels.count(label) > 1 or label in REFERENCES:
                raise ValueError(f"the compressor name {label!r} is taken; give another with name:")
        if self.judge.kind != "none" and self.generator.kind == "none":
            raise ValueError("a judge needs answers to judge; give a generator too")
        if "{question}" not in self.closed_book_template:
            raise ValueError(f"closed_book_template needs {{question}}, got {self.closed_book_template!r:.80}")
        for placeholder in ("{question}", "{context}"):
            if placeholder not in self.template:
                raise ValueError(f"template needs {placeholder}, got {self.template!r:.80}")
        return self

    @property
    def hash(self) -> str:
        """Changes with every setting; folders of files and where a model runs do not count."""
        settings = self.model_dump(mode="json")
        for data in settings["data"]:
            data["path"] = Path(data["path"]).name
            data["corpora"] = [Path(corpus).name for corpus in data["corpora"]]
        settings["compressed"] = [Path(file).name for file in self.compressed]
        return key(settings)[:16]

    def to_yaml(self) -> str:
        settings = self.model_dump(mode="json", exclude_defaults=True)
        text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
        return text


def config_from(settings: Mapping[str, Any], *, source: str) -> EvalConfig:
    """The checked settings. Raises InputError naming `source`, the place and the value of everything that is wrong."""
    try:
        return EvalConfig.model_validate(dict(settings))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg'].removeprefix('Value error, ')}"
            + ("" if each["type"] in ("missing", "value_error") else f", got {each['input']!r:.80}")
            for each in error.errors()
        ]
        raise InputError(f"{source}: " + "; ".join(problems)) from None


def read_settings(path: Path) -> dict[str, Any]:
    """What a YAML file holds, for `config_from`; relative paths in it are relative to the current folder."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected settings by name, got {type(settings).__name__}")
    return settings


FULL: Final = "full"
NONE: Final = "none"
GOLD: Final = "gold"
GOLD_DOCUMENTS: Final = "gold-documents"
REFERENCES: Final = (FULL, NONE, GOLD, GOLD_DOCUMENTS)
MATCHED: Final = ("lead", "random", "bm25-sentences", "rerank-truncate")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make a context.

    compressor: a reference (one of `REFERENCES`), the label of a tested compressor, or a baseline. settings: what
    it was asked for: {"threshold"}, {"operating_point"}, {"budget"}, {"rate"} or nothing; of a baseline
    {"tokens_of": id of the tested arm}.
    matched_to: that id; a baseline gets, question by question, as many tokens as that arm used.
    """

    compressor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    matched_to: str | None = None

    @property
    def id(self) -> str:
        """The compressor and its settings in words, e.g. "provence threshold=0.1"; unique in a run."""
        return " ".join([self.compressor, *(f"{name}={value}" for name, value in self.settings.items())])

    @property
    def scorer(self) -> tuple[str, bool]:
        """What makes its contexts: a compressor of the run by label, or (True) a baseline of that name as it comes."""
        return self.compressor, self.matched_to is not None

    @property
    def reference(self) -> bool:
        return self.compressor in REFERENCES and not self.settings

    def budget(self, tokens_before: int) -> int | None:
        """The tokens that a context of `tokens_before` may keep; None when none were asked for."""
        rate = self.settings.get("rate")
        return self.settings.get("budget") if rate is None else budget_at(rate, tokens_before)

    @property
    def threshold(self) -> float | None:
        return self.settings.get("threshold")

    @property
    def operating_point(self) -> str | None:
        return self.settings.get("operating_point")


def arms_of(
    compressors: Sequence[CompressorConfig],
    compressed: Sequence[str],
    baselines: Sequence[str],
    *,
    full_context: bool = True,
) -> Iterator[Arm]:
    """All arms of a run, each after those it is compared with or matched to.

    The full context comes first, since every other arm is compared with it. compressed: labels of contexts that
    another tool has compressed.
    """
    if full_context:
        yield Arm(FULL)
    yield from (Arm(name) for name in REFERENCES[1:] if name in baselines)
    tested = [(arm, config.baselines) for config in compressors for arm in _tested(config)]
    tested += [(Arm(label), None) for label in compressed]
    for arm, own in tested:
        yield arm
        for name in MATCHED:
            if name in (baselines if own is None else own):
                yield Arm(name, {"tokens_of": arm.id}, matched_to=arm.id)


def _tested(config: CompressorConfig) -> Iterator[Arm]:
    yield from (Arm(config.label, {"threshold": threshold}) for threshold in config.thresholds)
    yield from (Arm(config.label, {"operating_point": name}) for name in config.operating_points)
    yield from (Arm(config.label, {"budget": budget}) for budget in config.budgets)
    yield from (Arm(config.label, {"rate": rate}) for rate in config.rates)
    if not any((config.thresholds, config.operating_points, config.budgets, config.rates)):
        yield Arm(config.label)
