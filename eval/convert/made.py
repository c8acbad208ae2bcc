"""What a converter yields, and what all need: fields of the official files checked, long texts cut into windows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ctxprune.data.questions import LabelledDocument, Offsets, Question
from ctxprune.errors import InputError
from ctxprune.eval.metrics import answer_needle, token_string
from ctxprune.eval.run.retrieval import chunk_of
from ctxprune.files import json_object, open_text, read_rows
from ctxprune.retrievers import BM25Retriever

#: Told why a question of the source makes none of ours; the reasons are counted.
LeaveOut = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A question and the further fields of its line, such as `answer_type`, `label_quality`, `unit` and `lang`."""

    question: Question
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the documents of a question are cut.

    whole: the article, contract or meeting as one document. passages: None, or so many, the question's own among the
    nearest of the file. unanswerable: the share of those questions whose own passage is taken out. seed: of that
    choice and of the order.
    """

    whole: bool = False
    passages: int | None = None
    unanswerable: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.passages is not None and self.passages < 2:
            raise InputError(f"passages must be 2 or more, got {self.passages}; leave it out for the question's own")
        if not 0 <= self.unanswerable <= 1:
            raise InputError(f"unanswerable must be a share from 0 to 1, got {self.unanswerable:g}")


def wrong_file(path: Path, expected: str, found: str) -> InputError:
    """The error for a file that is not the one which the converter reads."""
    return InputError(f"{path}: expected {expected}, found {found}; `ctxprune eval data --list` names the files")


def in_words(value: Any) -> str:
    """What a JSON value is, for error messages: its kind, and the first fields of an object."""
    if isinstance(value, dict):
        return f"an object with {', '.join(list(value)[:6])}" if value else "an empty object"
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def rows_with(path: Path, expected: str, **kinds: type | tuple[type, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each line of a JSONL file; InputError unless every line has these fields of these kinds."""
    for number, row in _lines(path, expected):
        yield f"{path}:{number}", checked(row, f"{path}:{number}", expected, **kinds)


