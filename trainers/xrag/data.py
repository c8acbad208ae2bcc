"""Training items of the two stages: prompts with a place for soft tokens, and the tokens that shall follow."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ctxprune.data.questions import Question, read_jsonl
from ctxprune.errors import InputError
from ctxprune.files import batched
from ctxprune.generators.soft_prompt import PARAPHRASES, paraphrase_ids, token_ids
from ctxprune.models.causal import PromptEncoder
from ctxprune.models.sentence_encoders import Embedder, Vectors
from ctxprune.prompt import render_prompt
from ctxprune.text import split_sentences
from ctxprune.tokens import default_counter
from ctxprune.trainers.shared.corpora import Source, read_texts
from ctxprune.types import Context, Document, SoftTokens
from ctxprune.vectors import VectorStore, shard_text
from ctxprune.vectors.files import MANIFEST

T = TypeVar("T")

#: Shorter pieces are left out: a heading or the stump of a cut sentence teaches nothing about its vector.
MIN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question whose answer stands in the document."""

    question: str
    document: str
    answer: str


def read_passages(sources: Sequence[Source], *, max_tokens: int, seed: int) -> list[str]:
    """Pieces of all texts of the files (see `corpora.read_texts`), each once; LIMIT draws texts at random, REPEAT is
    not used. max_tokens: of the bundled tokenizer, a piece."""
    texts: dict[str, None] = {}
    for source in sources:
        texts |= dict.fromkeys(_drawn(list(read_texts(source.path)), source, seed))
    found = list(dict.fromkeys(piece for text in texts for piece in pieces(text, max_tokens)))
    if not found:
        raise InputError("the --data files hold no passages; pass JSONL files with texts or documents")
    return found


def pieces(text: str, max_tokens: int) -> Iterator[str]:
    """Runs of whole sentences of at most `max_tokens` tokens of the bundled tokenizer and at least `MIN_TOKENS`.

    A sentence of more tokens than that is cut between words.
    """
    sentences = split_sentences(text)
    counts = default_counter().count([text[sentence.start : sentence.end] for sentence in sentences])
    start = end = total = 0
    for sentence, count in zip(sentences, counts, strict=True):
        if total and total + count > max_tokens:
            if total >= MIN_TOKENS:
                yield from shard_text(text[start:end], max_tokens)
            total = 0
        start, end = (start if total else sentence.start), sentence.end
        total += count
    if total >= MIN_TOKENS:
        yield from shard_text(text[start:end], max_tokens)


def read_exercises(sources: Sequence[Source], *, seed: int) -> list[Exercise]:
    """The answerable questions of the files with their first gold document and first answer; LIMIT draws at random,
    REPEAT goes over them again."""
    found: list[Exercise] = []
    for source in sources:
        exercises = [made for question in read_jsonl(Path(source.path)) if (made := _exercise(question))]
        found += _drawn(exercises, source, seed) * source.repeat
    if not found:
        raise InputError("the --data files hold no question with an answer and a gold document")
    return found


def _exercise(question: Question) -> Exercise | None:
    gold = next((item.document.text for item in question.documents if item.is_gold and item.document.text.strip()), "")
    answer = next((answer for answer in question.answers if answer.strip()), "")
    return Exercise(question.text, gold, answer.strip()) if gold and answer and question.answerable else None


def _drawn(everything: list[T], source: Source, seed: int) -> list[T]:
    if source.limit is None or source.limit >= len(everything):
        return everything
    return random.Random(f"{seed} {Path(source.path).name}").sample(everything, source.limit)


#: Stage 2: longer answers are left out; short ones are what is asked for, and what makes a batch cheap.
MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class SoftItem:
    """before, after: token ids around the soft tokens. vectors: (shards, d_retriever). target: ids to be predicted.

    bare: the prompt without any document; told: with the document's text, () in stage 1, where that is the target.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    vectors: Vectors
    target: tuple[int, ...]
    bare: tuple[int, ...]
    told: tuple[int, ...] = ()

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """All tokens that the model reads of it, for batches of like lengths."""
        return np.array([*self.before, *self.after, *self.target, *self.told])


def paraphrase_items(
    passages: Sequence[str], vectors: Sequence[Vectors], tokenizer: Any, *, max_length: int, rng: random.Random
) -> list[SoftItem]:
    """Stage 1: the passage after its own soft token, in a template drawn for each.

    max_length: tokens of a passage to predict; the vector is of all of it, what is beyond is not asked for.
    """
    templates = [paraphrase_ids(tokenizer, template) for template in PARAPHRASES]
    items = []
    for passage, found in zip(passages, vectors, strict=True):
        before, after = rng.choice(templates)
        target = token_ids(tokenizer, passage)[:max_length]
        items.append(SoftItem(before, after, found, target, bare=before + after))
    return items


def answer_items(
    exercises: Sequence[Exercise],
    vectors: Sequence[Vectors],
    tokenizer: Any,
    *,
    template: str,
    max_length: int,
    name: str,
) -> list[SoftItem]:
    """Stage 2: the answer and the end of the turn, after the question with its document's soft tokens.

    Left out: answers of more than `MAX_ANSWER_TOKENS` tokens, and documents whose text makes the teacher's prompt
    longer than `max_length` tokens. name: of the model, for messages.
    """
    encoder = PromptEncoder(tokenizer, name=name)
    items = []
    for exercise, found in zip(exercises, vectors, strict=True):
        before, after = _around(encoder, exercise, found, template)
        told = encoder.ids(render_prompt(Context.of(exercise.question, [exercise.document]), template=template))
        answer = encoder.answer_ids(exercise.answer)
        if len(answer) <= MAX_ANSWER_TOKENS and len(told) <= max_length:
            target = (*answer, tokenizer.eos_token_id)
            bare = tuple(encoder.ids(exercise.question))
            items.append(SoftItem(before, after, found, target, bare, tuple(told)))
    return items


def _around(
    encoder: PromptEncoder, exercise: Exercise, vectors: Vectors, template: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and after the soft tokens, exactly as a generator encodes such a context."""
    soft = SoftTokens(np.zeros((len(vectors), 1), np.float32), Document(exercise.document), "")
    parts = encoder.parts(Context(exercise.question, (soft,)), template=template)
    place = next(place for place, part in enumerate(parts) if not isinstance(part, list))
    before, after = (
        tuple(int(token) for part in some for token in part) for some in (parts[:place], parts[place + 1 :])
    )
    return before, after


#: Texts embedded before they are safe on disk.
CHUNK = 4000


def embedded_texts(texts: Sequence[str], embedder: Embedder, folder: Path, *, shard_tokens: int) -> list[Vectors]:
    """For each text its vectors, (shards, dimension), all taken from the store in `folder`, which grows as needed.

    Raises InputError when the store there cuts texts otherwise, CheckpointError when it is of another embedder.
    """
    store = VectorStore.open(folder, embedder=embedder) if (folder / MANIFEST).exists() else None
    if store is not None and store.shard_tokens != shard_tokens:
        raise InputError(
            f"{folder} has a vector for {store.shard_tokens} tokens of a text, this run needs one for {shard_tokens}; "
            "choose another folder with --vectors"
        )
    unique, done = dict.fromkeys(texts), 0
    for chunk in batched(unique, CHUNK):
        documents = [Document(text) for text in chunk]
        done += len(chunk)
        if store is None:
            store = VectorStore.build(folder, embedder, documents, shard_tokens=shard_tokens)
        else:
            store.append(documents)
        print(f"{done} of {len(unique)} texts embedded", flush=True)
    found = [] if store is None else store.lookup(texts)
    return [np.array(vectors) for vectors in found if vectors is not None]
