"""Operating points: thresholds by name, each calibrated for a share of answers kept, and by the size of the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias, cast, get_args

from ctxprune.errors import InputError

PointName: TypeAlias = Literal["safe", "balanced", "aggressive"]
POINTS: Final[tuple[PointName, ...]] = get_args(PointName)
DEFAULT_POINT: Final = "balanced"

#: (the largest number of units it holds for, its threshold); None in the last step: any number.
Step: TypeAlias = tuple[int | None, float]


# Beside a sentence that surely answers, the balanced point asks more of the one or two others of a tiny context. On 500
# three-sentence contexts of held-out training questions the answers kept stay .980 and what is removed rises from .416
# to .432; the same on 700 of other sets. A threshold that removes as much whatever the best scores costs answers.
_TINY = 3  # units
_SURE = 0.65
_BESIDE_SURE = 0.15


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Thresholds by name, for a context by its number of units (sentences).

    steps: for each name, steps in rising order of their sizes, the last without one.
    Raises InputError for a name, a size or a threshold that cannot be.
    """

    steps: Mapping[PointName, tuple[Step, ...]]

    def __post_init__(self) -> None:
        if set(self.steps) != set(POINTS):
            raise InputError(f"operating points must be {_listed()}, got {', '.join(map(repr, self.steps)) or 'none'}")
        for name, steps in self.steps.items():
            _check_steps(name, steps)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """A model's own, as its JSON has them: a threshold a name, or a list of [units or null, threshold].

        Raises InputError for anything else.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"operating points must be thresholds by name, got {type(values).__name__}")
        return cls({cast(PointName, name): _steps(name, value) for name, value in values.items()})

    @classmethod
    def around(cls, threshold: float) -> Self:
        """For a model that nobody calibrated: `threshold` balanced, half of it safe, three times it aggressive.

        Three times, but never nearer to 1 than halfway, so that a high threshold still leaves something to keep.
        """
        bold = min(3 * threshold, (1 + threshold) / 2)
        return cls({"safe": ((None, threshold / 2),), "balanced": ((None, threshold),), "aggressive": ((None, bold),)})

    def to_dict(self) -> dict[str, float | list[list[float | None]]]:
        """As `from_dict` reads them."""
        return {
            name: steps[0][1] if len(steps) == 1 else [[size, threshold] for size, threshold in steps]
            for name, steps in self.steps.items()
        }

    def threshold(self, name: str, units: int, *, best: float = 0.0) -> float:
        """The threshold of a context of so many units. Raises InputError for an unknown name.

        best: the highest score in the context. Points calibrated by size ask more of a tiny context whose best is sure.
        """
        size, threshold = next(step for step in self.steps[point_name(name)] if step[0] is None or units <= step[0])
        if size is not None and name == DEFAULT_POINT and units <= _TINY and best >= _SURE:
            return max(threshold, _BESIDE_SURE)
        return threshold


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