def _lines(path: Path, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines; what is not JSONL at its first line is another file, later on it is a damaged one."""
    rows = read_rows(path)
    try:
        first = next(rows, None)
    except InputError as error:
        raise wrong_file(path, expected, f"something else ({error})") from None
    if first is None:
        raise wrong_file(path, expected, "an empty file")
    yield first
    yield from rows


def items_with(path: Path, expected: str, **kinds: type | tuple[type, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each item of a JSON array, one in memory at a time; InputError as in `rows_with`."""
    for number, item in enumerate(_array_items(path, expected)):
        yield f"{path}: item {number}", checked(item, f"{path}: item {number}", expected, **kinds)


def object_with(path: Path, expected: str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The object that a whole JSON file is; InputError as in `rows_with`."""
    try:
        with open_text(path) as file:
            text = file.read()
        return checked(json_object(text), str(path), expected, **kinds)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except InputError as error:
        raise error if str(error).startswith(str(path)) else wrong_file(path, expected, str(error)) from None


def checked(row: Any, place: str, expected: str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The object, once every named field is there and of its kind; InputError says what was expected and found."""
    if not isinstance(row, dict):
        raise wrong_file(Path(place), expected, in_words(row))
    for name, kind in kinds.items():
        if name not in row:
            raise wrong_file(Path(place), f"{expected} with a field {name!r}", in_words(row))
        if not isinstance(row[name], kind):
            names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise wrong_file(Path(place), f"{expected} with {name!r} of type {names}", f"there {in_words(row[name])}")
    return row


_READ = 1 << 20  # characters of a file read at a time


def _array_items(path: Path, expected: str) -> Iterator[Any]:
    try:
        with open_text(path) as file:
            yield from _Array(file, path, expected)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


class _Array:
    """The items of a JSON array, decoded one after another from a text stream."""

    def __init__(self, file: TextIO, path: Path, expected: str) -> None:
        self._file, self._path, self._expected = file, path, expected
        self._text, self._at = "", 0

    def __iter__(self) -> Iterator[Any]:
        if (first := self._next()) != "[":
            found = {"": "an empty file", "{": "an object"}.get(first, f"a file that begins with {first!r}")
            raise wrong_file(self._path, f"{self._expected} in a JSON array", found)
        self._at += 1
        if self._next() == "]":
            return
        while True:
            yield self._item()
            mark = self._next()
            self._at += 1
            if mark == "]":
                return
            if mark != ",":
                raise self._damaged(f"{mark!r} between two items" if mark else "the end before the array's")
            self._next()

    def _next(self) -> str:
        """The next character that is no white space, not yet taken; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        # as much again as is held: a long item is then decoded a few times, not once for every piece
        more = self._file.read(max(_READ, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _item(self) -> Any:
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    raise self._damaged(str(error)) from None
                continue
            self._at = end
            return value

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self._path}: not a whole JSON array ({what}); download it again")


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The offsets without the white space at both ends; start == end where there is nothing else."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), max(end - len(part) + len(part.rstrip()), start)


def joined(parts: Sequence[str], between: str) -> tuple[str, Offsets]:
    """The parts as one text, and the trimmed offsets of each in it; an empty part has an empty range."""
    places, at = [], 0
    text = between.join(parts)
    for part in parts:
        places.append(trimmed(text, at, at + len(part)))
        at += len(part) + len(between)
    return text, tuple(places)


def overlapping(units: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> Offsets:
    """Those units that share a character with any of the spans, in order."""
    return tuple(unit for unit in units if any(start < unit[1] and unit[0] < end for start, end in spans))


#: Characters of a window; some 200 words.
SIZE = 1300


def windows(units: Sequence[tuple[int, int]], *, size: int = SIZE, uncut: Sequence[tuple[int, int]] = ()) -> Offsets:
    """Runs of consecutive units of at most `size` characters; longer where one unit is, or where a span is not cut.

    units: offsets in order. uncut: spans, none of which ends up in two windows.
    """
    found: list[tuple[int, int]] = []
    for start, end in units:
        crossed = found and any(first < found[-1][1] and last > start for first, last in uncut)
        if found and (crossed or end - found[-1][0] <= size):
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def own_and_nearest(
    question: str, article: LabelledDocument, cuts: Offsets, *, count: int, answers: Sequence[str] = ()
) -> tuple[LabelledDocument, ...]:
    """The windows that answer and the BM25-nearest others, `count` in all if there are so many, in the text's order.

    cuts: of the windows, as offsets into the article. answers: a window that repeats one without being marked is left
    out, since it may well answer. More than `count` windows that answer all stay.
    """
    parts = [chunk_of(article, place, cut) for place, cut in enumerate(cuts)]
    needles = [needle for answer in answers if (needle := answer_needle(answer))]
    others = [
        place
        for place, each in enumerate(parts)
        if not each.is_gold and not any(needle in token_string(each.document.text) for needle in needles)
    ]
    gold = [place for place, each in enumerate(parts) if each.is_gold]
    chosen = gold + _nearest(question, parts, others, max(count - len(gold), 0))
    return tuple(parts[place] for place in sorted(chosen))


def _nearest(question: str, parts: Sequence[LabelledDocument], places: Sequence[int], count: int) -> list[int]:
    """The places of the `count` nearest by BM25; those that share no word with the question come last, in order."""
    if count == 0 or len(places) <= count:
        return list(places)[:count]
    by_id = {parts[place].document.id: place for place in places}
    if len(by_id) != len(places):
        raise InputError(f"two windows of {parts[places[0]].document.id!r} have one id")
    (found,) = BM25Retriever([parts[place].document for place in places]).retrieve([question], count)
    ranked = [by_id[document.id] for document in found]
    return (ranked + [place for place in places if place not in ranked])[:count]
