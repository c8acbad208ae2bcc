"""Turn labelled questions into (question, passage) training pairs, varied the way real use varies.

People type keywords, retrievers hand over 100-word chunks that begin in the middle of a sentence, titles are missing,
and passages that look right do not answer. Each of these is made here from plain labelled questions. Passages of 1-10
sentences with mined negatives are Provence's (Chirkova et al., ICLR 2025); the chunks, the keyword questions and the
negatives with broken evidence are ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ctxprune.data.questions import LabelledDocument, Offsets, Question
from ctxprune.errors import InputError
from ctxprune.text import split_sentences
from ctxprune.text.words import UNSPACED_SCRIPTS, query_terms, tokenise


@dataclass(frozen=True, slots=True)
class Pair:
    """One training item. Offsets are characters of `text`.

    keep: what to keep (None: unknown, trains the rank head only). answers: where the answer stands (None: unknown).
    relevant: whether the passage as a whole helps. broken: made from a gold passage by taking its evidence away.
    """

    question: str
    text: str
    relevant: bool
    keep: Offsets | None
    answers: Offsets | None
    title: str = ""
    source: str = ""
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How often each variation is applied; all are probabilities but the sizes.

    broken: extra negatives made from a gold passage, half by removing its evidence, half by asking about something else
    that the passage mentions. told: questions followed by a sentence of their passages, as at a second look.
    """

    hard_negatives: float = 0.4
    random_negatives: float = 0.05
    broken: float = 0.2
    chunk: float = 0.3
    sentences: float = 0.2
    no_title: float = 0.4
    plain_question: float = 0.35
    keywords: float = 0.15
    told: float = 0.0
    chunk_words: int = 100
    max_words: int = 230
    max_documents: int = 6


# Two characters of a script without spaces stand for a word, else a Japanese paragraph would be one.
_WORD = re.compile(rf"[{UNSPACED_SCRIPTS}]{{1,2}}|(?:(?![{UNSPACED_SCRIPTS}])\S)+")
_WORDS_OF_QUESTIONS = """
a an the of in on at to by for from with and or is are was were be been do does did has have had it its their his her
what which who whom whose when where why how that this these those there as
"""
_QUESTION_WORDS = frozenset(_WORDS_OF_QUESTIONS.split())
_ENTITY = re.compile(r"(?:[A-Z][\w'’-]+(?:\s+(?:of\s+|the\s+)?[A-Z][\w'’-]+)*)|\b\d[\d,.]*\b")


def plain_pairs(questions: Iterable[Question]) -> Iterator[Pair]:
    """The questions' own documents as they are: for validation."""
    for question in questions:
        for document in question.documents:
            yield _pair(question, document)


class Negatives:
    """BM25-nearest passages of other questions that do not hold the answer; `bm25s` does the search.

    further: passages of no question. Raises InputError without any passage.
    """

    def __init__(
        self, questions: Iterable[Question], *, depth: int = 20, further: Iterable[LabelledDocument] = ()
    ) -> None:
        import bm25s

        passages = {item.document.text: item for question in questions for item in question.documents}
        for item in further:
            passages.setdefault(item.document.text, item)
        if not passages:
            raise InputError(
                "the questions hold no documents, so there is nothing to draw negatives from; check the file"
            )
        self.passages = list(passages.values())
        self.depth = min(depth, len(self.passages))
        self._index = bm25s.BM25()
        self._index.index(_words([f"{p.document.title} {p.document.text}" for p in self.passages]), show_progress=False)

    def near(self, question: Question, rng: random.Random) -> LabelledDocument | None:
        """One of the nearest passages that does not answer the question, None when all of them do."""
        usable = [passage for passage in self.nearest(question.text) if self.is_wrong(question, passage)]
        return rng.choice(usable[:8]) if usable else None

    def nearest(self, text: str) -> list[LabelledDocument]:
        """The `depth` nearest passages, best first."""
        places, _ = self._index.retrieve(_words([text]), k=self.depth, show_progress=False)
        return [self.passages[place] for place in places[0]]

    def any(self, question: Question, rng: random.Random) -> LabelledDocument | None:
        """A passage at random that does not answer the question."""
        passage = rng.choice(self.passages)
        return passage if self.is_wrong(question, passage) else None

    def is_wrong(self, question: Question, passage: LabelledDocument) -> bool:
        """Whether it is none of the question's own passages and holds no answer."""
        text = passage.document.text.lower()
        own = {item.document.text for item in question.documents}
        return passage.document.text not in own and not any(answer.lower() in text for answer in question.answers)


