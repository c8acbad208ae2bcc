"""An offline teacher: the words of a passage that people ask about, from question-answering data.

    python -m ctxprune.trainers.llmlingua2.targets --data FILE[:LIMIT] ... --out TARGETS.jsonl.gz

A word matters as far as answers or questions touch it. A passage's questions are taken together, and the target is the
chance that a few of them, drawn at random, touch the word: so passages with five questions and with forty are alike.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctxprune.data import read_questions
from ctxprune.data.questions import LabelledDocument, Question, locatable, locate_answers
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.files import read_rows, write_rows
from ctxprune.text import split_words
from ctxprune.text.words import stem, tokenise
from ctxprune.trainers.shared.corpora import Source
from ctxprune.types import Span


@dataclass(frozen=True, slots=True)
class WordTargets:
    """A text and the target of each of its words (the units of `split_words`), in [0, 1]: 1 keep, 0 remove.

    None: not known; no loss looks at the word. Raises InputError when count or range are wrong.
    """

    text: str
    targets: tuple[float | None, ...]

    def __post_init__(self) -> None:
        words = len(split_words(self.text))
        if len(self.targets) != words:
            raise InputError(
                f"{len(self.targets)} targets for {words} words; make one for each unit of ctxprune.text.split_words"
            )
        for place, target in enumerate(self.targets):
            if target is not None and not 0 <= target <= 1:
                raise InputError(f"targets[{place}] is {target}; a target lies in [0, 1], or is null where not known")


def read_targets(path: str | Path) -> Iterator[WordTargets]:
    """The texts of a JSONL file (.gz too) of `{"text", "targets"}` rows; InputError names a bad line."""
    for number, row in read_rows(Path(path)):
        try:
            yield _from_row(row)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None


def write_targets(path: str | Path, texts: Iterable[WordTargets], *, teacher: str, decimals: int = 4) -> int:
    """Write one row a text, with the teacher's name; returns how many. The file appears when all is done."""
    return write_rows(Path(path), (_to_row(item, teacher, decimals) for item in texts))


def _to_row(item: WordTargets, teacher: str, decimals: int) -> dict[str, Any]:
    rounded = [None if target is None else round(target, decimals) for target in item.targets]
    return {"text": item.text, "targets": rounded, "teacher": teacher}


def _from_row(row: dict[str, Any]) -> WordTargets:
    text, targets = row.get("text"), row.get("targets")
    if not isinstance(text, str):
        raise InputError(f"field 'text' must be a string, got {type(text).__name__}")
    if not isinstance(targets, list) or any(
        isinstance(target, bool) or not isinstance(target, int | float | None) for target in targets
    ):
        raise InputError("field 'targets' must be a list with a number or null for each word; run a teacher first")
    return WordTargets(text, tuple(targets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How touches become targets.

    drawn: questions drawn of those of a passage. question_weight: what a word is worth that a question shares but no
    answer holds; an answer's words are worth 1. min_questions: passages that fewer people asked about are left out,
    for a word that nobody asked about says little there. max_answer_words: longer answers (whole sentences) mark
    nothing, though their questions do.
    """

    drawn: int = 5
    question_weight: float = 0.4
    min_questions: int = 3
    max_answer_words: int = 15


@dataclass(slots=True)
class _Asked:
    """One passage: the words of it that each of its questions touches, by answer and by question."""

    words: list[Span]
    stems: list[frozenset[str]]
    answered: list[set[int]] = field(default_factory=list)
    asked: list[set[int]] = field(default_factory=list)


def coverage_targets(questions: Iterable[Question], options: Coverage | None = None) -> Iterator[WordTargets]:
    """The gold passages of the questions, each once, with a target for every word."""
    options = options or Coverage()
    passages: dict[str, _Asked] = {}
    for question in questions:
        for document in question.documents:
            if document.is_gold:
                _add(passages, question, document, options)
    for text, passage in passages.items():
        if len(passage.asked) >= options.min_questions and passage.words:
            yield WordTargets(text, tuple(_targets(passage, options)))


def touched_chance(touching: int, questions: int, drawn: int) -> float:
    """The chance that at least one of `drawn` questions, out of `questions` of which `touching` touch a word, does."""
    drawn = min(drawn, questions)
    return 1.0 - math.comb(questions - touching, drawn) / math.comb(questions, drawn)


def _add(passages: dict[str, _Asked], question: Question, document: LabelledDocument, options: Coverage) -> None:
    text, stems = document.document.text, frozenset(tokenise(question.text))
    passage = passages.get(text)
    if passage is None:
        words = split_words(text)
        passage = passages[text] = _Asked(words, [frozenset(tokenise(text[w.start : w.end])) for w in words])
    spans = document.answer_spans or locate_answers(text, locatable(question.answers))
    held = (_within(passage.words, span) for span in spans)
    answered = [places for places in held if len(places) <= options.max_answer_words]
    passage.answered.append(set().union(*answered))
    passage.asked.append({place for place, mine in enumerate(passage.stems) if mine & stems})


def _within(words: Sequence[Span], span: tuple[int, int]) -> set[int]:
    """The words that overlap the span."""
    start, end = span
    return {place for place, word in enumerate(words) if start < word.end and word.start < end}


def _targets(passage: _Asked, options: Coverage) -> Iterator[float]:
    questions = len(passage.asked)
    for place in range(len(passage.words)):
        by_answer = touched_chance(sum(place in words for words in passage.answered), questions, options.drawn)
        by_question = touched_chance(sum(place in words for words in passage.asked), questions, options.drawn)
        yield max(by_answer, options.question_weight * by_question)


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, write targets; returns the exit code."""
    arguments = _parser().parse_args(argv)
    options = Coverage(
        drawn=arguments.drawn, question_weight=arguments.question_weight, min_questions=arguments.min_questions
    )
    try:
        targets = (item for text in arguments.data for item in _of_source(Source.parse(text), options))
        count = write_targets(arguments.out, targets, teacher="coverage")
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {count} passages")
    return 0


def _of_source(source: Source, options: Coverage) -> Iterator[WordTargets]:
    """Passages of one file; LIMIT counts passages here, drawn at random, and REPEAT writes them again."""
    made = source.draw(coverage_targets(read_questions(source.path), options), Path(source.path).name)
    return (item for _ in range(source.repeat) for item in made)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.llmlingua2.targets",
        description="Targets for the words of passages: how much of what people ask touches them.",
    )
    add, options = parser.add_argument, Coverage()
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="questions with labelled documents")
    add("--out", required=True, type=Path, metavar="TARGETS.jsonl", help="one passage a line (.gz too)")
    add("--drawn", type=int, default=options.drawn, help="questions drawn of a passage's (default: %(default)s)")
    add("--question-weight", type=float, default=options.question_weight, help="of words that only questions share")
    add("--min-questions", type=int, default=options.min_questions, help="leave out passages with fewer")
    return parser


