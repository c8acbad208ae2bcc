"""Fit the score fusion of a pruner on held-out training questions, in contexts such as retrievers hand over.

    python -m ctxprune.trainers.fusion --model FOLDER --data FILE[:LIMIT] ... --hold-out 0.05

writes the fusion into FOLDER/pruner.json. Only questions that the encoder was not trained on are used: on its own
training questions the encoder looks better than it is, and the fusion would trust it too much.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ctxprune.compressors.fusion import (
    CONTEXT_FEATURES,
    SENTENCE_FEATURES,
    Array,
    Fusion,
    SentenceEvidence,
    context_features,
    document_features,
    sentence_features,
)
from ctxprune.compressors.provence import gather, sentences_of
from ctxprune.compressors.pruner import PrunerModel
from ctxprune.errors import InputError
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.trainers.pairs import Negatives, Pair, Variation, keywords, plain_pairs, vary
from ctxprune.trainers.sources import Source, held_out
from ctxprune.types import Context, Document

#: With fewer contexts the fit would follow their accidents; sentences are then scored by their tokens alone.
MIN_EXAMPLES = 100

#: What the weights of a sentence are pulled to, and how strongly. On the encoder's own training domains the fit would
#: give BM25 a third of this weight, and then lose to BM25 alone elsewhere.
PRIOR = {
    "keep": 0.5,
    "answer": 0.2,
    "rank": 0.5,
    "bm25": 1.0,
    "document_bm25": 0.2,
    "linked": 1.5,
    "expanded_bm25": 0.2,
}
PULL = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """One context. features: (n, len(SENTENCE_FEATURES)); labels, known: (n,); gold: (n_documents,) 1 relevant, 0 not.

    known: False for sentences without a label, which then train the document weights only.
    """

    features: Array
    labels: Array
    known: Array
    evidence: SentenceEvidence
    gold: Array
    source: str


def contexts(questions: Sequence[Question], rng: random.Random, *, documents: int = 10) -> Iterator[list[Pair]]:
    """A context of 1 to `documents` passages for each question, cut and titled like one retriever's output.

    Questions with one document get negatives found by BM25; in a tenth of the contexts the gold passages are missing.
    """
    if not questions:
        return
    negatives = Negatives(questions, depth=40)
    for question in questions:
        asked = replace(question, text=_typed(question.text, rng))
        pairs = list(plain_pairs([asked]))
        wanted = rng.choice((1, 5, documents, documents))
        for _ in range(wanted * 2):
            if len(pairs) >= wanted or not question.answers:
                break
            near = negatives.near(question, rng)
            if near and near.document.text not in {pair.text for pair in pairs}:
                pairs.append(Pair(asked.text, near.document.text, False, (), (), near.document.title))
        if rng.random() < 0.1 and any(not pair.relevant for pair in pairs):
            pairs = [pair for pair in pairs if not pair.relevant]
        rng.shuffle(pairs)
        chunk = rng.choice((0.0, 0.0, 1.0))
        alike = Variation(
            plain_question=0, keywords=0, sentences=0, chunk=chunk, no_title=rng.choice((0, 0, 1)), max_words=100_000
        )
        yield [vary(pair, rng, alike) for pair in pairs]


def _typed(question: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.1:
        return keywords(question)
    return question.rstrip(" ?.").lower() if draw < 0.4 else question


def example(pairs: Sequence[Pair], model: PrunerModel, source: str) -> Example | None:
    """Read a context with the encoder and label its sentences by overlap; None when there is nothing to read."""
    item = sentences_of(Context.of(pairs[0].question, [Document(pair.text, title=pair.title) for pair in pairs]))
    if not item.extracts:
        return None
    evidence = gather(item, model.read(item.passages())).fusable
    labels, known = [], []
    for extract, spans in zip(item.extracts, item.spans, strict=True):
        keep = pairs[extract.index].keep
        known += [keep is not None] * len(spans)
        labels += [_overlaps(span.start, span.end, keep or ()) for span in spans]
    gold = [float(pairs[extract.index].relevant) for extract in item.extracts]
    return Example(
        sentence_features(evidence), np.array(labels, float), np.array(known, bool), evidence, np.array(gold), source
    )


def _overlaps(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether the sentence and some span share more than half of the shorter of the two."""
    return any(2 * (min(end, high) - max(start, low)) > min(end - start, high - low) for low, high in spans)


def fit(examples: Sequence[Example]) -> Fusion:
    """Fit order, calibration and document weights one after another; every file weighs the same.

    Raises InputError when no context has a relevant sentence.
    """
    usable = [one for one in examples if one.labels[one.known].any()]
    if not usable:
        raise InputError("no held-out context has a relevant sentence; give more --data or a larger --hold-out")
    prior = np.array([PRIOR[name] for name in SENTENCE_FEATURES])
    rows = [(one.features[one.known], one.labels[one.known]) for one in usable]
    sentence = _ordering_weights(rows, _weights_of(usable), prior)
    slope, context, bias = _calibration(examples, sentence)
    ranked = [one for one in examples if 0 < one.gold.sum() < len(one.gold)]
    tables = [(document_features(one.evidence, one.features, one.features @ sentence), one.gold) for one in ranked]
    guess = np.array([0.5, 0.5, 0.0, 0.0])
    document = _ordering_weights(tables, _weights_of(ranked), guess) if tables else guess
    return Fusion(sentence, context, document, slope, bias)


def _weights_of(examples: Sequence[Example]) -> torch.Tensor:
    """(n_examples,), summing to 1: files count alike, however many contexts they gave."""
    counts = Counter(one.source for one in examples)
    weights = torch.tensor([1.0 / counts[one.source] for one in examples])
    return weights / weights.sum()