def _words(texts: list[str]) -> list[list[str]]:
    """The texts as `bm25s` indexes and searches them: its own tokenizer makes one word of a whole Chinese clause."""
    return [tokenise(text) for text in texts]


def raw_pairs(
    question: Question, rng: random.Random, variation: Variation, negatives: Negatives | None
) -> Iterator[Pair]:
    """Every pair of a question, not yet varied: its documents, negatives found elsewhere, and broken gold passages."""
    gold = [document for document in question.documents if document.is_gold]
    others = [document for document in question.documents if not document.is_gold]
    rng.shuffle(others)
    for document in [*gold, *others][: variation.max_documents]:
        yield _pair(question, document)
    if negatives and question.answers:
        for share, mine in ((variation.hard_negatives, negatives.near), (variation.random_negatives, negatives.any)):
            if rng.random() < share and (passage := mine(question, rng)):
                yield replace(_pair(question, passage), relevant=False, keep=(), answers=())
    for document in gold:
        pair = _pair(question, document)
        if pair.keep and pair.answers and rng.random() < variation.broken:
            broken = without_evidence(pair) if rng.random() < 0.5 else about_something_else(pair, rng)
            if broken:
                yield broken


def _pair(question: Question, document: LabelledDocument) -> Pair:
    keep = document.relevant
    answers: Offsets | None = document.answer_spans or None
    if not document.is_gold:
        answers = ()
    return Pair(
        question.text,
        document.document.text,
        document.is_gold,
        keep,
        answers,
        document.document.title,
        str(document.document.metadata.get("source", "")),
    )


def without_evidence(pair: Pair) -> Pair | None:
    """A negative: the passage less the sentences that answer; None when little would be left."""
    text, kept = pair.text, []
    last = 0
    for start, end in pair.keep or ():
        kept.append(text[last:start])
        last = end
    left = " ".join(part.strip() for part in [*kept, text[last:]] if part.strip())
    if len(left) < 80 or any(text[start:end].lower() in left.lower() for start, end in pair.answers or ()):
        return None
    return replace(pair, text=left, relevant=False, keep=(), answers=(), broken=True)


def about_something_else(pair: Pair, rng: random.Random) -> Pair | None:
    """A negative: a name or number of the question exchanged for another of the passage, so that it asks what the
    passage does not say (after the rule-based negatives of Rajpurkar et al. 2018, section 4). None when it has none."""
    answers = {pair.text[start:end].lower() for start, end in pair.answers or ()}
    first = pair.question.split(" ", 1)[0]
    asked = [match.group() for match in _ENTITY.finditer(pair.question) if match.group() != first]
    asked = [name for name in asked if name in pair.text]
    if not asked:
        return None
    name = rng.choice(asked)
    others = {
        other
        for other in _ENTITY.findall(pair.text)
        if other[0].isdigit() == name[0].isdigit()
        and other.lower() not in answers
        and len(other) > 2
        and other not in pair.question
        and name not in other
        and other.lower() not in _QUESTION_WORDS
    }
    if not others:
        return None
    question = pair.question.replace(name, rng.choice(sorted(others)))
    return replace(pair, question=question, relevant=False, keep=(), answers=(), broken=True)


def vary(pair: Pair, rng: random.Random, variation: Variation) -> Pair:
    """The pair as another user or retriever would have given it; labels move along."""
    pair = replace(pair, question=restyled(pair.question, rng.random(), variation))
    if rng.random() < variation.no_title:
        pair = replace(pair, title="")
    draw = rng.random()
    if draw < variation.sentences:
        return _sentence_window(pair, rng)
    if draw < variation.sentences + variation.chunk:
        return _word_window(pair, rng, variation.chunk_words)
    return _word_window(pair, rng, variation.max_words)


