"""Every error that ctxprune raises on purpose.

CtxpruneError
├── InputError            a value that the caller passed is unusable (also a ValueError)
├── BudgetError           a budget cannot be met, or was needed and not given (also a ValueError)
├── CheckpointError       a checkpoint is missing, damaged or of an unknown layout
├── MissingExtraError     an optional dependency is not installed (also an ImportError)
├── UnknownOptionError    a compressor does not take an option of that name (also a ValueError and a TypeError)
├── MissingPackageError   the light distribution lacks a package that the full one brings (also an ImportError)
├── UnknownNameError      no compressor, tokenizer or model of that name (also a LookupError)
├── GeneratorError        a generator or its endpoint failed
└── NotOfferedError       another library's interface has it, ours leaves it out (also an AttributeError)
"""

from __future__ import annotations

from collections.abc import Iterable


class CtxpruneError(Exception):
    """The root: `except CtxpruneError` catches every deliberate error of this library."""


class InputError(CtxpruneError, ValueError):
    """A value that the caller passed is unusable; the message names the value, the limit and the next step."""


class UnknownOptionError(InputError, TypeError):
    """A compressor does not take an option of that name; the message offers the name that is spelt alike."""


class BudgetError(CtxpruneError, ValueError):
    """A budget cannot be met, or one was needed and not given."""


class CheckpointError(CtxpruneError):
    """A checkpoint is missing, damaged or of an unknown layout."""


class MissingExtraError(CtxpruneError, ImportError):
    """An optional dependency is not installed; the message carries the pip command."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'ctxprune-rag[{extra}]'")
        self._parts = (feature, extra)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """By its two parts, for a worker process whose error cannot be read leaves its pool broken."""
        return type(self), self._parts


class MissingPackageError(CtxpruneError, ImportError):
    """The light distribution lacks a package that the full one brings."""

    def __init__(self, feature: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which ctxprune-rag-light leaves out: pip uninstall "
            "ctxprune-rag-light, then pip install ctxprune-rag"
        )
        self._parts = (feature, package)

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        return type(self), self._parts


class UnknownNameError(CtxpruneError, LookupError):
    """No compressor, tokenizer or model of that name."""


class GeneratorError(CtxpruneError):
    """A generator or its endpoint failed."""


class NotOfferedError(CtxpruneError, AttributeError):
    """Another library's interface has it and ours leaves it out; the message says what to use instead."""


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raises InputError for a value that is none of the choices."""
    allowed = tuple(choices)
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r:.80}")
