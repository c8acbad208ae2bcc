"""Training pairs as token ids with labels, and as padded batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctxprune.compressors.provence.model import LoadedPruner
from ctxprune.compressors.provence.pruner import title_sentence
from ctxprune.compressors.provence.second_look import told
from ctxprune.data import read_questions
from ctxprune.data.questions import LabelledDocument, Question, question_from_row
from ctxprune.files import is_json_lines, read_rows
from ctxprune.text import split_sentences
from ctxprune.text.normal import normalise, readable
from ctxprune.text.words import query_terms, tokenise
from ctxprune.trainers.provence.pairs import Negatives, Pair, Variation, raw_pairs, restyled, told_sentence, vary
from ctxprune.trainers.provence.taught import Floats, Lessons, Taught, key, mixed
from ctxprune.trainers.shared.corpora import Source, held_out
from ctxprune.trainers.shared.loop import IGNORE, padded


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded pair. ids, types, keep, answer, sentence: (n,); keep and answer are 1, 0 or IGNORE, sentence the
    number of the passage's sentence or IGNORE. rank: 1.0 or 0.0. targets: what each head is to say; None where that is
    the labels."""

    ids: np.ndarray[Any, Any]
    types: np.ndarray[Any, Any]
    keep: np.ndarray[Any, Any]
    answer: np.ndarray[Any, Any]
    sentence: np.ndarray[Any, Any]
    rank: float
    targets: Targets | None = None

    def aims(self) -> Targets:
        return self.targets or Targets(as_floats(self.keep), as_floats(self.answer), self.rank)


@dataclass(frozen=True, slots=True)
class Targets:
    """Probabilities. keep, answer: (n,), NaN where nothing is known."""

    keep: Floats
    answer: Floats
    rank: float


def as_floats(labels: np.ndarray[Any, Any]) -> Floats:
    """(n,) 1.0, 0.0, or NaN for IGNORE."""
    return np.where(labels == IGNORE, np.nan, labels).astype(np.float32)


def encode(
    pairs: Sequence[Pair],
    pruner: LoadedPruner,
    *,
    max_length: int,
    max_question: int = 96,
    lessons: Lessons | None = None,
    weight: float = 0.5,
) -> list[Item]:
    """Tokenise pairs, read as the library reads them, and put their character labels onto tokens. What does not fit
    `max_length` tokens is cut off: the windows of `pairs.vary` are made to fit, and at run time the library windows
    instead of cutting. lessons: what a teacher says of pairs, weight: its part in the targets (see `taught.mixed`)."""
    layout, tokenizer = pruner.layout, pruner.tokenizer
    questions = tokenizer.encode_batch([readable(pair.question) for pair in pairs], add_special_tokens=False)
    titles = tokenizer.encode_batch([readable(title_sentence(pair.title)) for pair in pairs], add_special_tokens=False)
    normal = [normalise(pair.text) for pair in pairs]
    passages = tokenizer.encode_batch([each.text for each in normal], add_special_tokens=False)
    items = []
    for pair, question, title, read, passage in zip(pairs, questions, titles, normal, passages, strict=True):
        asked = question.ids[:max_question]
        room = max_length - layout.overhead - len(asked) - len(title.ids)
        sequence = layout.build(asked, [*title.ids, *passage.ids[:room]])
        start = len(layout.prefix) + len(asked) + len(layout.middle) + len(title.ids)
        offsets = read.sources(np.array(passage.offsets[:room], dtype=np.int64).reshape(-1, 2))
        keep = np.full(len(sequence), IGNORE, dtype=np.int64)
        answer = keep.copy()
        for labels, spans in ((keep, pair.keep), (answer, pair.answers)):
            if spans is not None:
                labels[start : start + len(offsets)] = covered(offsets, spans)
        sentence = np.full(len(sequence), IGNORE, dtype=np.int64)
        ends = np.array([span.end for span in split_sentences(pair.text)], dtype=np.int64)
        sentence[start : start + len(offsets)] = np.searchsorted(ends, offsets[:, 0], side="right")
        item = Item(sequence.ids, sequence.type_ids, keep, answer, sentence, float(pair.relevant))
        lesson = lessons.get(key(pair.question, pair.title, pair.text)) if lessons else None
        if lesson is not None:
            item = replace(item, targets=_targets(item, lesson, slice(start, start + len(offsets)), offsets, weight))
        items.append(item)
    return items


def _targets(item: Item, lesson: Taught, place: slice, offsets: np.ndarray[Any, Any], weight: float) -> Targets:
    """place: where the passage's tokens stand, whose characters are `offsets`."""
    labels = item.aims()
    for labelled, values in ((labels.keep, lesson.keep), (labels.answer, lesson.answer)):
        labelled[place] = mixed(labelled[place], lesson.onto(offsets, values), weight)
    return replace(labels, rank=(1 - weight) * labels.rank + weight * lesson.rank)


