"""Questions over two passages, made of pairs of questions over one: `python -m ctxprune.trainers.provence.compose`.

The answer of a first question stands in a second one; there it is replaced by the first, turned into a noun phrase:
"Who founded Vell Abbey?" (Anselm Roe) and "Where was Anselm Roe born?" make "Where was the one who founded Vell Abbey
born?". So MuSiQue was made (Trivedi et al. 2022, TACL 10). The second passage answers a question that no longer names
what the passage is about, which is what a pruner must learn to follow.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctxprune.data import read_corpus, read_questions
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.files import write_rows
from ctxprune.trainers.provence.pairs import Negatives
from ctxprune.trainers.shared.corpora import Source
from ctxprune.types import Document

#: How often one passage, and one entity, may stand in the questions that are made.
PER_PASSAGE, PER_ENTITY = 2, 2

_NAME = re.compile(r"(?:(?:[A-Z][\w’'-]+|of|the|and|de|von|van|la)[ ]?)+")
_PEOPLE = re.compile(r"\w+(?:an|ese|ish|ic)")
_BE = r"(?:is|was|were|are|has|had|can)"
_NOUN = r"(?:what|which) (?P<noun>(?:(?!(?:is|was|were|are|has|had|do|does|did|can|of) )[a-z][\w-]* ){1,3}?)"
#: Shapes of questions with the noun phrase that each becomes, the first that fits.
_SHAPES = (
    (re.compile(rf"(?:what|who) {_BE} (?:the name of )?(?P<phrase>the .+)", re.I), "{phrase}"),
    (re.compile(rf"who (?P<rest>(?!{_BE} |did |does |do |will )\w.*)", re.I), "the one who {rest}"),
    (re.compile(rf"{_NOUN}(?P<rest>(?:{_BE}|\w+ed) .+)", re.I), "the {noun}that {rest}"),
    (
        re.compile(rf"{_NOUN}(?P<do>did|does) (?P<name>(?:(?-i:[A-Z])[\w’'-]+ )+)(?P<rest>(?-i:[a-z]).*)", re.I),
        "the {noun}that {name}{do} {rest}",
    ),
)
_TWO_ARTICLES = re.compile(r"\bthe $", re.I)
#: What an entity that is part of a longer name stands beside.
_NAME_BEFORE, _NAME_AFTER = re.compile(r"\w [A-Z][\w’-]* $"), re.compile(r"[ -][A-Z]|-")


def noun_phrase(question: str) -> str | None:
    """What a question asks for, named without its answer; None for a question of another shape than these:
    "Who founded X?", "What city hosted X?", "What city did X visit?", "What is the capital of X?"."""
    text = question.strip().rstrip("?. ").strip()
    for shape, phrase in _SHAPES:
        if found := shape.fullmatch(text):
            return phrase.format(**found.groupdict())
    return None


@dataclass(frozen=True, slots=True)
class _Hop:
    question: Question
    gold: LabelledDocument


def compose(
    questions: Sequence[Question], passages: Sequence[Document], *, limit: int, distractors: int = 6, seed: int = 0
) -> Iterator[Question]:
    """At most `limit` questions of two hops, each with its two passages among `distractors` others, in random order.

    questions: with one gold passage, its answer spans and its relevant sentences; others are passed over. passages:
    what distractors are drawn from, the nearest by BM25 for both parts that hold neither answer.
    """
    rng = random.Random(seed)
    hops = [_Hop(each, gold) for each in questions if (gold := _gold(each)) is not None]
    index = Negatives((), depth=4 * max(distractors, 1), further=map(LabelledDocument, passages))
    used: Counter[str] = Counter()
    pairs = list(_pairs(hops))
    rng.shuffle(pairs)
    made = 0
    for first, second, entity, phrase in pairs:
        keys = [first.gold.document.text, second.gold.document.text, entity]
        if made == limit or any(used[key] >= (PER_ENTITY if key is entity else PER_PASSAGE) for key in keys):
            continue
        used.update(keys)
        made += 1
        yield _joined(first, second, entity, phrase, index, distractors, rng)


def _gold(question: Question) -> LabelledDocument | None:
    """The only gold passage, where one sentence of it is known to answer."""
    gold = [item for item in question.documents if item.is_gold]
    usable = len(gold) == 1 and gold[0].answer_spans and gold[0].relevant and question.answers
    return gold[0] if usable else None


def _pairs(hops: Sequence[_Hop]) -> Iterator[tuple[_Hop, _Hop, str, str]]:
    """(first, second, entity, noun phrase): the first's answer is a name that stands in the second."""
    named: dict[str, list[tuple[_Hop, str]]] = defaultdict(list)
    for hop in hops:
        entity = hop.question.answers[0]
        phrase = noun_phrase(hop.question.text) if _is_name(entity) else None
        if phrase is not None and entity.lower() not in hop.question.text.lower():
            named[entity].append((hop, phrase))
    for second in hops:
        for entity in _names(second.question.text):
            for first, phrase in named.get(entity, ()):
                if _fits(first, second) and _stands_alone(entity, second.question.text):
                    yield first, second, entity, phrase


