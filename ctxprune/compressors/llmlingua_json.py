"""JSON objects whose texts a word compressor shortens: which values it may touch, as llmlingua's `json_config` says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError

_FIELDS = frozenset({"rate", "compress", "value_type", "pair_remove"})
_TEXT_TYPES = frozenset({"str", "string", "list", "List", "tuple", "dict", "dictionary"})
_WHOLE_TYPES = frozenset({"int", "integer", "float", "number", "bool", "boolean"})


@dataclass(frozen=True, slots=True)
class PairRule:
    """What may happen to a key's value. rate: None for the rate of the call; removable: the pair may go as a whole."""

    rate: float | None = None
    compress: bool = True
    removable: bool = False


def pair_rules(values: Mapping[str, Any], config: str | Path | Mapping[str, Any]) -> dict[str, PairRule]:
    """One rule a key, from a mapping or a YAML or JSON file of one.

    Raises InputError for a file that cannot be read, for keys that only one of the two has, and for a field or value
    that llmlingua has not.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise InputError(f"json_data must be an object with strings as keys, got {type(values).__name__}")
    fields = config if isinstance(config, Mapping) else _read(Path(config))
    if unmatched := sorted(set(map(str, fields)) ^ set(values)):
        raise InputError(f"json_data and json_config must have the same keys; only one has {', '.join(unmatched)}")
    return {key: _rule(key, fields[key]) for key in values}


def texts_of(value: Any) -> Iterator[str]:
    """The strings of a value, at any depth, in order; keys are structure and stay."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_of(each)


def with_texts(value: Any, shorten: Callable[[str], str]) -> Any:
    """A fresh value with every string of it shortened; numbers, true, false and null are as they were."""
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, Mapping):
        return {key: with_texts(each, shorten) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(each, shorten) for each in value]
    return value


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read json_config from {path}: {error}") from None
    if not isinstance(fields, Mapping):
        raise InputError(f"{path} must hold a mapping from each key to its rate, compress, value_type and pair_remove")
    return fields


def _rule(key: str, fields: Any) -> PairRule:
    if not isinstance(fields, Mapping) or (unknown := sorted(set(fields) - _FIELDS)):
        wrong = ", ".join(unknown) if isinstance(fields, Mapping) else repr(fields)
        raise InputError(f"json_config[{key!r}] has {wrong}; it takes {', '.join(sorted(_FIELDS))}")
    kind, rate = fields.get("value_type", "str"), fields.get("rate")
    if kind not in _TEXT_TYPES | _WHOLE_TYPES:
        types = ", ".join(sorted(_TEXT_TYPES | _WHOLE_TYPES))
        raise InputError(f"json_config[{key!r}] has value_type {kind!r}; it takes {types}")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1):
        raise InputError(f"json_config[{key!r}] has rate {rate!r}; it must be in [0, 1]")
    compress = bool(fields.get("compress", True)) and kind in _TEXT_TYPES
    return PairRule(None if rate is None else float(rate), compress, bool(fields.get("pair_remove", False)))
