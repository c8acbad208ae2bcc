"""Compressors by name: built-in ones, plug-ins of other packages, and pruner checkpoints by path or hub id."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.compressors.provence.compressor import (
    BUNDLED,
    MULTILINGUAL,
    OTHER_LANGUAGES,
    Provence,
    Remembering,
    load_model,
)
from ctxprune.compressors.readings import DocumentCache, open_cache
from ctxprune.compressors.sentences import DSLR, RerankTruncate
from ctxprune.errors import CtxpruneError, InputError, MissingPackageError, UnknownNameError, UnknownOptionError
from ctxprune.select import Policy
from ctxprune.types import Compressor

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ctxprune.calibration import Calibration

GROUP = "ctxprune.compressors"

#: name -> (factory, one line for people). Plug-ins give the same "module:attribute" through the entry-point group.
BUILT_IN = {
    "provence": ("ctxprune.compressors:provence", "neural pruner and reranker in one pass (bundled model)"),
    "llmlingua2": (
        "ctxprune.compressors.llmlingua.compressor:llmlingua2",
        "words by a token classifier that sees no question",
    ),
    "recomp-abstractive": (
        "ctxprune.compressors.recomp.abstractive:recomp_abstractive",
        "a summary of the documents for the question, checked against them; give model=",
    ),
    "xrag": (
        "ctxprune.compressors.xrag.compressor:XRAG",
        "one soft token a document, for the generator it was trained for",
    ),
    "recomp-extractive": (
        "ctxprune.compressors.recomp.extractive:recomp_extractive",
        "sentences by a dual encoder; document vectors are made once (bundled model)",
    ),
    "dslr": ("ctxprune.compressors:dslr", "a reranker's score of each sentence; training-free"),
    "bm25-sentences": ("ctxprune.compressors.sentences:BM25Sentences", "sentences by words shared with the question"),
    "embedding-sentences": (
        "ctxprune.compressors.recomp.extractive:EmbeddingSentences",
        "sentences by embedding similarity",
    ),
    "rerank-truncate": ("ctxprune.compressors:rerank_truncate", "whole documents by relevance, then cut"),
    "selective-context": (
        "ctxprune.compressors.llmlingua.selective_context:SelectiveContext",
        "words that a language model did not expect; give model=",
    ),
    "lead": ("ctxprune.compressors.sentences:Lead", "the beginning of the context"),
    "random": ("ctxprune.compressors.sentences:RandomSentences", "random sentences"),
    "content-words": ("ctxprune.compressors.llmlingua.compressor:ContentWords", "words that are no stop words first"),
    "random-words": ("ctxprune.compressors.llmlingua.compressor:RandomWords", "random words"),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A compressor that `load` knows. origin: "built-in" or the distribution that registers it."""

    name: str
    description: str
    origin: str


def load(name: str | Path, *, calibration: str | Path | Calibration | None = None, **options: Any) -> Compressor:
    """A compressor by name, or a checkpoint by folder or hub id ("org/name").

    A folder's files tell a pruner from a token classifier (LLMLingua-2) and a sentence encoder (RECOMP); a hub id is
    taken for a pruner's, so name the compressor for others: `load("llmlingua2", model="org/name")`.
    options: the compressor's keyword arguments, such as threshold, operating_point, budget, counter, policy, language,
    units; for "provence" and checkpoints also model, revision, device, dtype. calibration: a file of risk-controlled
    calibration, or what it holds; it gives the threshold or the budget. Nothing is imported before it is asked for.
    Raises UnknownNameError with the known names, CheckpointError when a checkpoint cannot be loaded, InputError for a
    calibration of another compressor, model or policy, or beside a threshold, an operating point or a budget, and for a
    language or a kind of units that is not known or of no use to the compressor.
    """
    if isinstance(name, Path):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise UnknownNameError(f"a compressor is named by a string or a path, got {name!r:.80}; known: {_known()}")
    if not isinstance(policy := options.get("policy"), Policy | None):
        raise InputError(f"policy must be a ctxprune.Policy, got {type(policy).__name__}: {policy!r:.80}")
    if isinstance(options.get("model"), Path):
        options["model"] = str(options["model"])
    options = {name: value for name, value in options.items() if value is not None or name not in _WHY_NOT}
    try:
        return _loaded(name, options) if calibration is None else _calibrated(name, calibration, options)
    except ModuleNotFoundError as error:
        if isinstance(error, CtxpruneError) or error.name is None or error.name.startswith("ctxprune"):
            raise
        raise MissingPackageError(f"loading {name!r} with these options", error.name) from error
    except TypeError as error:
        refused = next((option for option in options if f"unexpected keyword argument '{option}'" in str(error)), None)
        if refused is None:
            raise
        if refused in _WHY_NOT:
            raise InputError(f"the compressor {name!r} {_WHY_NOT[refused]}; leave it out") from None
        if refused == "cache":
            raise UnknownOptionError(
                f"the compressor {name!r} has no 'cache' to keep scores in; leave it out"
            ) from None
        raise UnknownOptionError(_unknown_option(name, refused)) from None