def restyled(question: str, draw: float, variation: Variation) -> str:
    """The question as typed by somebody in a hurry; draw: uniform in [0, 1)."""
    if draw < variation.keywords:
        return keywords(question)
    return question.rstrip(" ?.？。؟").lower() if draw < variation.keywords + variation.plain_question else question


def keywords(question: str) -> str:
    """The question's content words in lower case, as typed into a search box; unchanged if fewer than two remain."""
    words = [word.strip("?.,;:!\"'()") for word in question.split()]
    content = [word.lower() for word in words if word and word.lower() not in _QUESTION_WORDS]
    return " ".join(content) if len(content) > 1 else question


def told_sentence(question: Question, rng: random.Random) -> str:
    """What a first look may have found, "" if nothing: a relevant sentence, rather of a passage that does not hold the
    answer; where one passage alone is relevant, half of the time the wrong sentence that shares most words."""
    gold = [item for item in question.documents if item.is_gold and item.relevant]
    first = [item for item in gold if not item.answer_spans] if len(gold) > 1 else gold
    found = [item.document.text[start:end] for item in first or gold for start, end in item.relevant or ()]
    if len(gold) > 1 or rng.random() < 0.5:
        return rng.choice(found) if found else ""
    asked = set(query_terms(question.text))
    wrong = {text for item in question.documents for text in _sentences(item.document.text)} - set(found)
    return max(sorted(wrong), key=lambda text: len(asked & set(tokenise(text))), default="")


def _sentences(text: str) -> list[str]:
    return [text[sentence.start : sentence.end] for sentence in split_sentences(text)]


def _word_window(pair: Pair, rng: random.Random, size: int) -> Pair:
    """At most `size` words, cut without regard to sentences, about one of the kept spans when there are any."""
    words = [match.span() for match in _WORD.finditer(pair.text)]
    if len(words) <= size:
        return pair
    low, high = 0, len(words) - size
    if pair.keep:
        start, end = rng.choice(pair.answers or pair.keep)
        first = next(i for i, word in enumerate(words) if word[1] > start)
        last = max(first, max(i for i, word in enumerate(words) if word[0] < end))
        low, high = max(low, min(last - size + 1, first)), max(min(high, first), 0)
    begin = rng.randint(min(low, high), high)
    return cut(pair, words[begin][0], words[begin + size - 1][1])


def _sentence_window(pair: Pair, rng: random.Random) -> Pair:
    """1 to 10 whole sentences in a row, with one of the kept spans when there are any; often few, as they are what
    later compressors and short retrieved snippets hold."""
    sentences = split_sentences(pair.text)
    size = rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 7, 10))
    if len(sentences) <= size:
        return pair
    low, high = 0, len(sentences) - size
    if pair.keep:
        start, _ = rng.choice(pair.answers or pair.keep)
        wanted = next((i for i, sentence in enumerate(sentences) if sentence.end > start), 0)
        low, high = max(low, wanted - size + 1), min(high, wanted)
    begin = rng.randint(min(low, high), high)
    return cut(pair, sentences[begin].start, sentences[begin + size - 1].end)


def cut(pair: Pair, start: int, end: int) -> Pair:
    """The passage narrowed to `text[start:end]`. Answers that do not survive whole are gone; a passage that loses
    all of its evidence becomes irrelevant."""
    keep = None if pair.keep is None else _moved(pair.keep, start, end, whole=False)
    answers = None if pair.answers is None else _moved(pair.answers, start, end, whole=True)
    if pair.answers and not answers:
        keep = () if keep is not None else None
    relevant = pair.relevant and keep != () and not (pair.answers and not answers)
    return replace(pair, text=pair.text[start:end], keep=keep, answers=answers, relevant=relevant)


def _moved(spans: Offsets, start: int, end: int, *, whole: bool) -> Offsets:
    if whole:
        return tuple((low - start, high - start) for low, high in spans if start <= low and high <= end)
    inside = ((max(low, start) - start, min(high, end) - start) for low, high in spans)
    return tuple((low, high) for low, high in inside if high - low > 0)
