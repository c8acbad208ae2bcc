"""Training items of the two stages, prompts with a place for soft tokens and the tokens that shall follow, and the loss
over them: of the bridge, and of a constant token beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ctxprune.compressors.xrag.bridge import Projector
from ctxprune.compressors.xrag.expand import Form, Softened, assembled, parts_of, stretches_of
from ctxprune.data.questions import LabelledDocument, Question, read_jsonl
from ctxprune.errors import InputError
from ctxprune.files import batched
from ctxprune.generators.soft_prompt import PARAPHRASES, Parts, answer_logits, paraphrase_ids, token_ids
from ctxprune.models.causal import PromptEncoder
from ctxprune.models.sentence_encoders import Embedder, Vectors
from ctxprune.prompt import render_prompt
from ctxprune.text import split_sentences
from ctxprune.tokens import default_counter
from ctxprune.trainers.shared.corpora import Source, read_texts
from ctxprune.types import Context, Document, SoftTokens, whole
from ctxprune.vectors import PieceKind, Pieces, VectorStore, shard_text
from ctxprune.vectors.files import MANIFEST
from ctxprune.vectors.pieces import Offsets

#: Shorter pieces are left out: a heading or the stump of a cut sentence teaches nothing about its vector.
MIN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question whose answer stands in the document. evidence: offsets of the sentence that holds it, if known."""

    question: str
    document: str
    answer: str
    evidence: Offsets | None = None


def read_passages(sources: Sequence[Source], *, max_tokens: int, seed: int) -> list[str]:
    """Pieces of all texts of the files (see `corpora.read_texts`), each once; LIMIT draws texts at random, REPEAT is
    not used. max_tokens: of the bundled tokenizer, a piece."""
    texts: dict[str, None] = {}
    for source in sources:
        texts |= dict.fromkeys(source.draw(read_texts(source.path), source.key(seed)))
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
        found += source.draw(exercises, source.key(seed)) * source.repeat
    if not found:
        raise InputError("the --data files hold no question with an answer and a gold document")
    return found


def _exercise(question: Question) -> Exercise | None:
    gold = next((item for item in question.documents if item.is_gold and item.document.text.strip()), None)
    answer = next((answer for answer in question.answers if answer.strip()), "")
    if gold is None or not answer or not question.answerable:
        return None
    return Exercise(question.text, gold.document.text, answer.strip(), _evidence(gold))


def _evidence(document: LabelledDocument) -> Offsets | None:
    """The sentence that holds the first answer, else the first that is marked as relevant."""
    marked = document.relevant or ()
    holds = (each for each in marked for start, _ in document.answer_spans[:1] if each[0] <= start < each[1])
    return next(holds, marked[0] if marked else None)