def _is_name(text: str) -> bool:
    """Whether it reads as the name of one person, place or thing: not "Danish", nor an abbreviation."""
    several = " " in text or (len(text) > 4 and not _PEOPLE.fullmatch(text))
    return text[:1].isupper() and several and bool(_NAME.fullmatch(text))


def _names(question: str) -> set[str]:
    """Runs of words in a question that may be a name, the longest and each shorter one that begins with a capital."""
    words = [(found.start(), found.end()) for found in re.finditer(r"[\w’-]+", question)]
    spans = {
        question[words[low][0] : words[high][1]]
        for low in range(1, len(words))
        for high in range(low, min(low + 5, len(words)))
    }
    return {text for text in spans if _is_name(text)}


def _stands_alone(entity: str, question: str) -> bool:
    """Whether the name is not part of a longer one: "Lake Orlo", "Orlo War"."""
    before, _, after = question.partition(entity)
    return not _NAME_BEFORE.search(before) and not _NAME_AFTER.match(after)


def _fits(first: _Hop, second: _Hop) -> bool:
    """Different passages, neither of which answers the other's question, and a second answer that is not given away."""
    one, two = first.gold.document.text, second.gold.document.text
    answer = second.question.answers[0]
    given = first.question.text.lower()
    return one != two and answer.lower() not in given and answer not in one and answer != first.question.answers[0]


def _joined(
    first: _Hop, second: _Hop, entity: str, phrase: str, index: Negatives, distractors: int, rng: random.Random
) -> Question:
    before, _, after = second.question.text.partition(entity)
    others = _distractors(first, second, index, distractors)
    documents = [replace(first.gold, answer_spans=()), second.gold, *others]
    rng.shuffle(documents)
    return Question(
        id=f"{first.question.id}+{second.question.id}",
        text=_TWO_ARTICLES.sub("", before) + phrase + after,
        answers=second.question.answers,
        documents=tuple(documents),
    )


def _distractors(first: _Hop, second: _Hop, index: Negatives, count: int) -> list[LabelledDocument]:
    """`count` passages near either part, in turn, without an answer of either."""
    answers = (first.question.answers[0], second.question.answers[0])
    both = replace(second.question, answers=answers, documents=(first.gold, second.gold))
    near = zip(index.nearest(first.question.text), index.nearest(second.question.text), strict=True)
    fit = {item.document.text: item.document for pair in near for item in pair if index.is_wrong(both, item)}
    return [LabelledDocument(replace(document, score=None), relevant=()) for document in list(fit.values())[:count]]


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions and passages, write the questions that were made."""
    options = _options(argv)
    rows = [row for source in options.data for row in _questions(Source.parse(source), options.seed)]
    passages = {item.document.text: item.document for row in rows for item in row.documents}
    passages |= {document.text: document for path in options.corpus for document in read_corpus(path)}
    made = compose(
        rows, list(passages.values()), limit=options.limit, distractors=options.distractors, seed=options.seed
    )
    count = write_rows(options.out, map(row_from_question, made))
    sys.stderr.write(f"{count} questions of two hops, of {len(rows)} of one -> {options.out}\n")
    if not count:
        raise InputError("no answer of one question stands in another; give more files with --data")
    return 0


def _questions(source: Source, seed: int) -> list[Question]:
    return source.draw(read_questions(source.path), source.key(seed))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.trainers.provence.compose", description=__doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="FILE[:LIMIT]", help="questions with a labelled gold passage")
    add("--corpus", nargs="*", default=[], metavar="FILE", help="further passages to draw distractors from")
    add("--out", type=Path, required=True, help="where the rows go (.jsonl or .jsonl.gz)")
    add("--limit", type=int, default=4000, help="questions to make (default: 4000)")
    add("--distractors", type=int, default=6, help="passages beside the two (default: 6)")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
