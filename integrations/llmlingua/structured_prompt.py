"""Prompts in segments: `<llmlingua, rate=0.5, compress=False>text</llmlingua>`, as llmlingua spells them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError

_TAG = re.compile(r"<llmlingua\b([^<>]*)>|</llmlingua>")
_OPTION = re.compile(r"\s*,\s*(rate|compress)\s*=\s*([^,\s]+)\s*")


@dataclass(frozen=True, slots=True)
class Segment:
    """start, end: characters of the prompt without its tags. rate: None for the rate of the call."""

    start: int
    end: int
    rate: float | None = None
    compress: bool = True


def segments(prompt: str) -> tuple[str, list[Segment]]:
    """The prompt without tags, and its segments, which cover all of it; text outside of tags is a segment too.

    A "<" that opens no tag is text. Raises InputError for a tag without its partner, a tag within another, and an
    option that is neither `rate` in [0, 1] nor `compress` True or False.
    """
    parts: list[str] = []
    found: list[Segment] = []
    position = 0
    for text, options in _stretches(prompt):
        if text:
            rate, compress = _options(options)
            parts.append(text)
            found.append(Segment(position, position + len(text), rate, compress))
            position += len(text)
    return "".join(parts), found


def _stretches(prompt: str) -> Iterator[tuple[str, str]]:
    """(text, options of the tag around it) in order."""
    opened: re.Match[str] | None = None
    end = 0
    for tag in _TAG.finditer(prompt):
        closes = tag[1] is None
        if closes == (opened is None):
            kind = "</llmlingua> closes nothing" if closes else "a <llmlingua> tag stands within another"
            raise InputError(f"{kind} at character {tag.start()}; give every <llmlingua> its </llmlingua>")
        yield prompt[end : tag.start()], opened[1] if opened else ""
        opened, end = (None if closes else tag), tag.end()
    if opened is not None:
        raise InputError(
            f"<llmlingua> at character {opened.start()} is never closed; give every <llmlingua> its </llmlingua>"
        )
    yield prompt[end:], ""


def _options(text: str) -> tuple[float | None, bool]:
    rate, compress, end = None, True, 0
    while end < len(text.rstrip()):
        option = _OPTION.match(text, end)
        if option is None:
            raise InputError(f"cannot read {text!r} in a <llmlingua> tag; write e.g. <llmlingua, rate=0.5>")
        end, value = option.end(), option[2]
        if option[1] == "compress":
            if value not in ("True", "False"):
                raise InputError(f"compress must be True or False in a <llmlingua> tag, got {value!r}")
            compress = value == "True"
        else:
            rate = _rate(value)
    return rate, compress


def _rate(value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise InputError(f"rate must be in [0, 1] in a <llmlingua> tag, got {value!r}")
    return rate


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


#: Words that may have been removed between two that stayed, at most, for them to belong together.
GAP = 9
_WORD = re.compile(r"\S+")
_EDGES = ".,;:!?\"'()[]{}"


def recovered(original: str, compressed: str, response: str) -> str:
    """The response with each run of words that it quotes from `compressed` as it stands in `original`.

    A run of one word, and one that the original has nowhere in that order, stays as it is, as do all words of the
    response's own and the white space around runs.
    """
    words = list(_WORD.finditer(response))
    known = f" {' '.join(compressed.split())} "
    originals = list(_WORD.finditer(original))
    places: dict[str, list[int]] = defaultdict(list)
    for place, match in enumerate(originals):
        places[_bare(match.group())].append(place)
    parts, end, at = [], 0, 0
    while at < len(words):
        run = _run(words, at, known)
        if run > 1:
            first, last = words[at], words[at + run - 1]
            parts += [response[end : first.start()], _restored(original, originals, places, words[at : at + run])]
            end = last.end()
        at += max(run, 1)
    return "".join([*parts, response[end:]])


def _run(words: list[re.Match[str]], at: int, known: str) -> int:
    """How many words from `at` stand in the compressed text one after the other."""
    length, text = 0, ""
    while at + length < len(words):
        text += " " + words[at + length].group()
        # the last word of an answer brings a full stop of its own
        if f"{text} " not in known and f"{text.rstrip(_EDGES)} " not in known:
            break
        length += 1
    return length


def _restored(
    original: str, originals: list[re.Match[str]], places: dict[str, list[int]], run: list[re.Match[str]]
) -> str:
    """The shortest stretch of the original with all words of the run in their order; the run where there is none."""
    best: tuple[int, int] | None = None
    wanted = [_bare(word.group()) for word in run]
    for first in places.get(wanted[0], []):
        last = first
        for word in wanted[1:]:
            later = places.get(word, [])
            at = bisect_right(later, last)
            if at == len(later) or later[at] - last > GAP + 1:
                break
            last = later[at]
        else:
            if best is None or last - first < best[1] - best[0]:
                best = (first, last)
    if best is None:
        return run[0].string[run[0].start() : run[-1].end()]
    text = original[originals[best[0]].start() : originals[best[1]].end()]
    ending = run[-1].group()[len(run[-1].group().rstrip(_EDGES)) :]
    return text.rstrip(_EDGES) + ending


def _bare(word: str) -> str:
    return word.strip(_EDGES) or word
