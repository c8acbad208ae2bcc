"""A setting whose loss is bounded: the small file that calibration writes and that `load(..., calibration=)` obeys."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, cast, get_args

from ctxprune.errors import InputError, check_choice
from ctxprune.files import write_whole
from ctxprune.select import Policy
from ctxprune.tokens import default_counter
from ctxprune.types import Compressor, about_of

FORMAT = 1

Loss = Literal["answer", "sentences"]
Method = Literal["conformal risk control", "upper confidence bound", "learn then test"]

_AGAIN = "calibrate again with the compressor as it will run"
#: What changes the kept text at a threshold; at a budget every rule of the policy does.
_THRESHOLD_RULES = ("min_keep", "top_n", "top_p", "gap", "empty_below", "companions", "repeats", "on_empty", "protect")
#: What files hold that were written before there were these rules.
_OLD_RULES: Mapping[str, Any] = {
    "top_n": None,
    "top_p": None,
    "gap": None,
    "floor": None,
    "empty_below": None,
    "companions": False,
    "repeats": True,
    "elision": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One threshold or one budget, what it was chosen for, and what is promised of it.

    compressor, model, policy, tokenizer: what it was measured with (see `identity`); tokenizer (the counter's name) is
    None for a threshold. threshold or budget: exactly one, the other None. loss: "answer" (the answer is no longer in
    the kept text) or "sentences" (share of relevant sentences lost), both in [0, 1]. risk: the bound on the mean loss.
    delta: the chance that the bound fails; None where it holds in expectation. n: questions used. empirical_risk: their
    mean loss; bound: that with the method's finite-sample correction, at most `risk`. removed: mean share of the words
    that went. data_hash: of the questions. created_with: the version of this package.
    Raises InputError for a value outside these.
    """

    compressor: str
    model: Mapping[str, str]
    threshold: float | None = None
    budget: int | None = None
    tokenizer: str | None = None
    loss: Loss
    risk: float
    delta: float | None
    method: Method
    n: int
    empirical_risk: float
    bound: float
    removed: float
    data_hash: str
    policy: Policy
    created_with: str

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            _check_kind(name, getattr(self, name), kind)
        if any(not isinstance(value, str) for value in self.model.values()):
            raise InputError(f"model must map names to strings, got {dict(self.model)!r:.200}")
        if (self.threshold is None) == (self.budget is None):
            raise InputError(f"exactly one of threshold={self.threshold} and budget={self.budget} must be given")
        if (self.tokenizer is None) != (self.budget is None):
            raise InputError(f"a budget needs its tokenizer and a threshold has none, got tokenizer={self.tokenizer!r}")
        for name, allowed in (("loss", _LOSSES), ("method", _METHODS)):
            check_choice(name, getattr(self, name), allowed)
        for name in ("threshold", "empirical_risk", "bound"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise InputError(f"{name} must be in [0, 1], got {value}")
        for name in ("risk", "delta"):
            if (value := getattr(self, name)) is not None and not 0 < value < 1:
                raise InputError(f"{name} must lie in (0, 1), got {value}")
        if self.n < 1 or (self.budget is not None and self.budget < 1):
            raise InputError(f"n and budget must be positive, got n={self.n} and budget={self.budget}")

    @property
    def setting(self) -> dict[str, float | int]:
        """The keyword argument that `load` and `compress` take: {"threshold": 0.03} or {"budget": 200}."""
        return {"budget": self.budget} if self.budget is not None else {"threshold": self.threshold or 0.0}

    @property
    def guarantee(self) -> str:
        """The promise and what it rests on, in words."""
        lost = {"answer": "share of questions whose answer is lost", "sentences": "share of relevant sentences lost"}
        promise = f"the expected {lost[self.loss]} is at most {self.risk:g}"
        if self.delta is None:
            promise += ", averaged over draws of the calibration questions"
        else:
            promise += f", with probability at least {1 - self.delta:g} over draws of the calibration questions"
        return (
            f"{promise} ({self.method}, n = {self.n}). It holds for questions exchangeable with these: the same "
            "retriever and corpus, the same kind of questions, whose retrieved documents hold "
            f"{'the answer' if self.loss == 'answer' else 'relevant sentences'} to begin with."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the file has them; of threshold and budget only the one that is set."""
        row = {"format": FORMAT, **{item.name: getattr(self, item.name) for item in fields(self)}}
        row |= {"model": dict(self.model), "policy": _plain(self.policy)}
        return {name: value for name, value in row.items() if value is not None or name == "delta"}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises InputError for another format, and for missing, unknown or bad fields."""
        if row.get("format") != FORMAT:
            raise InputError(f"format {row.get('format')!r} is unknown; this version reads format {FORMAT}")
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in row.items() if name != "format"}
        if missing := sorted(known - values.keys() - {"threshold", "budget", "tokenizer"}):
            raise InputError(f"missing fields: {', '.join(missing)}")
        if unknown := sorted(values.keys() - known):
            raise InputError(f"unknown fields: {', '.join(unknown)}")
        return cls(**values | {"policy": _policy(values["policy"])})

    def write(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        path = Path(path)
        content = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        write_whole(path, content, unfinished=path.with_name(f".{path.name}.{os.getpid()}.part"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file that `write` wrote; InputError names the file and what is wrong with it."""
        try:
            row = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(row, dict):
                raise InputError(f"expected a JSON object, got {type(row).__name__}")
            return cls.from_dict(row)
        except OSError as error:
            raise InputError(f"cannot read the calibration {path}: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:  # InputError is a ValueError too
            raise InputError(f"{path} is no calibration file: {error}") from None

    def check(self, compressor: Compressor) -> None:
        """Raise InputError unless it was made for this compressor: its name, model, rounding, policy and tokenizer."""
        about = about_of(compressor)
        self._same("the compressor", self.compressor, compressor.name)
        self._same("the model", dict(self.model), identity(compressor))
        if self.threshold is not None and about.ranks_only:
            raise InputError(
                f"{self.compressor} scores are not probabilities and take no threshold; {_AGAIN} by budget"
            )
        policy = about.policy or Policy()
        rules = _THRESHOLD_RULES if self.budget is None else tuple(item.name for item in fields(Policy))
        for rule in rules:
            self._same(f"policy.{rule}", getattr(self.policy, rule), getattr(policy, rule))
        if self.budget is not None:
            self._same("the tokenizer", self.tokenizer, (about.counter or default_counter()).name)

    def _same(self, what: str, theirs: object, ours: object) -> None:
        if theirs != ours:
            raise InputError(
                f"the calibration was made for another setup: {what} was {theirs!r} and is {ours!r}; {_AGAIN}"
            )


def identity(compressor: object) -> dict[str, str]:
    """What is known of the models behind a compressor: name, rounding, and the hash of an exported model's weights.

    And the language that its documents are said to be in, and its kind of units, which decide what it chooses among.

    Empty for a compressor without a model. A checkpoint on torch is known by its name alone.
    """
    known: dict[str, str] = {}
    about = about_of(compressor)
    if about.rounding:
        known["rounding"] = str(about.rounding)
    if about.language:
        known["language"] = str(about.language)
    if about.units != "auto":
        known["units"] = str(about.units)
    if about.other_languages:
        known["other_languages"] = str(about.other_languages)
    known |= about.reads
    for role, part in about.parts.items():
        named = identity(part) or _part(part)
        known |= named if role == "model" else {f"{role}.{field}": value for field, value in named.items()}
    return known


def _part(part: object) -> dict[str, str]:
    name = str(getattr(part, "name", "") or type(part).__name__)
    known = {"name": Path(name).name if Path(name).exists() else name}
    weights = getattr(getattr(part, "runtime", None), "path", None)
    if isinstance(weights, Path) and weights.is_file():
        digest = sha256(weights.read_bytes())
        if (fusion := getattr(part, "fusion", None)) is not None:  # fitted apart from the weights
            digest.update(json.dumps(fusion.to_dict(), sort_keys=True).encode())
        known["hash"] = digest.hexdigest()[:16]
    return known


_LOSSES: tuple[str, ...] = ("answer", "sentences")
_METHODS: tuple[str, ...] = ("conformal risk control", "upper confidence bound", "learn then test")
_KINDS: dict[str, tuple[type, ...]] = {
    "compressor": (str,),
    "model": (Mapping,),
    "threshold": (float, int, type(None)),
    "budget": (int, type(None)),
    "tokenizer": (str, type(None)),
    "risk": (float, int),
    "delta": (float, int, type(None)),
    "n": (int,),
    "empirical_risk": (float, int),
    "bound": (float, int),
    "removed": (float, int),
    "data_hash": (str,),
    "policy": (Policy,),
    "created_with": (str,),
}


def _check_kind(name: str, value: object, kinds: tuple[type, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise InputError(f"{name} must be {wanted}, got {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")


def _plain(policy: Policy) -> dict[str, Any]:
    gap = None if policy.gap is None else list(policy.gap)
    return {**asdict(policy), "protect": list(policy.protect), "gap": gap}


def _policy(row: object) -> Policy:
    known = {item.name for item in fields(Policy)}
    row = {**_OLD_RULES, **row} if isinstance(row, dict) else row
    if not isinstance(row, dict) or row.keys() != known or not isinstance(row["protect"], list):
        raise InputError(f"policy must be an object with the fields {', '.join(sorted(known))}, got {row!r:.200}")
    gap = tuple(row["gap"]) if isinstance(row["gap"], list) else row["gap"]
    return Policy(**{**row, "protect": tuple(row["protect"]), "gap": gap})


PointName: TypeAlias = Literal["safe", "balanced", "aggressive"]
POINTS: Final[tuple[PointName, ...]] = get_args(PointName)
DEFAULT_POINT: Final = "balanced"
#: Shares of answers that the points are calibrated to keep.
ANSWERS_KEPT: Final[Mapping[PointName, float]] = {"safe": 0.99, "balanced": 0.97, "aggressive": 0.93}
#: Contexts of so many units are small: little is won by removing from them, so they may lose half as many answers.
SMALL = 12


def allowed_loss(name: PointName, units: int | None) -> float:
    """The share of answers that a point may cost contexts of at most so many units; None: of any number."""
    lost = 1 - ANSWERS_KEPT[name]
    return lost / 2 if units is not None and units <= SMALL else lost


#: (the largest number of units it holds for, its threshold); None in the last step: any number.
Step: TypeAlias = tuple[int | None, float]


#: A score from which a sentence likely answers.
LIKELY = 0.5
#: What a model asks beside such a sentence whose points do not say it: 0.3 of its score, in up to three sentences.
_BESIDE: tuple[tuple[int, float], ...] = ((3, 0.3),)


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Thresholds by name, for a context by its number of units (sentences).

    steps: for each name, steps in rising order of their sizes, the last without one. beside: (units at most, share): in
    so small a context all points but the safe one ask this share of the best score of every other unit, where the best
    likely answers. What a person sees at once to be beside the point scores up to .2 there, and a higher threshold that
    removes as much keeps fewer answers. It does not hold for the last step, nor for points without sizes.
    Raises InputError for a name, a size or a threshold that cannot be.
    """

    steps: Mapping[PointName, tuple[Step, ...]]
    beside: tuple[tuple[int, float], ...] = _BESIDE

    def __post_init__(self) -> None:
        if set(self.steps) != set(POINTS):
            raise InputError(f"operating points must be {_listed()}, got {', '.join(map(repr, self.steps)) or 'none'}")
        for name, steps in self.steps.items():
            _check_steps(name, steps)
        if self.beside:
            _check_steps("beside", (*self.beside, (None, 0.0)))

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """A model's own, as its JSON has them: a threshold a name, or a list of [units or null, threshold]; "beside",
        where it is there, is a list of [units, share].

        Raises InputError for anything else.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"operating points must be thresholds by name, got {type(values).__name__}")
        steps = {name: _steps(name, value) for name, value in values.items()}
        beside = cast("tuple[tuple[int, float], ...]", steps.pop("beside", _BESIDE))
        return cls({cast(PointName, name): each for name, each in steps.items()}, beside)

    @classmethod
    def around(cls, threshold: float) -> Self:
        """For a model that nobody calibrated: `threshold` balanced, half of it safe, three times it aggressive.

        Three times, but never nearer to 1 than halfway, so that a high threshold still leaves something to keep.
        """
        bold = min(3 * threshold, (1 + threshold) / 2)
        return cls({"safe": ((None, threshold / 2),), "balanced": ((None, threshold),), "aggressive": ((None, bold),)})

    def to_dict(self) -> dict[str, float | list[list[float | None]]]:
        """As `from_dict` reads them."""
        points: dict[str, float | list[list[float | None]]] = {
            name: steps[0][1] if len(steps) == 1 else [[size, threshold] for size, threshold in steps]
            for name, steps in self.steps.items()
        }
        return points if self.beside == _BESIDE else points | {"beside": [[size, share] for size, share in self.beside]}

    def threshold(self, name: str, units: int, *, best: float = 0.0) -> float:
        """The threshold of a context of so many units. Raises InputError for an unknown name.

        best: the highest score in the context, see `beside`.
        """
        size, threshold = next(step for step in self.steps[point_name(name)] if step[0] is None or units <= step[0])
        if size is None or name == "safe" or best < LIKELY:
            return threshold
        share = next((share for most, share in self.beside if units <= most), 0.0)
        return max(threshold, share * best)


def point_name(name: str) -> PointName:
    """The name as it is. Raises InputError for an empty or unknown one, listing those there are."""
    for point in POINTS:
        if name == point:
            return point
    raise InputError(f"operating_point must be {_listed()}, got {name!r:.80}")


def check_point(name: str | None, threshold: float | None) -> None:
    """Raise InputError for an unknown name, and for a threshold beside it: only one can hold."""
    if name is None:
        return
    point_name(name)
    if threshold is not None:
        raise InputError(f"operating_point={name!r} and threshold={threshold} both set the threshold; give only one")


def _listed() -> str:
    return f"{', '.join(POINTS[:-1])} or {POINTS[-1]}"


def _steps(name: object, value: object) -> tuple[Step, ...]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ((None, float(value)),)
    if not isinstance(value, list) or not all(isinstance(step, list) and len(step) == 2 for step in value):
        raise InputError(f"operating point {name!r} must be a threshold or [units or null, threshold] steps: {value!r}")
    return tuple((size, threshold) for size, threshold in value)


def _check_steps(name: object, steps: tuple[Step, ...]) -> None:
    sizes = [size for size, _ in steps]
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes[:-1])
    if not sizes or sizes[-1] is not None or not whole or sizes[:-1] != sorted(set(sizes[:-1]), key=_size):
        raise InputError(f"sizes of operating point {name!r} must rise and end with null, got {sizes!r:.200}")
    for _, threshold in steps:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise InputError(f"a threshold of operating point {name!r} must be in [0, 1], got {threshold!r:.80}")


def _size(size: int | None) -> int:
    assert size is not None
    return size
