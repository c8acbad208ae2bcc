"""Which candidate sentences a selector learns to prefer, by what they do for the generator or by gold labels, and the
file that holds them.

RECOMP (Xu et al., ICLR 2024, section 3.1): the positive is the sentence with the best end-task result, the negatives
are similar sentences with a worse one, and questions without negatives are dropped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, cast

import numpy as np

from ctxprune.compressors.recomp.vectors import titled
from ctxprune.data.questions import LabelledDocument, Offsets, Question, locatable, locate_answers
from ctxprune.errors import InputError
from ctxprune.files import read_rows
from ctxprune.models.sentence_encoders import Embedder
from ctxprune.text import split_sentences
from ctxprune.text.words import bm25_scores

Unit = Literal["sentence", "passage"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` is the slice start:end of the text of the question's document number `document`.

    gold: whether it is known to answer or support; None when the document has no sentence labels.
    """

    document: int
    document_id: str
    title: str
    start: int
    end: int
    text: str
    gold: bool | None

    @property
    def titled(self) -> str:
        """As the encoder and the generator read it."""
        return titled(self.title, self.text)


def candidates(question: Question, unit: Unit = "sentence") -> list[Candidate]:
    """Every sentence, or passage, of the question's documents, in order."""
    return [
        candidate
        for place, labelled in enumerate(question.documents)
        for candidate in (_sentences(place, labelled) if unit == "sentence" else _passage(place, labelled))
    ]


