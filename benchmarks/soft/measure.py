"""What soft tokens are tried on: held-out passages, and held-out questions with the document that answers them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.soft.arms import Asked, Row, TextTokens, arms
from ctxprune.compressors.xrag.bridge import Bridge, BridgeConfig, Vectors
from ctxprune.data.questions import Question, read_jsonl
from ctxprune.errors import InputError
from ctxprune.eval.metrics import answer_in_context, substring_match
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.eval.run.folder import key, to_json, write_whole
from ctxprune.eval.run.retrieval import UNCUT, Pool
from ctxprune.eval.run.runner import progress
from ctxprune.files import batched
from ctxprune.generators import LocalGenerator, Reply
from ctxprune.generators.soft_prompt import PARAPHRASES, answers_nll, paraphrase_ids, token_ids
from ctxprune.models.causal import Parts, PromptEncoder, check_soft_tokens, load_causal_lm
from ctxprune.runtime.device import best_device
from ctxprune.tokens import default_counter
from ctxprune.types import Context, Document, SoftTokens
from ctxprune.vectors import shard_text

#: Shorter documents are left out of the passages: too little is said to be told apart.
MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class AskedSet:
    """The questions taken from one file. left_out: of the file's, for want of an answer or a document, or as the
    document is too long."""

    name: str
    asked: tuple[Asked, ...]
    left_out: int


def read_passages(path: Path, *, tokens: int, limit: int, seed: int) -> list[str]:
    """The beginnings of at most `limit` of the file's documents, drawn at random, each once.

    tokens: of the bundled tokenizer, at most, in each. Raises InputError when fewer than two are found.
    """
    if limit < 2:
        raise InputError(f"the limit of passages must be at least 2, as one is another's control, got {limit}")
    texts = dict.fromkeys(item.document.text for question in read_jsonl(path) for item in question.documents)
    whole = list(texts)
    counts = default_counter().count(whole)
    long_enough = [text for text, count in zip(whole, counts, strict=True) if count >= MIN_TOKENS]
    beginnings = list(dict.fromkeys(shard_text(text, tokens)[0] for text in long_enough))
    if len(beginnings) < 2:
        raise InputError(f"{path} holds {len(beginnings)} documents of {MIN_TOKENS} tokens or more, 2 are needed")
    return random.Random(seed).sample(beginnings, min(limit, len(beginnings)))


def read_asked(path: Path, *, limit: int, max_tokens: int, among: int | None = None, seed: int = 0) -> AskedSet:
    """At most `limit` answerable questions from all over the file, each with its gold document, or with all that were
    retrieved where there are others. max_tokens: of the bundled tokenizer, of the gold document.

    among: the gold document is hidden among the file's BM25-nearest others that lack the answer, so many in all; left
    out are then questions with several documents, or no label where the answer stands. seed: of their order.
    Raises InputError when fewer than two documents are left, as one is another's control.
    """
    if limit < 1:
        raise InputError(f"the limit must be at least 1 question a file, got {limit}")
    if among is not None and among < 2:
        raise InputError(f"a document is hidden among 2 or more, itself included, got {among}")
    questions = list(read_jsonl(path))
    fitting = [question for question in questions if question.answerable and any(map(str.strip, question.answers))]
    documents = [_document(question) for question in fitting]
    counts = default_counter().count(documents)
    short = [
        question
        for question, document, count in zip(fitting, documents, counts, strict=True)
        if document and count <= max_tokens
    ]
    if among is not None:
        pool = Pool([item.document for question in questions for item in question.documents], size=UNCUT)
        short = list(pool.hide(short, count=among, seed=seed))
    taken = tuple(_asked(question) for question in evenly_spaced(short, limit))
    if (distinct := len({document for asked in taken for document in asked.documents})) < 2:
        raise InputError(
            f"{path} gives questions on {distinct} documents of at most {max_tokens} tokens, at least 2 are needed; "
            "take more questions or longer documents"
        )
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return AskedSet(name if among is None else f"{name}-among-{among}", taken, len(questions) - len(short))


def _asked(question: Question) -> Asked:
    answers = tuple(answer.strip() for answer in question.answers if answer.strip())
    return Asked(question.id, question.text, answers, _documents(question))


def _documents(question: Question) -> tuple[str, ...]:
    """All that were retrieved, where there are others than gold ones; else the one that holds the answer."""
    if all(item.is_gold for item in question.documents):
        return (_document(question),)
    return tuple(dict.fromkeys(item.document.text for item in question.documents if item.document.text.strip()))


def _document(question: Question) -> str:
    """The first gold document that holds an accepted answer, else the first gold one; "" without any."""
    gold = [item.document.text for item in question.documents if item.is_gold and item.document.text.strip()]
    return max(gold, key=lambda text: answer_in_context(text, question.answers), default="")


class SoftLikelihood:
    """Loads tokenizer and model at once. known_as: the name that the bridge calls this model by, if it is another.

    Raises CheckpointError when the model cannot be loaded, InputError when the bridge is for another model or width.
    """

    def __init__(
        self, path_or_id: str, bridge: BridgeConfig, *, known_as: str | None = None, dtype: str | None = None
    ) -> None:
        self._tokenizer, self._model = load_causal_lm(path_or_id, device=best_device(), dtype=dtype, gguf_file=None)
        self._encoder = PromptEncoder(self._tokenizer, name=path_or_id)
        self._template = bridge.template
        names = [path_or_id] if known_as is None else [path_or_id, known_as]
        soft = SoftTokens(np.zeros((1, bridge.d_model), np.float32), Document(""), bridge.generator)
        width = self._model.get_input_embeddings().embedding_dim
        check_soft_tokens([Context("", (soft,))], names=names, width=width)

    def question_parts(self, prompt: str | Context) -> Parts:
        """A prompt as the model reads it: a question alone, or a context in the bridge's template."""
        if isinstance(prompt, str):
            return [self._encoder.ids(prompt)]
        return self._encoder.parts(prompt, template=self._template)

    def paraphrase_parts(self, number: int, tokens: Vectors | None) -> Parts:
        """What a passage follows in the paraphrase prompt of this number: its soft tokens, (n, d_model), or none."""
        before, after = paraphrase_ids(self._tokenizer, PARAPHRASES[number % len(PARAPHRASES)])
        if tokens is None:
            return [[*before, *after]]
        return [[*before], torch.from_numpy(tokens), [*after]]

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that goes on."""
        return token_ids(self._tokenizer, text)

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer as it follows a prompt, without an end."""
        return tuple(self._encoder.answer_ids(answer))

    def nats(self, prompts: Sequence[Mapping[str, Parts]], answers: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        """-ln P(answer | prompt), summed over the answer's tokens, of each prompt by its name; one answer a mapping."""
        flat = [(parts, answer) for named, answer in zip(prompts, answers, strict=True) for parts in named.values()]
        found = iter(answers_nll(self._model, [parts for parts, _ in flat], [answer for _, answer in flat]).tolist())
        return [{name: next(found) for name in named} for named in prompts]


T = TypeVar("T")


def measured_rows(
    folder: Path,
    part: str,
    identity: Sequence[Any],
    items: Sequence[T],
    measure: Callable[[list[T]], list[Row]],
    *,
    chunk: int = 64,
) -> list[Row]:
    """One row an item, in their order; items whose rows are in the folder already are not measured again.

    identity: JSON values of everything that decides a row; it names the file, so that other settings get another one.
    measure: rows of at most `chunk` items, which are on disk before the next are asked for. Raises InputError for a
    file that cannot be read or written.
    """
    path = folder / f"{part}-{key(part, *identity)[:12]}.jsonl"
    rows = _read(path)
    if len(rows) >= len(items):
        return rows[: len(items)]
    with progress(part, len(items)) as advance:
        advance(len(rows))
        for some in batched(items[len(rows) :], chunk):
            made = measure(some)
            _append(path, made)
            rows += made
            advance(len(made))
    return rows


def _read(path: Path) -> list[Row]:
    """The whole lines of the file; what an interrupted write left behind them is cut off."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_whole(path, whole)
        return [json.loads(line) for line in whole.split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it to measure its rows again") from None


def _append(path: Path, rows: Sequence[Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(to_json(row) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; free some space and run again, the rows are kept") from None


def bridge_digest(bridge: Bridge) -> str:
    """Of everything in a bridge, so that one trained on in the same folder is not taken for the old one."""
    arrays = [value.numpy() for value in bridge.projector.state_dict().values()]
    arrays += [] if bridge.constant is None else [bridge.constant]
    digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    return key(asdict(bridge.config), digests)


@dataclass(frozen=True, slots=True)
class AnswerMeasure:
    """Measures questions. model, generator: called when something is left to measure. template: of the bridge."""

    tokens: TextTokens
    model: Callable[[], SoftLikelihood]
    generator: Callable[[], LocalGenerator]
    template: str
    max_new_tokens: int

    def likelihoods(self, questions: Sequence[Asked]) -> list[Row]:
        """Nats of the first accepted answer by arm, its number of tokens, and the tokens of each arm's prompt."""
        model = self.model()
        asked = [arms(each, self.tokens) for each in questions]
        prompts = [{arm: model.question_parts(prompt) for arm, prompt in each.items()} for each in asked]
        answers = [model.answer_ids(each.answers[0]) for each in questions]
        return [
            {
                "id": question.id,
                "tokens": len(answer),
                "nats": nats,
                "prompt_tokens": {arm: sum(map(len, parts)) for arm, parts in each.items()},
            }
            for question, answer, each, nats in zip(
                questions, answers, prompts, model.nats(prompts, answers), strict=True
            )
        ]

    def predictions(self, questions: Sequence[Asked]) -> list[Row]:
        """What the model writes in each arm, greedily, and whether an accepted answer occurs in it."""
        asked = [arms(each, self.tokens) for each in questions]
        written = {arm: self._written([each[arm] for each in asked]) for arm in asked[0]}
        rows: list[Row] = []
        for place, question in enumerate(questions):
            replies = {arm: answers[place] for arm, answers in written.items()}
            # a small model's empty reply is its answer here: a wrong one, and the row says what it was
            match = {arm: substring_match(reply.text, question.answers) for arm, reply in replies.items()}
            texts = {arm: reply.text for arm, reply in replies.items()}
            faults = {arm: reply.fault for arm, reply in replies.items() if reply.fault}
            failures = {"failures": faults} if faults else {}
            rows.append({"id": question.id, "predictions": texts, "match": match, **failures})
        return rows

    def _written(self, prompts: Sequence[str | Context]) -> list[Reply]:
        """prompts: of one arm, so all of one kind."""
        generator = self.generator()
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        contexts = [prompt for prompt in prompts if not isinstance(prompt, str)]
        limit = self.max_new_tokens
        if texts:
            return generator.replies(texts, max_new_tokens=limit)
        return generator.context_replies(contexts, template=self.template, max_new_tokens=limit)


#: Passages to tell apart, and how much of each is read to tell; chance is 1 / CANDIDATES.
CANDIDATES, READ_TOKENS = 32, 32


@dataclass(frozen=True, slots=True)
class PassageMeasure:
    """Measures passages by their places; each gets one of the paraphrase prompts that bridges are trained with.

    model: gives the language model, called when something is left to measure.
    """

    passages: Sequence[str]
    tokens: TextTokens
    model: Callable[[], SoftLikelihood]

    def likelihoods(self, places: Sequence[int]) -> list[Row]:
        """Nats of each passage after its own token, another's, the constant one and none, and its number of tokens."""
        model = self.model()
        targets = [model.text_ids(self.passages[place]) for place in places]
        soft = [{**self.tokens.of(self.passages[place]), "none": None} for place in places]
        prompts = [
            {name: model.paraphrase_parts(place, vectors) for name, vectors in named.items()}
            for place, named in zip(places, soft, strict=True)
        ]
        return [
            {"passage": place, "tokens": len(target), "nats": nats}
            for place, target, nats in zip(places, targets, model.nats(prompts, targets), strict=True)
        ]

    def identifications(self, places: Sequence[int]) -> list[Row]:
        """Nats of each passage's beginning after the token of every passage in its group of `CANDIDATES`.

        Raises InputError for a place in a group that is not full.
        """
        model = self.model()
        targets = [model.text_ids(self.passages[place])[:READ_TOKENS] for place in places]
        prompts = [
            {str(at): model.paraphrase_parts(place, self.tokens.of(text)["true"]) for at, text in self._group(place)}
            for place in places
        ]
        return [
            {"passage": place, "own": place % CANDIDATES, "nats": list(nats.values())}
            for place, nats in zip(places, model.nats(prompts, targets), strict=True)
        ]

    def _group(self, place: int) -> list[tuple[int, str]]:
        group = self.passages[place // CANDIDATES * CANDIDATES :][:CANDIDATES]
        if len(group) < CANDIDATES:
            raise InputError(f"passage {place} stands in a group of {len(group)}, {CANDIDATES} are needed; take more")
        return list(enumerate(group))
