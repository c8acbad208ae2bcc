"""What a run evaluates: sets of files, of the same questions with ever more text around the answer, of manuals.

The ladder goes from the answer's sentence alone to five whole articles.
"""

from __future__ import annotations

import importlib
import json
import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ctxprune
from ctxprune.data.corpus import read_corpus
from ctxprune.data.questions import LabelledDocument, Question, answer_sentences, read_jsonl
from ctxprune.errors import InputError
from ctxprune.eval.metrics import Offsets, answer_places
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.eval.run.retrieval import UNCUT, Pool, shuffled
from ctxprune.files import read_rows
from ctxprune.text import split_sentences
from ctxprune.types import Compressor, Document

SHORT_RUNGS = ("1 sentence", "3 sentences", "1 paragraph", "10 paragraphs")
LONG_RUNGS = ("whole article", "5 articles")

_NUMBER_AT_THE_END = re.compile(r"^(.*?)[:#/_-](\d+)$", re.DOTALL)
_BETWEEN = "\n\n"
#: Chunks that a passage is one of, where nothing else is said.
POOL_SIZE = 10


@dataclass(frozen=True, slots=True)
class Article:
    """Paragraphs of one article as one text. places: where each paragraph begins in it, by the paragraph's text."""

    document: Document
    places: dict[str, int]

    @classmethod
    def of(cls, name: str, paragraphs: Sequence[Document]) -> Article:
        places, text = {}, ""
        for paragraph in paragraphs:
            text += _BETWEEN if text else ""
            places[paragraph.text] = len(text)
            text += paragraph.text
        return cls(Document(text, id=name, title=paragraphs[0].title), places)


class Ladder:
    """Questions of one paragraph each, and the articles that their paragraphs make up.

    Suited are answerable questions with one gold paragraph, a marked answer and sentence labels, for which enough other
    paragraphs lack the answer. What counts as the answer is the same on every rung: its places in the paragraph. So a
    string that happens to stand elsewhere in a long article does not pass for it; neither does a sentence elsewhere
    that answers as well, which makes precision and calibration on the long rungs somewhat too low.
    Raises InputError when no question is suited.
    """

    def __init__(self, questions: Sequence[Question], *, limit: int | None, long_limit: int, seed: int = 0) -> None:
        self.seed = seed
        self.articles = _articles(questions)
        self.of_paragraph = {text: name for name, article in self.articles.items() for text in article.places}
        paragraphs = Pool([q.documents[0].document for q in questions if len(q.documents) == 1], size=UNCUT)
        suited = evenly_spaced([question for question in questions if _is_suited(question)], limit)
        self.among_ten = {question.id: question for question in paragraphs.hide(suited, count=10, seed=seed)}
        self.questions = [question for question in suited if question.id in self.among_ten]
        if not self.questions:
            raise InputError(
                "no question for a ladder; it needs answerable questions with one gold document, answer spans and "
                "relevant sentences, and ten paragraphs or more in the file"
            )
        self.long = evenly_spaced(self.questions, long_limit)

    def rungs(self) -> Iterator[tuple[str, list[Question]]]:
        """(name, questions) from the shortest rung to the longest."""
        yield SHORT_RUNGS[0], [around_answer(question, 0) for question in self.questions]
        yield SHORT_RUNGS[1], [around_answer(question, 1) for question in self.questions]
        yield SHORT_RUNGS[2], [_marked(question) for question in self.questions]
        yield SHORT_RUNGS[3], [_hidden(_marked(question), self.among_ten[question.id]) for question in self.questions]
        yield LONG_RUNGS[0], [self._in_article(question) for question in self.long]
        if len(self.articles) >= 5:
            yield LONG_RUNGS[1], list(self._among_articles())

    def _in_article(self, question: Question) -> Question:
        marked = _marked(question)
        (paragraph,) = marked.documents
        article = self.articles[self.of_paragraph[paragraph.document.text]]
        shift = article.places[paragraph.document.text]
        labelled = LabelledDocument(
            article.document,
            is_gold=True,
            answer_spans=tuple((start + shift, end + shift) for start, end in paragraph.answer_spans),
            relevant=tuple((start + shift, end + shift) for start, end in paragraph.relevant or ()),
        )
        return replace(marked, documents=(labelled,))

    def _among_articles(self) -> Iterator[Question]:
        nearest = Pool([article.document for article in self.articles.values()], size=UNCUT)
        for question, ranked in zip(self.long, nearest.nearest(self.long, len(self.articles)), strict=True):
            inside = self._in_article(question)
            own = inside.documents[0].document.id
            others = [document for document in ranked if _without_part(document.id) != own][:4]
            documents = [*inside.documents, *(LabelledDocument(document, relevant=()) for document in others)]
            yield replace(inside, documents=shuffled(documents, question.id, self.seed))