def _sentences(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document, relevant = labelled.document, labelled.relevant
    found = []
    for span in split_sentences(document.text):
        gold = None if relevant is None else is_relevant((span.start, span.end), relevant)
        text = document.text[span.start : span.end]
        found.append(Candidate(place, document.id, document.title, span.start, span.end, text, gold))
    return found


def _passage(place: int, labelled: LabelledDocument) -> list[Candidate]:
    document = labelled.document
    if not document.text.strip():
        return []
    whole = Candidate(place, document.id, document.title, 0, len(document.text), document.text, labelled.is_gold)
    return [whole]


def is_relevant(unit: tuple[int, int], relevant: Offsets) -> bool:
    """Whether `unit` shares with a relevant span more than half of the shorter of the two: splitters differ."""
    for start, end in relevant:
        shared = min(unit[1], end) - max(unit[0], start)
        if 2 * shared > min(unit[1] - unit[0], end - start):
            return True
    return False


def most_similar(question: str, pool: Sequence[Candidate], embedder: Embedder | None) -> list[int]:
    """Places in `pool`, the most similar to the question first: by BM25 and by the embedder in turn, or BM25 alone."""
    if not pool:
        return []
    texts = [each.titled for each in pool]
    orders = [np.argsort(-bm25_scores(question, texts), kind="stable")]
    if embedder is not None:
        vectors = embedder.embed([question, *texts])
        orders.append(np.argsort(-(vectors[1:] @ vectors[0]), kind="stable"))
    in_turn = np.stack(orders, axis=1).ravel()
    return list(dict.fromkeys(in_turn.tolist()))


def shortlist(question: Question, *, size: int, unit: Unit, embedder: Embedder | None) -> list[Candidate]:
    """At most `size` candidates of distinct texts: the gold ones, then the most similar to the question."""
    distinct: dict[str, Candidate] = {}
    for each in candidates(question, unit):
        known = distinct.get(each.titled)
        if known is None or (each.gold and not known.gold):
            distinct[each.titled] = each
    pool = list(distinct.values())
    order = most_similar(question.text, pool, embedder)
    ranked = [pool[place] for place in order]
    gold_first = sorted(ranked, key=lambda candidate: not candidate.gold)
    return gold_first[:size]


@dataclass(frozen=True, slots=True)
class Choice:
    """Places among a question's candidates; both sides are never empty."""

    positives: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question for contrastive training: texts with their titles, as the encoder reads them."""

    question: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


#: Why a question gives nothing to learn.
DROPPED = ("no positive", "no negative")


def by_worth(
    worth: Sequence[float], closed_book: float, gold: Sequence[bool | None], *, margin: float, negatives: int
) -> Choice | str:
    """worth: what each candidate makes of the answer, the most similar first; higher is better. Or one of `DROPPED`.

    The best is the positive if it beats `closed_book` by more than `margin`; the first `negatives` of those that are
    worse than it by more than `margin` are the negatives, without the gold ones: the generator may misjudge them.
    """
    best = max(range(len(worth)), key=worth.__getitem__, default=None)
    if best is None or worth[best] - closed_book <= margin:
        return DROPPED[0]
    worse = [place for place, value in enumerate(worth) if worth[best] - value > margin and not gold[place]]
    return Choice((best,), tuple(worse[:negatives])) if worse else DROPPED[1]


def by_gold(question: Question, shown: Sequence[Candidate], *, negatives: int) -> Choice | str:
    """Gold candidates are positives; others without any of the answers are negatives, in order. Or one of `DROPPED`."""
    positives = tuple(place for place, each in enumerate(shown) if each.gold)
    if not positives:
        return DROPPED[0]
    sought = locatable(question.answers)
    others = [place for place, each in enumerate(shown) if each.gold is False and not locate_answers(each.text, sought)]
    return Choice(positives, tuple(others[:negatives])) if others else DROPPED[1]


@dataclass(slots=True)
class Report:
    """Counts of a labelling run. agree: questions with gold candidates whose chosen positive is one of them."""

    questions: int = 0
    kept: int = 0
    with_gold: int = 0
    agree: int = 0
    no_answer: int = 0
    no_positive: int = 0
    no_negative: int = 0

    def add(self, choice: Choice | str, shown: Sequence[Candidate]) -> None:
        self.questions += 1
        if isinstance(choice, str):
            self.no_positive += choice == DROPPED[0]
            self.no_negative += choice == DROPPED[1]
            return
        self.kept += 1
        self.with_gold += any(each.gold for each in shown)
        self.agree += bool(shown[choice.positives[0]].gold)

    def to_dict(self) -> dict[str, int | float | None]:
        counts = {name: getattr(self, name) for name in self.__slots__}
        return counts | {"agreement": self.agree / self.with_gold if self.with_gold else None}


def label_row(
    question: Question,
    shown: Sequence[Candidate],
    choice: Choice,
    *,
    logliks: Sequence[float] | None = None,
    closed_book: float | None = None,
) -> dict[str, object]:
    """One line of a label file. logliks: of the answer after each candidate in nats; None for gold labels."""
    rows = [
        {
            "text": each.text,
            "title": each.title,
            "document": each.document_id,
            "start": each.start,
            "end": each.end,
            "gold": each.gold,
            "loglik": None if logliks is None else round(logliks[place], 4),
        }
        for place, each in enumerate(shown)
    ]
    return {
        "id": question.id,
        "question": question.text,
        "closed_book": None if closed_book is None else round(closed_book, 4),
        "positives": list(choice.positives),
        "negatives": list(choice.negatives),
        "candidates": rows,
    }


def write_labels(out: Path, rows: Iterable[dict[str, object]]) -> None:
    """The file (.gz too) appears when all is done."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    with open_new(part, gzipped=out.suffix == ".gz") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(out)


def open_new(path: Path, *, gzipped: bool) -> TextIO:
    return cast(TextIO, gzip.open(path, "wt", encoding="utf-8")) if gzipped else path.open("w", encoding="utf-8")


def read_labels(path: str | Path) -> Iterator[Labelled]:
    """Raises InputError, naming the line, for what `label_row` did not make."""
    for number, row in read_rows(Path(path)):
        try:
            texts = [titled(each["title"], each["text"]) for each in row["candidates"]]
            positives, negatives = (tuple(texts[place] for place in row[side]) for side in ("positives", "negatives"))
            labelled = Labelled(str(row["question"]), positives, negatives)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"{path}:{number}: no labels for a sentence selector ({type(error).__name__}: {error}); "
                "make them with python -m ctxprune.trainers.recomp.labels"
            ) from None
        if not positives or not negatives:
            raise InputError(f"{path}:{number}: a question needs a positive and a negative; label the file again")
        yield labelled