def _unknown_option(name: str, option: str) -> str:
    """The message for an option that the compressor does not take; it suggests one that is spelt alike."""
    from difflib import get_close_matches

    near = get_close_matches(option, sorted(_options_of(name) - {option}), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "leave it out"
    return f"the compressor {name!r} takes no option '{option}'; {hint}"


def _options_of(name: str) -> set[str]:
    """The options of a built-in compressor and its base classes; for others, those that all compressors take."""
    from inspect import signature
    from typing import get_type_hints

    from ctxprune.compressors.base import Choice

    names = {*Choice.__annotations__, "model", "calibration", "revision", "device", "dtype"}
    if name not in BUILT_IN:
        return names
    factory = _resolve(BUILT_IN[name][0])
    built = factory if isinstance(factory, type) else get_type_hints(factory)["return"]
    for function in (factory, *(vars(each)["__init__"] for each in built.__mro__ if "__init__" in vars(each))):
        names |= {each.name for each in signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY}
    return names


#: Options of how text is split, and why some compressors have no use for them.
_WHY_NOT = {
    "language": "splits no text and takes no language",
    "units": "chooses no sentences, rows or lines and takes no units",
}


def _loaded(name: str, options: dict[str, Any]) -> Compressor:
    if name in BUILT_IN:
        return _resolve(BUILT_IN[name][0])(**options)
    if plug_in := _plug_ins().get(name):
        compressor: Compressor = plug_in.load()(**options)
        return compressor
    if "/" in name or Path(name).exists():
        return _resolve(BUILT_IN[_family(Path(name))][0])(model=name, **options)
    raise UnknownNameError(f"no compressor named {name!r}; known: {_known()}; or give a checkpoint's folder or hub id")


def _known() -> str:
    return ", ".join(listing.name for listing in available())


def _family(folder: Path) -> str:
    """The built-in compressor for the model in a folder; a hub id is taken for a pruner, unseen as it is."""
    if (folder / "tokenclass.json").is_file():
        return "llmlingua2"
    if any((folder / name).is_file() for name in ("recomp.json", "modules.json")):  # the latter: sentence-transformers
        return "recomp-extractive"
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError, AttributeError):  # no folder, or none of ours to judge: the loader says what is wrong
        return "provence"
    return "llmlingua2" if any("ForTokenClassification" in str(each) for each in architectures) else "provence"


def _calibrated(name: str, source: str | Path | Calibration, options: dict[str, Any]) -> Compressor:
    from ctxprune.calibration import Calibration
    from ctxprune.compressors.base import ScoringCompressor

    for option in ("threshold", "operating_point", "budget"):
        if options.get(option) is not None:
            raise InputError(f"{option}={options[option]} beside a calibration would void its guarantee; give only one")
    if not isinstance(source, str | Path | Calibration) or not str(source):
        raise InputError(
            f"calibration must be a file of `ctxprune eval calibrate` or what it holds, got {source!r:.80}"
        )
    calibration = source if isinstance(source, Calibration) else Calibration.read(source)
    made_for = calibration.model.get("name")
    if name == "provence" and made_for in (BUNDLED, MULTILINGUAL) and "other_languages" not in calibration.model:
        options = {**options, "model": options.get("model") or made_for}  # its threshold is of this model's scores
    compressor = _loaded(name, options)
    calibration.check(compressor)
    if not isinstance(compressor, ScoringCompressor):
        raise InputError(f"{compressor.name} does not score text, so it takes no calibration; leave it out")
    compressor.threshold, compressor.budget = calibration.threshold, calibration.budget
    return compressor


def available() -> list[Listing]:
    """Every compressor that `load` knows by name, built-in ones first."""
    built_in = [Listing(name, text, "built-in") for name, (_, text) in BUILT_IN.items()]
    return built_in + [
        Listing(name, point.value, point.dist.name if point.dist else "?") for name, point in _plug_ins().items()
    ]


def _plug_ins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 40 ms that the built-in names do not need

    return {point.name: point for point in entry_points(group=GROUP)}


def _resolve(place: str) -> Callable[..., Compressor]:
    module, _, attribute = place.partition(":")
    factory: Callable[..., Compressor] = getattr(import_module(module), attribute)
    return factory


def provence(
    *,
    model: str | None = None,
    other_languages: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache: DocumentCache | str | Path | None = None,
    **options: Any,
) -> Provence:
    """model: a bundled one by name, an exported folder, or a checkpoint's folder or hub id. other_languages: a second
    one, for contexts that are not in English; without either, the bundled ones share the work. cache: where the
    readings of exported models, of both in one, stay, for the same question and text: "memory", a file's path or a
    `DocumentCache`."""
    if model is None and other_languages is None:
        other_languages = OTHER_LANGUAGES
    kept = open_cache(cache)
    first = load_model(model or BUNDLED, revision=revision, device=device, dtype=dtype).remembering(kept)
    made = Provence(first, other_languages=other_languages, **options)
    if kept is not None:
        made.open_other = Remembering(kept)
    return made


def dslr(*, model: str = BUNDLED, cache: DocumentCache | str | Path | None = None, **options: Any) -> DSLR:
    """model: the rank head of the bundled pruner, or any cross-encoder's folder or hub id. cache: see `provence`."""
    if model == BUNDLED:
        return DSLR(load_model(BUNDLED).remembering(cache), **options)
    if cache is not None:
        raise InputError(f"the scores of {model} are not kept; leave cache out")
    return DSLR.from_pretrained(model, **options)


def rerank_truncate(
    *, scorer: str | None = None, cache: DocumentCache | str | Path | None = None, **options: Any
) -> RerankTruncate:
    """scorer: "retriever" for the documents' own scores, or the pruner (see `provence`) whose relevance to use. cache:
    see `provence`."""
    if scorer == "retriever":
        if cache is not None:
            raise InputError("the retriever's scores come with the documents and are not kept; leave cache out")
        return RerankTruncate("retriever", **options)
    return RerankTruncate(provence(model=scorer, cache=cache), **options)
