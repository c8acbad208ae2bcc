"""Contexts of every size for fitting the context head, with their labels and as the encoder reads them: one sentence, a
snippet, a passage, a retriever's output, a long document, several of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ctxprune.compressors.provence.context_head import context_table
from ctxprune.compressors.provence.fusion import Array, SentenceEvidence, sentence_features
from ctxprune.compressors.provence.pruner import PrunerModel, gather, sentences_of
from ctxprune.data import read_questions
from ctxprune.data.questions import LabelledDocument, Question, is_relevant
from ctxprune.text import split_sentences
from ctxprune.trainers.provence.pairs import (
    Negatives,
    Pair,
    Variation,
    cut,
    keywords,
    plain_pairs,
    vary,
    without_evidence,
)
from ctxprune.trainers.shared.corpora import Source, held_out
from ctxprune.types import Context, Document

#: How often each form is drawn; "article" and "articles" are dear to read, so `long_documents` bounds them.
FORMS = {"sentence": 12, "snippet": 12, "passage": 16, "few": 14, "many": 30, "joined": 8, "article": 6, "articles": 2}
#: Passages of "few", drawn evenly: a fixed number would leave the sizes between one passage and five without contexts.
_FEW = (2, 3, 4, 5)
_MANY, _ARTICLES = 10, 5
#: How often a context of one passage or less is one that does not help: another passage, or another part of this one.
#: Beside the questions that nothing answers; with more of them a small context's best sentence is trusted too little.
_WRONG = 0.3
#: Fewer passages of one title are no article.
_ARTICLE_PASSAGES = 8


@dataclass(frozen=True, slots=True)
class Library:
    """What contexts are made from: a file's questions, their nearest wrong passages, and passages by title."""

    negatives: Negatives
    articles: Mapping[str, tuple[LabelledDocument, ...]]

    @classmethod
    def of(cls, questions: Sequence[Question]) -> Library:
        """From all questions of a file, those that the encoder was trained on included: their passages are other
        questions' negatives."""
        by_title: dict[str, dict[str, LabelledDocument]] = defaultdict(dict)
        for question in questions:
            for item in question.documents:
                by_title[item.document.title].setdefault(item.document.text, item)
        articles = {
            title: tuple(parts.values())
            for title, parts in by_title.items()
            if title and len(parts) >= _ARTICLE_PASSAGES
        }
        return cls(Negatives(questions, depth=40), articles)


def contexts(
    questions: Sequence[Question],
    library: Library,
    rng: random.Random,
    *,
    long_documents: int = 10,
    forms: Sequence[str] = (),
) -> Iterator[tuple[str, list[Pair]]]:
    """(form, documents) of one context a question, typed, cut and titled as users and retrievers would.

    In a tenth of those with several passages the gold ones are missing. long_documents: articles at most. forms: of
    `FORMS`, those to draw (none: all).
    """
    weights = {form: weight for form, weight in FORMS.items() if not forms or form in forms}
    for question in questions:
        typed = replace(question, text=_typed(question.text, rng))
        pairs = [pair for pair in plain_pairs([typed]) if pair.text.strip()]
        gold = next((pair for pair in pairs if pair.relevant), None)
        form = rng.choices(list(weights), weights=list(weights.values()))[0]
        title = gold.title if gold else pairs[0].title if pairs else ""
        if form in ("article", "articles") and (title not in library.articles or long_documents <= 0):
            form = "many"
        if form == "joined" and (len(pairs) < 3 or len({pair.title for pair in pairs}) > 1):
            form = "many"
        if form in ("sentence", "snippet", "passage"):
            one = gold or rng.choice(pairs)
            if rng.random() < _WRONG:
                one = _elsewhere(typed, one, library.negatives, rng)
            yield form, [one if form == "passage" else _narrowed(one, 1 if form == "sentence" else 3, rng)]
        elif form == "joined":
            yield form, [joined(pairs)]
        elif form in ("article", "articles"):
            long_documents -= 1 if form == "article" else _ARTICLES
            others = rng.sample(sorted(library.articles), min(_ARTICLES - 1, len(library.articles)))
            titles = [title, *(other for other in others if other != title)] if form == "articles" else [title]
            made = [article(typed, library.articles[name], gold or pairs[0]) for name in titles]
            rng.shuffle(made)
            yield form, made
        else:
            count = rng.choice(_FEW) if form == "few" else _MANY
            yield form, _retrieved(typed, pairs, count, library.negatives, rng)


def _retrieved(
    question: Question, pairs: list[Pair], wanted: int, negatives: Negatives, rng: random.Random
) -> list[Pair]:
    """The question's passages among the nearest of others, all cut and titled alike."""
    pairs = list(pairs)
    for _ in range(wanted * 2):
        if len(pairs) >= wanted or not question.answers:
            break
        near = negatives.near(question, rng)
        if near and near.document.text not in {pair.text for pair in pairs}:
            pairs.append(Pair(question.text, near.document.text, False, (), (), near.document.title))
    if rng.random() < 0.1 and any(not pair.relevant for pair in pairs):
        pairs = [pair for pair in pairs if not pair.relevant]
    rng.shuffle(pairs)
    chunk = rng.choice((0.0, 0.0, 1.0))
    alike = Variation(
        plain_question=0, keywords=0, sentences=0, chunk=chunk, no_title=rng.choice((0, 0, 1)), max_words=100_000
    )
    return [vary(pair, rng, alike) for pair in pairs]