def _articles(questions: Sequence[Question]) -> dict[str, Article]:
    """Articles by name: paragraphs of one title, or whose ids differ in their last number only, in its order."""
    groups: dict[str, dict[str, tuple[int, Document]]] = {}
    for question in questions:
        for document in (labelled.document for labelled in question.documents):
            numbered = _NUMBER_AT_THE_END.match(document.id)
            name = document.title or (numbered[1] if numbered else document.id)
            group = groups.setdefault(name, {})
            group.setdefault(document.text, (int(numbered[2]) if numbered else len(group), document))
    return {
        name: Article.of(name, [document for _, document in sorted(group.values(), key=lambda pair: pair[0])])
        for name, group in groups.items()
    }


def _is_suited(question: Question) -> bool:
    if not question.answerable or len(question.documents) != 1:
        return False
    (labelled,) = question.documents
    return labelled.is_gold and bool(labelled.answer_spans) and bool(labelled.relevant)


def _marked(question: Question) -> Question:
    """The question with every place of an answer in its paragraph as a span, and no answer strings to look for."""
    (labelled,) = question.documents
    spans = {*labelled.answer_spans, *answer_places(labelled.document.text, question.answers)}
    return replace(question, answers=(), documents=(replace(labelled, answer_spans=tuple(sorted(spans))),))


def around_answer(question: Question, neighbours: int) -> Question:
    """The sentence of the first answer span (several where it crosses an edge), with `neighbours` on each side."""
    (labelled,) = question.documents
    text, span = labelled.document.text, labelled.answer_spans[0]
    sentences = split_sentences(text)
    holding = [at for at, unit in enumerate(sentences) if unit.start < span[1] and span[0] < unit.end]
    first, last = max(holding[0] - neighbours, 0), min(holding[-1] + neighbours, len(sentences) - 1)
    window = sentences[first].start, sentences[last].end
    (marked,) = _marked(question).documents
    cut = LabelledDocument(
        replace(labelled.document, text=text[slice(*window)]),
        is_gold=True,
        answer_spans=_inside(marked.answer_spans, window),
        relevant=_inside(labelled.relevant or (), window, clip=True),
    )
    return replace(question, answers=(), documents=(cut,))


def _inside(spans: Sequence[Offsets], window: Offsets, *, clip: bool = False) -> tuple[Offsets, ...]:
    """Spans within the window, moved to it; with `clip` also what is left of those that cross its edge."""
    start, end = window
    clipped = [(max(a, start), min(b, end)) for a, b in spans] if clip else spans
    return tuple((a - start, b - start) for a, b in clipped if start <= a < b <= end)


def _hidden(marked: Question, among_ten: Question) -> Question:
    """The ten paragraphs of the pool, the gold one with its marked answers."""
    (paragraph,) = marked.documents
    documents = [paragraph if labelled.is_gold else labelled for labelled in among_ten.documents]
    return replace(marked, documents=tuple(documents))


def _without_part(document_id: str) -> str:
    return document_id.rpartition("#")[0]


Sets = Iterator[tuple[str, list[Question]]]