#: Stage 2: longer answers are left out; short ones are what is asked for, and what makes a batch cheap.
MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class SoftItem:
    """before, after: token ids around the soft tokens. vectors: (pieces, d_retriever). target: ids to be predicted.

    middle: the ids of what stands as text after the first `split` soft tokens; () where nothing does. bare: the
    prompt without any document; told: with the document's text, () in stage 1, where that is the target. pieces: in
    stage 1, the tokens of the text that each vector stands for.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    vectors: Vectors
    target: tuple[int, ...]
    bare: tuple[int, ...]
    told: tuple[int, ...] = ()
    pieces: tuple[tuple[int, ...], ...] = ()
    middle: tuple[int, ...] = ()
    split: int = 0

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """All tokens that the model reads of it but for the soft ones, for batches of like lengths."""
        return np.array([*self.before, *self.middle, *self.after, *self.target, *self.told])


def paraphrase_items(
    passages: Sequence[str], vectors: Sequence[Pieces], tokenizer: Any, *, max_length: int, rng: random.Random
) -> list[SoftItem]:
    """Stage 1: the passage after its own soft tokens, in a template drawn for each.

    max_length: tokens of a passage to predict; the vectors are of all of it, what is beyond is not asked for.
    """
    templates = [paraphrase_ids(tokenizer, template) for template in PARAPHRASES]
    items = []
    for passage, found in zip(passages, vectors, strict=True):
        before, after = rng.choice(templates)
        target = token_ids(tokenizer, passage)[:max_length]
        told = tuple(token_ids(tokenizer, passage[start:end]) for start, end in found.offsets)
        items.append(SoftItem(before, after, found.vectors, target, bare=before + after, pieces=told))
    return items


def answer_items(
    exercises: Sequence[Exercise],
    vectors: Sequence[Pieces],
    tokenizer: Any,
    *,
    template: str,
    max_length: int,
    name: str,
    expanded: float = 0.0,
    rng: random.Random | None = None,
) -> list[SoftItem]:
    """Stage 2: the answer and the end of the turn, after the question with its document's soft tokens.

    Left out: answers of more than `MAX_ANSWER_TOKENS` tokens, and documents whose text makes the teacher's prompt
    longer than `max_length` tokens. name: of the model, for messages. expanded: the share of the items, drawn by rng,
    in which the pieces with the evidence stand as text between the soft tokens of the others, where there are others.
    """
    encoder, rng = PromptEncoder(tokenizer, name=name), rng or random.Random(0)
    items = []
    for exercise, found in zip(exercises, vectors, strict=True):
        prompt = _soft_prompt(encoder, exercise, found, template, expand=rng.random() < expanded)
        told = encoder.ids(render_prompt(Context.of(exercise.question, [exercise.document]), template=template))
        answer = encoder.answer_ids(exercise.answer)
        if len(answer) <= MAX_ANSWER_TOKENS and len(told) <= max_length:
            target = (*answer, tokenizer.eos_token_id)
            bare = tuple(encoder.ids(exercise.question))
            items.append(replace(prompt, target=target, bare=bare, told=tuple(told)))
    return items


def _soft_prompt(encoder: PromptEncoder, exercise: Exercise, found: Pieces, template: str, *, expand: bool) -> SoftItem:
    """An item without a target: the prompt exactly as a generator encodes such a context."""
    forms = [Form.TEXT if expand and _touches(exercise.evidence, each) else Form.VECTOR for each in found.offsets]
    if Form.VECTOR not in forms or Form.TEXT not in forms:
        before, after = _around(encoder, exercise, found.vectors, template)
        return SoftItem(before, after, found.vectors, (), ())
    extract = whole(Document(exercise.document))
    # in place of an embedding the number of its vector, to find it again in the prompt
    numbers = np.arange(len(forms), dtype=np.float32)[:, None]
    softened = Softened(extract, numbers, stretches_of(extract, found.offsets))
    piece = assembled(softened, parts_of(0, softened, extract), forms, generator="")
    parts = encoder.parts(Context(exercise.question, (piece,)), template=template)
    ids = [tuple(part) for part in parts if isinstance(part, list)]
    runs = [[int(number) for number in part[:, 0]] for part in parts if not isinstance(part, list)]
    rows = [row for run in runs for row in run]
    middle = ids[1] if len(runs) > 1 else ()
    return SoftItem(ids[0], ids[-1], found.vectors[rows], (), (), middle=middle, split=len(runs[0]))


def _touches(evidence: Offsets | None, piece: Offsets) -> bool:
    return evidence is not None and evidence[0] < piece[1] and evidence[1] > piece[0]


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


def embedded_texts(
    texts: Sequence[str], embedder: Embedder, folder: Path, *, shard_tokens: int, pieces: PieceKind = "tokens"
) -> list[Pieces]:
    """For each text its vectors and what they stand for, all from the store in `folder`, which grows as needed.

    Raises InputError when the store there cuts texts otherwise, CheckpointError when it is of another embedder.
    """
    store = VectorStore.open(folder, embedder=embedder) if (folder / MANIFEST).exists() else None
    if store is not None and (store.shard_tokens, store.pieces) != (shard_tokens, pieces):
        raise InputError(
            f"{folder} has a vector for {store.shard_tokens} tokens of a text ({store.pieces}), this run needs one for "
            f"{shard_tokens} ({pieces}); choose another folder with --vectors"
        )
    unique, done = dict.fromkeys(texts), 0
    for chunk in batched(unique, CHUNK):
        documents = [Document(text) for text in chunk]
        done += len(chunk)
        if store is None:
            store = VectorStore.build(folder, embedder, documents, shard_tokens=shard_tokens, pieces=pieces)
        else:
            store.append(documents)
        print(f"{done} of {len(unique)} texts embedded", flush=True)
    found = [] if store is None else store.lookup_pieces(texts)
    return [pieces for pieces in found if pieces is not None]


#: One row in so many trains the constant token, the control that knows of no document, instead of the bridge.
CONSTANT_EVERY = 10


class Trained(nn.Module):
    """The projector, and one token that is the same for every document, in the projector's units before its
    `output_scale`. Their rows are apart, so neither gets a gradient from the other's. reader: parameters of the
    language model that learn as well, if any."""

    def __init__(self, projector: Projector, constant: Tensor, reader: nn.ParameterList | None = None) -> None:
        super().__init__()
        self.projector = projector
        self.reader = nn.ParameterList() if reader is None else reader
        self.constant = nn.Parameter(constant.clone())

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """vectors: (n, d_retriever). Returns soft tokens (n, d_model) and the constant one (1, d_model), float32."""
        return self.projector(vectors), self.constant_token()

    def constant_token(self) -> Tensor:
        """(1, d_model) float32."""
        return self.constant[None] * self.projector.output_scale

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.projector.scale, "output_scale": self.projector.output_scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.projector.scale, self.projector.output_scale = state["scale"], state["output_scale"]


@dataclass(frozen=True, slots=True)
class Losses:
    """total: to be minimised. Means over tokens, detached: nll of the rows with their documents' own vectors, constant
    of those with the constant token (nan without such), kl of all rows with a `told` (0 without such). tokens: run
    through the model.
    """

    total: Tensor
    nll: float
    constant: float
    kl: float
    tokens: int


def batch_losses(model: Any, module: Any, batch: Sequence[SoftItem], *, alpha: float) -> Losses:
    """NLL + alpha * KL(the model that reads the text || the model that reads the soft token), over target tokens only;
    the divergence of the rows that have the text in a prompt, which those of stage 1 have not.

    model: the frozen language model. module: `Trained`, or what accelerate wraps it in. Rows `CONSTANT_EVERY` - 1,
    2 * `CONSTANT_EVERY` - 1, ... have the constant token. Each loss is a mean over all the batch's target tokens.
    """
    is_constant = [place % CONSTANT_EVERY == CONSTANT_EVERY - 1 for place in range(len(batch))]
    own, constant = soft_tokens(module, batch)
    soft = [constant if flag else tokens for flag, tokens in zip(is_constant, own, strict=True)]
    targets = [item.target for item in batch]
    logits = answer_logits(model, [prompt(item, tokens) for item, tokens in zip(batch, soft, strict=True)], targets)
    flat = torch.tensor([token for target in targets for token in target], device=logits.device)
    nll = cross_entropy(logits.float(), flat, reduction="none")
    flags = [flag for flag, target in zip(is_constant, targets, strict=True) for _ in target]
    told = [bool(item.told) for item in batch]
    divergence = _divergence(model, batch, logits, told) if alpha and any(told) else nll.new_zeros(1)
    # a sum that is always 0 keeps both parts in the graph, which training on several devices asks for
    total = nll.mean() + alpha * divergence.mean() + 0.0 * constant.sum()
    mask = torch.tensor(flags, device=nll.device)
    seen = nll.detach()
    return Losses(
        total,
        nll=float(seen[~mask].mean()),
        constant=float(seen[mask].mean()),
        kl=float(divergence.detach().mean()),
        tokens=sum(len(item.ids) + len(item.vectors) - (0 if alpha else len(item.told)) for item in batch),
    )


def soft_tokens(module: Any, items: Sequence[SoftItem]) -> tuple[list[Tensor], Tensor]:
    """The soft tokens of each item, (shards, d_model), and the constant one, (1, d_model)."""
    device = next(module.parameters()).device
    vectors = torch.from_numpy(np.concatenate([item.vectors for item in items])).to(device)
    projected, constant = module(vectors)
    return list(projected.split([len(item.vectors) for item in items])), constant


def prompt(item: SoftItem, tokens: Tensor) -> Parts:
    """The item's prompt with these soft tokens, (n, d_model), in their places."""
    if not item.middle:
        return [item.before, tokens, item.after]
    return [item.before, tokens[: item.split], item.middle, tokens[item.split :], item.after]


def _divergence(model: Any, batch: Sequence[SoftItem], logits: Tensor, told: Sequence[bool]) -> Tensor:
    """(target tokens of the items that are told,) KL(teacher || student), the teacher being the model as it is with the
    text in its prompt. logits: of the target tokens of all items."""
    rows = [item for item, flag in zip(batch, told, strict=True) if flag]
    chosen = torch.tensor([flag for item, flag in zip(batch, told, strict=True) for _ in item.target])
    with torch.no_grad(), model.disable_adapter() if hasattr(model, "peft_config") else nullcontext():
        teacher = answer_logits(model, [[item.told] for item in rows], [item.target for item in rows])
        expected = teacher.float().log_softmax(dim=-1)
    student = logits[chosen.to(logits.device)].float().log_softmax(dim=-1)
    return (expected.exp() * (expected - student)).sum(dim=-1)