def _elsewhere(question: Question, pair: Pair, negatives: Negatives, rng: random.Random) -> Pair:
    """The passage without what it has to say on the question, the nearest of others, or one at random."""
    draw = rng.random()
    if draw < 0.4 and pair.keep and pair.answers and (rest := without_evidence(pair)):
        return rest
    near = negatives.near(question, rng) if draw < 0.7 else negatives.any(question, rng)
    if near is None or not question.answers:
        return pair
    return Pair(question.text, near.document.text, False, (), (), near.document.title)


def _narrowed(pair: Pair, size: int, rng: random.Random) -> Pair:
    """`size` sentences in a row, the answer's among them; without a title half of the time."""
    sentences = split_sentences(pair.text)
    wanted = rng.randrange(len(sentences)) if sentences else 0
    if pair.keep:
        start = rng.choice(pair.answers or pair.keep)[0]
        wanted = next((place for place, each in enumerate(sentences) if each.end > start), wanted)
    begin = max(0, min(wanted - rng.randrange(size), len(sentences) - size))
    if sentences:
        pair = cut(pair, sentences[begin].start, sentences[min(begin + size, len(sentences)) - 1].end)
    return replace(pair, title="") if rng.random() < 0.5 else pair


def joined(pairs: Sequence[Pair]) -> Pair:
    """Passages as one document, a blank line between them; labels move along, unknown where they are for one."""
    text, keep, answers = "", [], []
    for pair in pairs:
        start = len(text) + (2 if text else 0)
        text = f"{text}\n\n{pair.text}" if text else pair.text
        keep += [(start + low, start + high) for low, high in pair.keep or ()]
        answers += [(start + low, start + high) for low, high in pair.answers or ()]
    known = all(pair.keep is not None for pair in pairs)
    return Pair(
        pairs[0].question,
        text,
        any(pair.relevant for pair in pairs),
        tuple(keep) if known else None,
        tuple(answers),
        pairs[0].title,
    )


def article(question: Question, parts: Sequence[LabelledDocument], gold: Pair) -> Pair:
    """A title's passages as one document; where the answer stands is known for the gold passage alone, and other
    passages with the answer in them are left out."""
    wanted = [answer.lower() for answer in question.answers]
    pairs = []
    for part in parts:
        text = part.document.text
        if text == gold.text:
            pairs.append(gold)
        elif not any(answer in text.lower() for answer in wanted):
            pairs.append(Pair(question.text, text, False, (), (), part.document.title))
    return joined(pairs or [gold])


def _typed(question: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.1:
        return keywords(question)
    return question.rstrip(" ?.").lower() if draw < 0.4 else question


@dataclass(frozen=True, slots=True)
class Example:
    """One context. features: (n, len(SENTENCE_FEATURES)); table: (n, len(COLUMNS)); labels, known, answers: (n,); gold:
    (n_documents,) 1 relevant, 0 not.

    known: False for sentences without a label, which then train the document weights only. answers: the sentences of
    which any one answers. form: of `contexts.FORMS`.
    """

    features: Array
    table: Array
    labels: Array
    known: Array
    answers: Array
    evidence: SentenceEvidence
    gold: Array
    source: str
    form: str


def example(pairs: Sequence[Pair], model: PrunerModel, source: str, form: str) -> Example | None:
    """Read a context with the encoder and label its sentences by overlap; None when there is nothing to read."""
    item = sentences_of(Context.of(pairs[0].question, [Document(pair.text, title=pair.title) for pair in pairs]))
    if not item.extracts:
        return None
    evidence = gather(item, model.read(item.passages())).fusable
    labels, known, answers = [], [], []
    for extract, spans in zip(item.extracts, item.spans, strict=True):
        pair = pairs[extract.index]
        known += [pair.keep is not None] * len(spans)
        labels += [is_relevant((span.start, span.end), pair.keep or ()) for span in spans]
        answers += [any(low < span.end and high > span.start for low, high in pair.answers or ()) for span in spans]
    gold = [float(pairs[extract.index].relevant) for extract in item.extracts]
    features = sentence_features(evidence)
    return Example(
        features,
        context_table(evidence, features),
        np.array(labels, float),
        np.array(known, bool),
        np.array(answers if any(answers) else labels, float),
        evidence,
        np.array(gold),
        source,
        form,
    )


def gather_examples(
    model: PrunerModel, sources: Sequence[Source], *, hold_out: float, seed: int, forms: Sequence[str] = ()
) -> list[Example]:
    """Examples from the held-out questions of every file, at most `limit` of each, times `repeat` variations.

    forms: see `contexts`.
    """
    examples: list[Example] = []
    for source in sources:
        rng = random.Random(source.key(seed))
        everything = list(read_questions(source.path))
        questions = [question for question in everything if held_out(question, hold_out)]
        chosen = rng.sample(questions, min(source.limit or len(questions), len(questions)))
        library, before = Library.of(everything), len(examples)
        for _ in range(source.repeat):
            for form, pairs in contexts(chosen, library, rng, forms=forms):
                if pairs and (one := example(pairs, model, Path(source.path).name.split(".")[0], form)):
                    examples.append(one)
        print(f"{source.path}: {len(examples) - before} contexts", flush=True)
    return examples