_EDGE = re.compile(r"^[\W_]+|[\W_]+$")
_INNER = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Alignment:
    """kept: one flag for each unit of `split_words(source)`. matched: the source word of each teacher word, None if it
    has none. hits: source words whose form or stem is anywhere in the teacher's text."""

    kept: tuple[bool, ...]
    matched: tuple[int | None, ...]
    hits: int

    @property
    def variation_rate(self) -> float:
        """Share of the teacher's words that the source does not hold near where they should be; 0 is faithful."""
        return sum(place is None for place in self.matched) / len(self.matched) if self.matched else 0.0

    @property
    def alignment_gap(self) -> float:
        """Hitting rate less matching rate: the share of source words that the teacher used but that stayed unmarked.
        High when the text repeats words and the alignment may have marked the wrong ones."""
        return (self.hits - sum(self.kept)) / len(self.kept) if self.kept else 0.0

    @property
    def kept_share(self) -> float:
        """Share of the source's words that are kept; 0 for an empty source."""
        return sum(self.kept) / len(self.kept) if self.kept else 0.0


def align(source: str, compressed: str, *, window: int = 150) -> Alignment:
    """Mark the source words that a compressed text kept.

    window: how many words before and after the last match to search. Of several candidates the nearest wins; one that
    lies behind counts twice its distance, for teachers delete more often than they reorder. A source word serves one
    teacher word. Linear in the texts but for the candidates of frequent words. Raises InputError for a window below 1.
    """
    if window < 1:
        raise InputError(f"window must be at least 1 word, got {window}; the default is 150")
    words = [source[word.start : word.end] for word in split_words(source)]
    wanted = [compressed[word.start : word.end] for word in split_words(compressed)]
    places = _places(words)
    free = [True] * len(words)
    matched: list[int | None] = []
    last = 0
    for word in wanted:
        nearest = (_nearest(places.get(key, ()), free, last, window) for key in _keys(word))
        found = next((place for place in nearest if place is not None), None)
        matched.append(None if found is None else found - 1)
        if found is not None:
            free[found - 1] = False
            last = found
    seen = {key for word in wanted for key in _keys(word)}
    hits = sum(not seen.isdisjoint(_keys(word)) for word in words)
    return Alignment(tuple(not each for each in free), tuple(matched), hits)


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    """Where each key stands, counted from 1, ascending. A number with its unit or "1990-95" also stands under its
    parts, for a teacher may have kept one of them."""
    found: dict[str, list[int]] = {}
    for place, word in enumerate(words, 1):
        for key in dict.fromkeys([*_keys(word), *_part_keys(word)]):
            found.setdefault(key, []).append(place)
    return found


def _keys(word: str) -> Iterator[str]:
    """The forms under which a word is compared, strictest first; they are marked, so that kinds do not mix."""
    form = unicodedata.normalize("NFKC", word).casefold()
    bare = _EDGE.sub("", form)
    yield f"form {bare or form}"
    if bare:
        yield f"stem {stem(bare)}"


def _part_keys(word: str) -> Iterator[str]:
    parts = [part for part in _INNER.split(unicodedata.normalize("NFKC", word).casefold()) if part]
    if len(parts) > 1:
        yield from (f"form {part}" for part in parts)


def _nearest(candidates: Sequence[int], free: Sequence[bool], last: int, window: int) -> int | None:
    """The best free candidate around the last match; positions count from 1, so 0 stands for no match yet."""
    low, high = bisect_left(candidates, last - window), bisect_right(candidates, last + window)
    usable = (at for at in candidates[low:high] if free[at - 1])
    return min(usable, key=lambda at: (_distance(at, last), at <= last), default=None)


def _distance(place: int, last: int) -> int:
    """In words from the one after the last match; doubled behind it."""
    return place - last if place > last else 2 * (last + 1 - place)


if __name__ == "__main__":
    sys.exit(main())