def _ordering_weights(rows: Sequence[tuple[Array, Array]], weights: torch.Tensor, prior: Array) -> Array:
    """Weights that put relevant rows of each table first: -log(softmax mass on them), held near `prior`.

    rows: (features (n, k), labels (n,)) a table. The pull is in units of each feature's spread, see `PULL`.
    """
    inputs = torch.tensor(np.concatenate([features for features, _ in rows]), dtype=torch.float64)
    labels = torch.tensor(np.concatenate([labels for _, labels in rows]), dtype=torch.float64)
    group = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(labels) for _, labels in rows]))
    start, spread = torch.tensor(prior), inputs.std(0)
    found = start.clone().requires_grad_()

    def loss() -> torch.Tensor:
        logits = inputs @ found
        top = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        top = top.scatter_reduce(0, group, logits.detach(), "amax")
        mass = torch.exp(logits - top[group])
        total = torch.zeros(len(rows), dtype=torch.float64).scatter_add(0, group, mass)
        right = torch.zeros(len(rows), dtype=torch.float64).scatter_add(0, group, mass * labels)
        return (-torch.log(right / total + 1e-6) * weights).sum() + PULL * (((found - start) * spread) ** 2).sum()

    _minimise(loss, [found])
    return np.asarray(found.detach().numpy(), dtype=np.float64)


def _calibration(examples: Sequence[Example], sentence: Array) -> tuple[float, Array, float]:
    """Slope, context weights and bias that make the log-odds a probability: logistic regression over all sentences."""
    known = [one for one in examples if one.known.any()]
    order = torch.tensor(np.concatenate([one.features[one.known] @ sentence for one in known]))
    labels = torch.tensor(np.concatenate([one.labels[one.known] for one in known]), dtype=torch.float64)
    sizes = torch.tensor([int(one.known.sum()) for one in known])
    contexts = np.stack([context_features(one.evidence, one.features @ sentence) for one in known])
    levels = torch.tensor(contexts).repeat_interleave(sizes, 0)
    weights = (_weights_of(known) / sizes.sqrt()).repeat_interleave(sizes)  # between one context, one vote and one each
    slope = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    context = torch.zeros(len(CONTEXT_FEATURES), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        logits = slope * order + levels @ context + bias
        errors = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (errors * weights).sum() / weights.sum() + 1e-4 * (context**2).sum()

    _minimise(loss, [slope, context, bias])
    return float(slope.detach()), np.asarray(context.detach().numpy(), dtype=np.float64), float(bias.detach())


def _minimise(loss: Callable[[], torch.Tensor], parameters: list[torch.Tensor]) -> None:
    """L-BFGS: the problems are small, smooth and convex or nearly so."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def report(examples: Sequence[Example], fusion: Fusion) -> dict[str, dict[str, float]]:
    """By source: share of contexts whose best sentence, or three best, hold a relevant one; gold first."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for one in examples:
        logits, ranks = fusion.score(one.evidence)
        if not (one.labels * one.known).any():
            continue
        order = np.argsort(-logits)
        found.setdefault(one.source, []).append(
            (float(one.labels[order[:1]].any()), float(one.labels[order[:3]].any()), float(one.gold[ranks.argmax()]))
        )
    names = ("top1", "top3", "gold_first")
    return {
        source: {"n": float(len(rows)), **dict(zip(names, np.mean(rows, axis=0).round(4).tolist(), strict=True))}
        for source, rows in found.items()
    }


def gather_examples(model: PrunerModel, sources: Sequence[Source], *, hold_out: float, seed: int) -> list[Example]:
    """Examples from the held-out questions of every file, at most `limit` of each, times `repeat` variations."""
    made: list[Example] = []
    for source in sources:
        rng = random.Random(f"{seed} {Path(source.path).name}")
        questions = [question for question in read_questions(source.path) if held_out(question, hold_out)]
        chosen = rng.sample(questions, min(source.limit or len(questions), len(questions)))
        before = len(made)
        for _ in range(source.repeat):
            for pairs in contexts(chosen, rng):
                if pairs and (one := example(pairs, model, Path(source.path).name.split(".")[0])):
                    made.append(one)
        print(f"{source.path}: {len(made) - before} contexts", flush=True)
    return made


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Fit the score fusion of an exported pruner")
    made.add_argument("--model", required=True, type=Path, help="folder with pruner.json and model.onnx")
    made.add_argument("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]")
    made.add_argument("--hold-out", type=float, default=0.05, help="as in the training run; 1 uses all questions")
    made.add_argument("--seed", type=int, default=7)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    model = PrunerModel.from_export(arguments.model)
    sources = [Source.parse(text) for text in arguments.data]
    examples = gather_examples(model, sources, hold_out=arguments.hold_out, seed=arguments.seed)
    fit_and_save(examples, arguments.model)


def fit_and_save(examples: Sequence[Example], folder: Path) -> dict[str, dict[str, float]]:
    """Fit on all examples and write the fusion into pruner.json; returns how a fit on 4/5 of them does on the rest.

    Writes nothing and returns {} when there are fewer than `MIN_EXAMPLES`.
    """
    if len(examples) < MIN_EXAMPLES:
        print(f"{len(examples)} held-out contexts are too few to fit a fusion (at least {MIN_EXAMPLES}); left out")
        return {}
    for_fit = [one for place, one in enumerate(examples) if place % 5]
    figures = report(examples[::5], fit(for_fit))
    print(json.dumps(figures, indent=1), flush=True)
    path = folder / "pruner.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["fusion"] = fit(examples).to_dict()
    path.write_text(json.dumps(config), encoding="utf-8")
    return figures


if __name__ == "__main__":
    main()
