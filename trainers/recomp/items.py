"""Choose and shorten the documents that a summariser is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

import torch

from ctxprune.compressors.recomp.summaries import NOTHING, chat_prompt, seq2seq_source
from ctxprune.data.questions import LabelledDocument, Offsets, Question, question_from_row, row_from_question
from ctxprune.errors import InputError
from ctxprune.files import read_rows, write_rows
from ctxprune.models.causal import PromptEncoder, left_padded
from ctxprune.prompt import piece_text
from ctxprune.text import model_text, split_sentences
from ctxprune.trainers.shared.loop import IGNORE
from ctxprune.types import Compressor, Context, Document, Extract, Span, TokenCounter, indentation, joiner, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How much of a question's documents to show.

    documents: how many (None: all); all gold ones stay, even if they are more. passage_tokens: of each document, cut to
    whole sentences around what is relevant (None: whole); relevant sentences stay, even if they are longer. gold: False
    leaves the gold documents out, as a retriever does that misses them.
    """

    documents: int | None = None
    passage_tokens: int | None = None
    gold: bool = True


def shown_question(question: Question, shown: Shown, *, counter: TokenCounter, seed: int) -> Question:
    """The question with the documents that training shows, shuffled: the same at every call with the same seed.

    Shuffled, so that a gold document's place says nothing; cut at random around the relevant sentences likewise.
    """
    rng = random.Random(f"{seed} {question.id} {question.text}")
    gold = [document for document in question.documents if document.is_gold and shown.gold]
    others = [document for document in question.documents if not document.is_gold]
    if shown.documents is not None:
        others = rng.sample(others, min(len(others), max(shown.documents - len(gold), 0)))
    chosen = [*gold, *others]
    rng.shuffle(chosen)
    limit = shown.passage_tokens
    if limit is not None:
        chosen = [shortened(document, limit, counter=counter, rng=rng) for document in chosen]
    return replace(question, documents=tuple(chosen))


def shortened(
    labelled: LabelledDocument, max_tokens: int, *, counter: TokenCounter, rng: random.Random
) -> LabelledDocument:
    """The document cut to neighbouring sentences of at most `max_tokens` tokens that hold all that is relevant.

    Where nothing is marked, they lie anywhere. Labels move with the text.
    """
    text = labelled.document.text
    sentences = split_sentences(text)
    costs = counter.count([text[sentence.start : sentence.end] for sentence in sentences])
    if sum(costs) <= max_tokens:
        return labelled
    first, last = _core(sentences, labelled.relevant or labelled.answer_spans, rng)
    spent = sum(costs[first : last + 1])
    while True:
        before = [first - 1] if first and spent + costs[first - 1] <= max_tokens else []
        after = [last + 1] if last + 1 < len(costs) and spent + costs[last + 1] <= max_tokens else []
        if not before + after:
            return _cut(labelled, sentences[first].start, sentences[last].end)
        added = rng.choice(before + after)
        spent += costs[added]
        first, last = min(first, added), max(last, added)


def _core(sentences: Sequence[Span], marked: Offsets, rng: random.Random) -> tuple[int, int]:
    """(first, last) place of the sentences that overlap anything marked; of one drawn at random where nothing is."""
    places = [
        place
        for place, sentence in enumerate(sentences)
        if any(start < sentence.end and sentence.start < end for start, end in marked)
    ] or [rng.randrange(len(sentences))]
    return places[0], places[-1]


def _cut(labelled: LabelledDocument, start: int, end: int) -> LabelledDocument:
    def moved(spans: Offsets) -> Offsets:
        return tuple((left - start, right - start) for left, right in spans if start <= left and right <= end)

    return replace(
        labelled,
        document=replace(labelled.document, text=labelled.document.text[start:end]),
        answer_spans=moved(labelled.answer_spans),
        relevant=None if labelled.relevant is None else moved(labelled.relevant),
    )


def extracted(questions: Sequence[Question], compressor: Compressor) -> list[Question]:
    """The questions with what an extractive compressor keeps of their documents; labels move with the text.

    Documents of which nothing is kept go. A question that loses all its relevant sentences is answerable no more.
    """
    contexts = [Context.of(question.text, shown_documents(question)) for question in questions]
    return [
        _extracted(question, context.extracts)
        for question, context in zip(questions, compressor.compress(contexts), strict=True)
    ]


def _extracted(question: Question, extracts: Sequence[Extract]) -> Question:
    documents = [_kept(question.documents[extract.index], extract) for extract in extracts if not extract.dropped]
    lost = any(each.relevant for each in question.documents) and not any(each.relevant for each in documents)
    return replace(question, documents=tuple(documents), answerable=question.answerable and not lost)


