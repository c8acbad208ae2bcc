"""The options of a compression, each once: what every door offers, with its name, type, default and flag."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from typer import Option

from ctxprune.calibration import check_point
from ctxprune.compressors import load
from ctxprune.errors import BudgetError, InputError
from ctxprune.pipeline import Pipeline
from ctxprune.select import OnEmpty, Order, Policy
from ctxprune.text import UnitKind
from ctxprune.tokens import load_counter
from ctxprune.types import About, Compressor, TokenCounter, about_of

#: Options that `load` passes on where they are given, as not every compressor takes them.
OWN = ("model", "rate", "operating_point", "calibration", "language", "units")
#: Those of `Policy`.
_RULES = (
    "keep_title",
    "min_keep",
    "floor",
    "empty_below",
    "top_p",
    "gap",
    "companions",
    "repeats",
    "on_empty",
    "order",
    "protect",
    "elision",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to compress; with none of threshold, operating_point, rate, budget, top_p and gap the compressor's own
    default holds.

    compressor, model: as `ctxprune.load` takes them. threshold: keep what scores at least this, 0 to 1.
    operating_point: "safe", "balanced" or "aggressive", in its place. budget: tokens of the whole context. rate: share
    of the tokens to keep, 0 to 1. calibration: a file that gives the threshold or the budget. tokenizer: what counts
    tokens, see `ctxprune.load_counter`. language: of the documents; None: guessed. units: what to choose among; None:
    by the shape of the text. The others are the fields of `ctxprune.Policy`.
    """

    compressor: Annotated[
        str, Option("--compressor", "-c", help="A name of `ctxprune models`, a folder or a hub id.")
    ] = "provence"
    model: Annotated[str | None, Option(help="Model of the compressor: a folder or a hub id.")] = None
    threshold: Annotated[
        float | None, Option(help="Keep what scores at least this, 0 to 1 (default: the model's).")
    ] = None
    operating_point: Annotated[
        str | None,
        Option(metavar="NAME", help="safe, balanced or aggressive, in place of --threshold (default: balanced)."),
    ] = None
    budget: Annotated[
        int | None, Option(metavar="TOKENS", help="Keep at most so many tokens of the whole context.")
    ] = None
    rate: Annotated[float | None, Option(metavar="SHARE", help="Of a word compressor: keep this share, 0 to 1.")] = None
    calibration: Annotated[
        str | Path | None,
        Option(metavar="FILE", help="A calibrated threshold or budget, in place of --threshold and --budget."),
    ] = None
    tokenizer: Annotated[
        str,
        Option(metavar="SPEC", help="What counts tokens: default, words, tiktoken:NAME, a tokenizer.json, a hub id."),
    ] = "default"
    protect: Annotated[
        tuple[str, ...], Option(metavar="REGEX", help="Keep every sentence that this matches; may be repeated.")
    ] = ()
    keep_title: Annotated[bool, Option("--keep-title/--no-title", help="Give the titles of kept documents too.")] = True
    min_keep: Annotated[int, Option(help="Keep at least so many sentences.")] = 0
    floor: Annotated[
        float | None, Option(help="What scores less does not fill up a budget; 0: all may (default: the model's).")
    ] = None
    empty_below: Annotated[
        float | None,
        Option(metavar="SCORE", help="Keep nothing where the best sentence scores less: no answer is there."),
    ] = None
    top_p: Annotated[
        float | None,
        Option("--top-p", metavar="SHARE", help="Keep the fewest sentences with this share of all scores."),
    ] = None
    gap: Annotated[
        tuple[int, int] | None,
        Option(metavar="LEAST,MOST", help="Keep so many sentences, down to the largest drop of the scores."),
    ] = None
    companions: Annotated[
        bool | None,
        Option(
            "--companions/--no-companions",
            help="Keep what a kept sentence cannot be read without: headings, header rows, the sentence before.",
        ),
    ] = None
    repeats: Annotated[
        bool | None,
        Option(
            "--repeats/--no-repeats",
            help="Keep what overlapping documents share in each of them (default: sentences once).",
        ),
    ] = None
    on_empty: Annotated[OnEmpty, Option("--on-empty", help="What to do when nothing passes the threshold.")] = "drop"
    order: Annotated[Order, Option("--order", help="Documents as they came, or the most relevant first.")] = "document"
    language: Annotated[
        str | None, Option(metavar="CODE", help="Of the documents, e.g. de (default: each document's is guessed).")
    ] = None
    units: Annotated[
        UnitKind | None, Option("--units", help="What to choose among (default: by the shape of the text).")
    ] = None
    elision: Annotated[str, Option(metavar="MARK", help='Between kept stretches, e.g. "[...]" (default: nothing).')] = (
        ""
    )

    def policy(self) -> Policy:
        return Policy(**{name: getattr(self, name) for name in _RULES})

    def pipeline(self) -> Pipeline:
        """Raises what `ctxprune.load` raises, and BudgetError where the compressor needs a budget and has none."""
        check_point(self.operating_point, self.threshold)
        counter = load_counter(self.tokenizer)
        compressor = self.loaded(counter)
        self.check(about_of(compressor))
        return Pipeline([compressor], counter=counter)

    def loaded(self, counter: TokenCounter) -> Compressor:
        own: dict[str, Any] = {name: value for name in OWN if (value := getattr(self, name)) is not None}
        return load(
            self.compressor, threshold=self.threshold, budget=self.budget, counter=counter, policy=self.policy(), **own
        )

    def check(self, about: About) -> None:
        """Raise BudgetError where scores only rank and nothing says how much to keep.

        Said before anything is read, in the words of the command line.
        """
        if about.ranks_only and about.budget is None and self.budget is None and self.rate is None:
            raise BudgetError(f"{self.compressor} only ranks text and needs a budget; add --budget TOKENS")