def set_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def question_sets(
    paths: Sequence[Path],
    corpus: Path | None,
    *,
    limit: int | None,
    seed: int,
    by: str | None = None,
    pool_sizes: Sequence[int] = (POOL_SIZE,),
) -> Sets:
    """(name, questions) of each file; with a corpus also "<name>+pool" for files of one passage a question.

    by: a field of the rows; a file that has it makes one set a value, "<name>: <value>", of `limit` questions each.
    pool_sizes: among how many chunks a passage is hidden; "<name>+pool100" for 100.
    """
    extra = list(read_corpus(corpus)) if corpus else []
    for path in paths:
        questions = list(read_jsonl(path))
        groups = _grouped(path, questions, by) if by else {}
        for value, group in groups.items():
            yield f"{set_name(path)}: {value}", evenly_spaced(group, limit)
        if not groups:
            yield set_name(path), evenly_spaced(questions, limit)
        if corpus and all(len(question.documents) == 1 for question in questions):
            pool = Pool([labelled.document for question in questions for labelled in question.documents] + extra)
            for size in pool_sizes:
                if hidden := list(pool.hide(evenly_spaced(questions, limit), count=size, seed=seed)):
                    yield f"{set_name(path)}+pool{'' if size == POOL_SIZE else size}", hidden


def _grouped(path: Path, questions: Sequence[Question], by: str) -> dict[str, list[Question]]:
    """Questions by a field of their rows, in order of its values; {} for a file in which no row has it."""
    values = [row.get(by) for _, row in read_rows(path)]
    if all(value is None for value in values):
        return {}
    groups: dict[str, list[Question]] = {}
    for value, question in zip(values, questions, strict=True):
        groups.setdefault("none" if value is None else str(value), []).append(question)
    return dict(sorted(groups.items()))


def ladder_sets(path: Path, *, limit: int | None, long_limit: int, seed: int) -> Sets:
    """(name, questions) of each rung, see `ladder.Ladder`. Raises InputError for a file without a suited question."""
    try:
        ladder = Ladder(list(read_jsonl(path)), limit=limit, long_limit=long_limit, seed=seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for number, (name, questions) in enumerate(ladder.rungs(), 1):
        yield f"{set_name(path)} rung {number}: {name}", questions


#: (question, answer) pairs by module, on reference texts that every Python carries: what `pydoc` prints of modules of
#: its standard library. Nothing of them is shipped or fetched; an answer is a literal string that must stand in them.
QUESTIONS: Mapping[str, Sequence[tuple[str, str]]] = json.loads(
    Path(__file__).with_name("manuals.json").read_text(encoding="utf-8")
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def manual_questions(
    questions: Mapping[str, Sequence[tuple[str, str]]] = QUESTIONS,
) -> tuple[list[Question], list[str]]:
    """The questions that this Python's texts answer, one document of 500 to 10,000 words each, and a line for each that
    they do not: versions of Python differ."""
    found: list[Question] = []
    missing: list[str] = []
    for module, pairs in questions.items():
        document = Document(manual(module), id=f"pydoc:{module}", title=module)
        for number, (text, answer) in enumerate(pairs):
            spans = tuple((match.start(), match.end()) for match in re.finditer(re.escape(answer), document.text))
            if not spans:
                missing.append(f"{module}: {text} ({answer!r} does not stand in this Python's text)")
                continue
            relevant = answer_sentences(document.text, spans)
            labelled = LabelledDocument(document, is_gold=True, answer_spans=spans, relevant=relevant)
            found.append(Question(f"{module}:{number}", text, (answer,), documents=(labelled,)))
    return found, missing


def manual(module: str) -> str:
    """What `pydoc` prints of a module, without the addresses and the file name that change from run to run."""
    text = pydoc.plain(pydoc.render_doc(importlib.import_module(module)))
    return _ADDRESS.sub("", text).partition("\nFILE\n")[0].rstrip() + "\n"


def load_compressor(name: str) -> Compressor:
    """A compressor by name, "NAME:MODEL" with that model, such as an export's folder, or "NAME+OPTION=VALUE" with that
    option, a rule of the policy among them. A value is JSON, or else a word.

    Raises UnknownNameError for a name that nobody knows.
    """
    if "+" in name and not Path(name).exists():
        family, *options = name.split("+")
        given = {key: _value(text) for key, _, text in (option.partition("=") for option in options)}
        rules = given.keys() & {each.name for each in fields(ctxprune.Policy)}
        if rules:
            given["policy"] = ctxprune.Policy(**{rule: given.pop(rule) for rule in rules})
        return ctxprune.load(family, **given)
    family, colon, model = name.partition(":")
    if not colon or Path(name).exists():
        return ctxprune.load(name)
    return ctxprune.load(family, model=model)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