def covered(offsets: np.ndarray[Any, Any], spans: Sequence[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """1 for each token, given by its (n, 2) character offsets, that overlaps a span, else 0."""
    inside = np.zeros(len(offsets), dtype=np.int64)
    for start, end in spans:
        inside |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return inside


def collate(batch: Sequence[Item], pad_id: int, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Pad to the longest: ids, types, mask, keep, answer, sentence as (batch, seq) int64, rank as (batch,) float; and
    what is learned, keep_target and answer_target as (batch, seq) float, NaN where nothing is known, rank_target."""
    aims = [item.aims() for item in batch]

    def column(name: str, value: int) -> torch.Tensor:
        return padded([getattr(item, name) for item in batch], value).to(device)

    return {
        "ids": column("ids", pad_id),
        "types": column("types", 0),
        "mask": padded([np.ones_like(item.ids) for item in batch], 0).to(device),
        "keep": column("keep", IGNORE),
        "answer": column("answer", IGNORE),
        "sentence": column("sentence", IGNORE),
        "rank": torch.tensor([item.rank for item in batch], device=device),
        "keep_target": padded([aim.keep for aim in aims], np.nan, np.float32).to(device),
        "answer_target": padded([aim.answer for aim in aims], np.nan, np.float32).to(device),
        "rank_target": torch.tensor([aim.rank for aim in aims], dtype=torch.float32, device=device),
    }


@dataclass(frozen=True, slots=True)
class PairFamily:
    """pairs, and the question that each belongs to: pairs of one number are passages of one question.

    twins: (answerable, unanswerable) numbers of questions on one passage.
    """

    pairs: tuple[Pair, ...]
    questions: tuple[int, ...]
    twins: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """A `PairFamily` as token ids."""

    items: tuple[Item, ...]
    questions: tuple[int, ...]
    twins: tuple[tuple[int, int], ...] = ()

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """The longest member's: batches are made of families of similar length."""
        return max((item.ids for item in self.items), key=len)

    @property
    def tokens(self) -> int:
        """With padding to the longest."""
        return len(self.items) * len(self.ids)


def read_families(
    sources: Sequence[Source], *, seed: int, variation: Variation, hold_out: float, per_passage: int = 0
) -> list[PairFamily]:
    """The families of all sources, in file order.

    per_passage: at most so many questions on one gold passage (0: no limit), over all sources; where a passage comes
    back under many questions a pruner learns to keep everything (`repeats` tells how often that is).
    """
    families: list[PairFamily] = []
    used: Counter[int] = Counter()
    for source in sources:
        rng = random.Random(source.key(seed))
        pool = _units(Path(source.path))
        if not pool:
            continue
        negatives = Negatives(question for unit in pool for question in unit)
        pool = [unit for unit in pool if not held_out(unit[0], hold_out)]
        rng.shuffle(pool)
        chosen = list(_capped(pool, used, per_passage, source.limit or len(pool)))
        before = len(families)
        for _ in range(source.repeat):
            families += [_family(unit, rng, variation, negatives) for unit in chosen]
        families = [family for family in families if family.pairs]
        print(f"{source.path}: {len(chosen)} questions, {len(families) - before} families", flush=True)
    return families


def repeats(families: Sequence[PairFamily]) -> float:
    """1 - distinct / all of the passages, as they are after cutting."""
    texts = [pair.text for family in families for pair in {pair.text: pair for pair in family.pairs}.values()]
    return 1 - len(set(texts)) / max(len(texts), 1)


def encode_families(
    families: Sequence[PairFamily],
    pruner: LoadedPruner,
    *,
    max_length: int,
    lessons: Lessons | None = None,
    weight: float = 0.5,
) -> list[Family]:
    """See `encode`."""
    pairs = [pair for family in families for pair in family.pairs]
    items = iter(encode(pairs, pruner, max_length=max_length, lessons=lessons, weight=weight))
    return [Family(tuple(next(items) for _ in family.pairs), family.questions, family.twins) for family in families]


def family_batches(families: Sequence[Family], tokens: int, rng: random.Random) -> list[list[Family]]:
    """Shuffled batches of families of similar lengths, each of about `tokens` padded tokens."""
    order = list(families)
    rng.shuffle(order)
    made: list[list[Family]] = []
    for begin in range(0, len(order), 2000):
        batch: list[Family] = []
        size = 0
        for family in sorted(order[begin : begin + 2000], key=lambda one: len(one.ids)):
            if batch and size + family.tokens > tokens:
                made.append(batch)
                batch, size = [], 0
            batch.append(family)
            size += family.tokens
        made.append(batch)
    rng.shuffle(made)
    return made


def numbered(families: Sequence[Family]) -> tuple[list[int], list[tuple[int, int]]]:
    """(the question of each member, numbered over the batch; the pairs of twins among these numbers)."""
    first = np.cumsum([0, *(max(family.questions) + 1 for family in families)]).tolist()[:-1]
    starts = list(zip(first, families, strict=True))
    questions = [start + question for start, family in starts for question in family.questions]
    return questions, [(start + a, start + b) for start, family in starts for a, b in family.twins]


def _units(path: Path) -> list[tuple[Question, ...]]:
    """One question, or the two of a pair of twins: the answerable one first."""
    if not is_json_lines(path.name):
        return [(question,) for question in read_questions(path)]
    rows = [(row, question_from_row(row, default_id=str(number))) for number, row in read_rows(path)]
    partner = {str(row["pair"]["id"]): question for row, question in rows if row.get("pair") and question.answerable}
    units: list[tuple[Question, ...]] = []
    for row, question in rows:
        pair = row.get("pair")
        if not pair:
            units.append((question,))
        elif not question.answerable:  # its twin's row, if there is one, comes along here
            twin = partner.get(question.id) or answerable_twin(question, pair)
            if twin:
                units.append((twin, _nearest_first(question, row.get("near_passage"))))
    return units


def answerable_twin(question: Question, pair: dict[str, Any]) -> Question | None:
    """The twin of a question with one passage: of the places of its first answer, the one whose sentence shares most
    words with the twin. None when the answer is not there."""
    document, answers = question.documents[0].document, [str(answer) for answer in pair["answers"]]
    asked = set(query_terms(str(pair["question"])))
    best: tuple[int, tuple[int, int], tuple[int, int]] | None = None
    for sentence in split_sentences(document.text):
        place = document.text.find(answers[0], sentence.start, sentence.end) if answers else -1
        shared = len(asked & set(tokenise(document.text[sentence.start : sentence.end])))
        if place >= 0 and (best is None or shared > best[0]):
            best = shared, (place, place + len(answers[0])), (sentence.start, sentence.end)
    if best is None:
        return None
    gold = LabelledDocument(document, True, (best[1],), (best[2],))
    return Question(str(pair["id"]), str(pair["question"]), tuple(answers), True, (gold,))


def _nearest_first(question: Question, near: Any) -> Question:
    """The passage that misleads, and one of the others."""
    ordered = sorted(question.documents, key=lambda item: item.document.id != near)
    return replace(question, documents=tuple(ordered[:2]))


def _capped(
    pool: Sequence[tuple[Question, ...]], used: Counter[int], per_passage: int, limit: int
) -> Iterator[tuple[Question, ...]]:
    for unit in pool:
        key = hash(next((item.document.text for item in unit[0].documents if item.is_gold), unit[0].text))
        if per_passage and used[key] >= per_passage:
            continue
        if limit <= 0:
            return
        limit -= 1
        used[key] += 1
        yield unit


def _family(unit: tuple[Question, ...], rng: random.Random, variation: Variation, negatives: Negatives) -> PairFamily:
    """The unit's pairs, varied: one style of question for all, and twins on the very same cut of their passage."""
    style = rng.random()
    tail = told_sentence(unit[0], rng) if variation.told and len(unit) == 1 and rng.random() < variation.told else ""
    alike = replace(variation, plain_question=0, keywords=0)
    pairs: list[Pair] = []
    numbers: list[int] = []
    for pair in raw_pairs(unit[0], rng, variation, negatives):
        asked = told(restyled(pair.question, style, variation), tail)
        varied = vary(replace(pair, question=asked), rng, alike)
        pairs.append(varied)
        same = pair.question == unit[0].text and not pair.broken
        numbers.append(0 if same else max(numbers, default=0) + 1)
    if len(unit) == 1:
        return PairFamily(tuple(pairs), tuple(numbers))
    question = restyled(unit[1].text, style, variation)
    gold = next((pair for pair in pairs if pair.relevant), None)
    others = [item.document for item in unit[1].documents[1:]]
    if gold is None:
        return PairFamily(tuple(pairs), tuple(numbers))
    number = max(numbers) + 1
    pairs.append(replace(gold, question=question, relevant=False, keep=(), answers=()))
    pairs += [vary(Pair(question, other.text, False, (), (), other.title), rng, alike) for other in others]
    numbers += [number] * (1 + len(others))
    return PairFamily(tuple(pairs), tuple(numbers), ((0, number),))
