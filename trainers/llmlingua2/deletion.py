"""Distil word targets from a language model that shortens texts by deletion: `ctxprune train deletion`.

The data step of LLMLingua-2 (Pan et al., ACL 2024, section 3.1-3.3): texts are cut into chunks at sentence ends, the
teacher shortens each under five rules, its words are aligned to the chunk's, and unfaithful answers are dropped.
Answers are cached, so the same command goes on after an interruption. Any `Generator` can teach; a stronger one gives
better targets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxprune.errors import InputError
from ctxprune.text import split_sentences, split_words
from ctxprune.tokens import load_counter
from ctxprune.trainers.llmlingua2.targets import Alignment, WordTargets, align, write_targets
from ctxprune.trainers.shared.corpora import read_texts
from ctxprune.trainers.shared.teacher import (
    AnswerCache,
    add_teacher_arguments,
    answer_all,
    check_teacher_arguments,
    data_step,
    open_teacher,
    positive,
    teacher_name,
)
from ctxprune.types import Span, TokenCounter

if TYPE_CHECKING:
    from ctxprune.generators import Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterReport:
    """What became of the texts: `texts` is `kept` + the three drops. Rates are means over the texts that were kept.

    variation_threshold, alignment_threshold: the highest rate and gap that stayed.
    """

    texts: int
    kept: int
    dropped_empty: int
    dropped_variation: int
    dropped_alignment: int
    variation_threshold: float
    alignment_threshold: float
    variation_rate: float
    alignment_gap: float
    kept_share: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def filter_alignments(
    alignments: Sequence[Alignment], *, drop_variation: float = 0.05, drop_alignment: float = 0.10
) -> tuple[list[int], FilterReport]:
    """The places of the alignments worth training on, ascending, and a report.

    drop_variation, drop_alignment: shares in [0, 1) to drop; texts that tie with the last one kept stay. Empty answers
    and empty texts are dropped first. Raises InputError for a share outside the range.
    """
    for name, share in (("drop_variation", drop_variation), ("drop_alignment", drop_alignment)):
        if not 0 <= share < 1:
            raise InputError(f"{name} must lie in [0, 1), got {share}; 0 keeps everything")
    answered = [place for place, alignment in enumerate(alignments) if alignment.matched and alignment.kept]
    rates = {place: alignments[place].variation_rate for place in answered}
    faithful, by_rate = _lowest(answered, rates, drop_variation)
    gaps = {place: alignments[place].alignment_gap for place in faithful}
    certain, by_gap = _lowest(faithful, gaps, drop_alignment)
    return certain, FilterReport(
        texts=len(alignments),
        kept=len(certain),
        dropped_empty=len(alignments) - len(answered),
        dropped_variation=len(answered) - len(faithful),
        dropped_alignment=len(faithful) - len(certain),
        variation_threshold=by_rate,
        alignment_threshold=by_gap,
        variation_rate=_mean([rates[place] for place in certain]),
        alignment_gap=_mean([gaps[place] for place in certain]),
        kept_share=_mean([alignments[place].kept_share for place in certain]),
    )


def _lowest(places: Sequence[int], values: dict[int, float], drop: float) -> tuple[list[int], float]:
    """The places without the share `drop` of highest values, rounded down, and the highest value that stays."""
    if not places:
        return [], 0.0
    dropped = int(len(places) * drop + 1e-9)  # 0.07 * 100 is a little more than 7, 0.29 * 100 a little less than 29
    limit = sorted(values[place] for place in places)[len(places) - 1 - dropped]
    return [place for place in places if values[place] <= limit], limit


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


_PROMPT = """\
Shorten the text below as much as you can by deleting words, so that a reader could still restore all of its facts.

Five rules:
1. Only delete words that carry little; do nothing else.
2. Keep the remaining words in their order.
3. Keep the remaining words exactly as they are written.
4. Use no abbreviations, symbols or emojis that the text does not have.
5. Add no words of your own, not even an introduction.

Text:
{text}

Shortened text:"""


def deletion_prompt(text: str) -> str:
    """What the teacher is asked about one chunk."""
    return _PROMPT.format(text=text)


def chunks(text: str, *, counter: TokenCounter, max_tokens: int = 512) -> list[Span]:
    """The text in pieces of at most `max_tokens` tokens of `counter`: as many whole sentences as fit in each.

    A longer sentence is cut between words; only a single word can exceed the limit. Together the pieces hold every
    character that is not white space. Raises InputError for a limit below 1.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}; the default is 512")
    units: list[Span] = []
    for sentence in split_sentences(text):
        piece = text[sentence.start : sentence.end]
        if counter.count([piece])[0] <= max_tokens:
            units.append(sentence)
        else:
            words = [Span(sentence.start + word.start, sentence.start + word.end) for word in split_words(piece)]
            units += _packed(text, words, counter, max_tokens)
    return _packed(text, units, counter, max_tokens)