def _kept(labelled: LabelledDocument, extract: Extract) -> LabelledDocument:
    text, slices = labelled.document.text, extract.slices()
    shift = len(indentation(text, 0, slices[0][0])) - slices[0][0]
    stretches = [(*slices[0], shift)]
    for (_, last), (start, stop) in pairwise(slices):
        shift += len(joiner(text, last, start)) - (start - last)
        stretches.append((start, stop, shift))

    def moved(spans: Offsets) -> Offsets:
        return tuple(
            (left + shift, right + shift)
            for left, right in spans
            for start, stop, shift in stretches
            if start <= left and right <= stop
        )

    return replace(
        labelled,
        document=replace(labelled.document, text=extract.text),
        answer_spans=moved(labelled.answer_spans),
        relevant=None if labelled.relevant is None else moved(labelled.relevant),
    )


def shown_documents(question: Question) -> tuple[Document, ...]:
    return tuple(item.document for item in question.documents)


@dataclass(frozen=True, slots=True)
class SummaryTarget:
    """target: the summary, "" where the documents are of no help. scores: what the end task made of it, by name."""

    question: Question
    target: str
    scores: Mapping[str, float] = field(default_factory=dict)


def write_summary_targets(path: Path, targets: Iterable[SummaryTarget]) -> int:
    """One JSON object a line: the question as `data.questions.read_jsonl` reads it, with "target" and "scores".

    The file appears when all is written. Returns the number of lines.
    """
    rows = (row_from_question(made.question) | {"target": made.target, "scores": dict(made.scores)} for made in targets)
    return write_rows(path, rows)


def read_summary_targets(path: str | Path) -> Iterator[SummaryTarget]:
    """The lines of `write_summary_targets`; a line needs "question", "documents" and "target" only.

    Raises InputError naming file, line and field.
    """
    path = Path(path)
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        target, scores = row.get("target"), row.get("scores", {})
        if not isinstance(target, str):
            raise InputError(f"{place}: field 'target' must be a string, got {type(target).__name__}; write the file "
                             "with ctxprune.trainers.recomp.summaries")  # fmt: skip
        if not isinstance(scores, dict):
            raise InputError(f"{place}: field 'scores' must be an object, got {type(scores).__name__}")
        try:
            question = question_from_row(row, default_id=str(number))
        except InputError as error:
            raise InputError(f"{place}: {error!s}") from None
        yield SummaryTarget(question, target.strip(), scores)


class Example(TypedDict):
    """input_ids: what the model reads (a causal one: prompt, then target). labels: the target, its end token last."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Fitting:
    """The examples of at most the tokens allowed, and how many were longer: those are left out, none is cut."""

    examples: list[Example]
    too_long: int


def seq2seq_example(made: SummaryTarget, tokenizer: Any) -> Example:
    """Reads the published RECOMP input, without titles; the empty summary is the end token alone."""
    source = seq2seq_source(made.question.text, [document.text for document in shown_documents(made.question)])
    ids = tokenizer(model_text(source), verbose=False)["input_ids"]
    labels = tokenizer(model_text(made.target), add_special_tokens=False, verbose=False)["input_ids"]
    return Example(input_ids=ids, labels=[*labels, tokenizer.eos_token_id])


def causal_example(made: SummaryTarget, tokenizer: Any, encoder: PromptEncoder) -> Example:
    """Reads a chat turn, with titles; the empty summary is written as that turn asks for it."""
    passages = [piece_text(whole(document)) for document in shown_documents(made.question)]
    prompt = encoder.ids(chat_prompt(made.question.text, passages))
    labels = [*encoder.answer_ids(made.target or NOTHING), tokenizer.eos_token_id]
    return Example(input_ids=prompt + labels, labels=labels)


def examples(targets: Sequence[SummaryTarget], model: Any, tokenizer: Any, *, max_length: int, name: str) -> Fitting:
    """The targets as the model's kind needs them. max_length: tokens of input and target together.

    Raises InputError for a tokenizer without an end token and when nothing fits.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {name} has no end token, so a summary would never end; set eos_token")
    if seq2seq := model.config.is_encoder_decoder:
        made = [seq2seq_example(target, tokenizer) for target in targets]
    else:
        encoder = PromptEncoder(tokenizer, name=name)
        made = [causal_example(target, tokenizer, encoder) for target in targets]
    fitting = [each for each in made if len(each["input_ids"]) + (len(each["labels"]) if seq2seq else 0) <= max_length]
    if not fitting:
        shortest = min((len(each["input_ids"]) for each in made), default=0)
        raise InputError(
            f"none of {len(made)} targets fits --max-length {max_length} (the shortest input takes {shortest} tokens); "
            "raise it, or make targets with fewer --documents or --passage-tokens"
        )
    return Fitting(fitting, len(made) - len(fitting))


def causal_batch(batch: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Rows padded on the left, so that all targets end together.

    input_ids, attention_mask, position_ids: (b, longest) int64. labels: (b, longest target), IGNORE before a target.
    """
    ids, mask = left_padded([each["input_ids"] for each in batch])
    width = max(len(each["labels"]) for each in batch)
    labels = torch.full((len(batch), width), IGNORE, dtype=torch.int64)
    for row, each in enumerate(batch):
        labels[row, width - len(each["labels"]) :] = torch.tensor(each["labels"])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}