def gap_bounds(text: str | None) -> tuple[int, int] | None:
    """ "LEAST,MOST", as command lines have it, as `Policy.gap` takes it. Raises InputError for anything else."""
    if text is None:
        return None
    try:
        least, most = map(int, text.split(","))
    except ValueError:
        raise InputError(f"gap must be LEAST,MOST, two whole numbers such as 1,5, got {text!r:.80}") from None
    return least, most


#: Options that a command line takes in another form: the type of the flag, and what makes the value of it.
_FLAG_FORMS: dict[str, tuple[object, Callable[[Any], object]]] = {
    "calibration": (str | None, lambda path: path),
    "protect": (list[str] | None, lambda patterns: tuple(patterns or ())),
    "gap": (str | None, gap_bounds),
}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """A typer command that offers a flag for each field of an `Options`, in the place of a parameter of that type.

    The command itself is called with the options made. Raises InputError, when it runs, for a gap that is none.
    """
    signature = inspect.signature(command, eval_str=True)
    (taken,) = (each for each in signature.parameters.values() if _are_options(each.annotation))
    hints = get_type_hints(taken.annotation, include_extras=True)
    flags = [_flag(each, hints[each.name]) for each in fields(taken.annotation)]

    @wraps(command)
    def flagged(**values: Any) -> None:
        chosen = {each.name: _value(each.name, values.pop(each.name)) for each in flags}
        command(**values, **{taken.name: taken.annotation(**chosen)})

    parameters = [each for one in signature.parameters.values() for each in (flags if one is taken else [one])]
    keywords = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters]
    flagged.__annotations__ = {each.name: each.annotation for each in keywords}
    vars(flagged)["__signature__"] = signature.replace(parameters=keywords)
    return flagged


def _are_options(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Options)


def _flag(option: Field[Any], hint: Any) -> Parameter:
    form, _ = _FLAG_FORMS.get(option.name, (hint.__origin__, None))
    default = None if option.default == () else option.default
    return Parameter(
        option.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[form, *hint.__metadata__]
    )


def _value(name: str, given: object) -> object:
    """The value of an option, of what its flag was given."""
    return _FLAG_FORMS[name][1](given) if name in _FLAG_FORMS else given