def _packed(text: str, units: Sequence[Span], counter: TokenCounter, max_tokens: int) -> list[Span]:
    """Neighbouring units joined while they fit; counted apart, they can only take more tokens than together."""
    made: list[Span] = []
    filled = 0
    for unit, cost in zip(units, counter.count([text[unit.start : unit.end] for unit in units]), strict=True):
        if made and filled + cost <= max_tokens:
            made[-1], filled = Span(made[-1].start, unit.end), filled + cost
        else:
            made.append(unit)
            filled = cost
    return made


def distil(
    texts: Iterable[str],
    generator: Generator,
    *,
    model: str,
    cache: AnswerCache,
    counter: TokenCounter,
    max_tokens: int = 512,
    window: int = 150,
    drop_variation: float = 0.05,
    drop_alignment: float = 0.10,
) -> tuple[list[WordTargets], FilterReport]:
    """Targets of 1 and 0 for the words of every chunk that the teacher shortened faithfully, and a report.

    model: the teacher's name, under which the cache knows its answers. max_tokens: of a chunk, and of an answer. The
    other options are those of `align` and `filter_alignments`. Errors of the generator pass through; what it answered
    before is in the cache.
    """
    pieces = [
        text[span.start : span.end] for text in texts for span in chunks(text, counter=counter, max_tokens=max_tokens)
    ]
    prompts = [deletion_prompt(piece) for piece in pieces]
    answer_all(prompts, generator, model=model, cache=cache, max_new_tokens=max_tokens)
    alignments = [
        align(piece, cache.get(model, prompt) or "", window=window)
        for piece, prompt in zip(pieces, prompts, strict=True)
    ]
    usable, report = filter_alignments(alignments, drop_variation=drop_variation, drop_alignment=drop_alignment)
    return [WordTargets(pieces[place], tuple(map(float, alignments[place].kept))) for place in usable], report


def main(argv: Sequence[str] | None = None) -> int:
    """Read texts, have them shortened, write targets and beside them a .report.json; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_teacher_arguments(parser, arguments)
    return data_step(lambda: _distilled(arguments).to_dict(), out=arguments.out)


def _distilled(arguments: argparse.Namespace) -> FilterReport:
    with AnswerCache(arguments.cache or f"{arguments.out}.answers") as cache, open_teacher(arguments) as generator:
        targets, report = distil(
            _texts(arguments),
            generator,
            model=teacher_name(arguments),
            cache=cache,
            counter=load_counter("default"),
            max_tokens=arguments.max_tokens,
            window=arguments.window,
            drop_variation=arguments.drop_variation,
            drop_alignment=arguments.drop_alignment,
        )
    write_targets(arguments.out, targets, teacher=f"deletion by {teacher_name(arguments)}")
    return report


def _texts(arguments: argparse.Namespace) -> Iterator[str]:
    texts = (
        text for data in arguments.data for text in read_texts(data, split=arguments.split, column=arguments.column)
    )
    return islice(texts, arguments.limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.llmlingua2.deletion",
        description="Word targets from a language model that shortens texts by deleting words.",
    )
    add = parser.add_argument
    add("--data", required=True, nargs="+", help="texts: JSONL, questions with documents, plain text or a data set id")
    add("--out", required=True, type=Path, metavar="TARGETS.jsonl", help="one chunk a line (.gz too)")
    add("--split", default="train", help="of a data set (default: %(default)s)")
    add("--column", default="text", help="the field that holds the text (default: %(default)s)")
    add("--limit", type=positive, metavar="N", help="only the first N texts")
    add_teacher_arguments(parser)
    add("--cache", metavar="FILE", help="answers so far (default: OUT.answers)")
    add("--max-tokens", type=positive, default=512, metavar="N", help="of a chunk (default: %(default)s)")
    add("--window", type=positive, default=150, metavar="N", help="words searched (default: %(default)s)")
    add("--drop-variation", type=float, default=0.05, help="share dropped for words of the teacher's own")
    add("--drop-alignment", type=float, default=0.10, help="share dropped for doubtful alignment")
    return parser


if __name__ == "__main__":
    sys.exit(main())
