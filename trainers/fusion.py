"""Fit the score fusion of a pruner on held-out training questions, in contexts such as retrievers hand over.

    python -m ctxprune.trainers.fusion --model FOLDER --data FILE[:LIMIT] ... --hold-out 0.05

writes the fusion into FOLDER/pruner.json. Only questions that the encoder was not trained on are used: on its own
training questions the encoder looks better than it is, and the fusion would trust it too much.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ctxprune.compressors.fusion import FEATURES, Array, Fusion, SentenceEvidence, document_features, sentence_features
from ctxprune.compressors.provence import gather, sentences_of
from ctxprune.compressors.pruner import PrunerModel
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.trainers.pairs import Negatives, Pair, Variation, keywords, plain_pairs, vary
from ctxprune.trainers.sources import Source, held_out
from ctxprune.types import Context, Document

#: With fewer contexts the fit would follow their accidents; sentences are then scored by their tokens alone.
MIN_EXAMPLES = 100


@dataclass(frozen=True, slots=True)
class Example:
    """One context. features: (n, len(FEATURES)); labels, known: (n,); gold: (n_documents,) 1 relevant, 0 not.

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


def fit(examples: Sequence[Example], *, hidden: int = 16, steps: int = 1500, seed: int = 0) -> Fusion:
    """Minimise cross-entropy (for calibration) plus a listwise loss within each context (for the order under a budget).

    Every context weighs the same, so that long ones do not drown the rest; AdamW over all examples at once.
    """
    generator = torch.Generator().manual_seed(seed)
    features = np.concatenate([one.features[one.known] for one in examples])
    labels = torch.tensor(np.concatenate([one.labels[one.known] for one in examples]), dtype=torch.float32)
    sizes = [int(one.known.sum()) for one in examples]
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    weight = torch.cat([torch.full((size,), 1.0 / max(size, 1) ** 0.5) for size in sizes])
    mean, scale = features.mean(0), features.std(0) + 1e-6
    inputs = torch.tensor(np.clip((features - mean) / scale, -5, 5), dtype=torch.float32)
    w1 = (torch.randn(len(FEATURES), hidden, generator=generator) * 0.2).requires_grad_()
    b1, w2 = torch.zeros(hidden, requires_grad=True), torch.zeros(hidden, requires_grad=True)
    linear, bias = torch.zeros(len(FEATURES), requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    optimizer = torch.optim.AdamW([w1, b1, w2, linear, bias], lr=0.01, weight_decay=0.02)
    for step in range(steps):
        for rate_group in optimizer.param_groups:
            rate_group["lr"] = 0.01 * (1 - step / steps)
        logits = torch.tanh(inputs @ w1 + b1) @ w2 + inputs @ linear + bias
        pointwise = (F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weight).sum() / weight.sum()
        loss = pointwise + 0.2 * _listwise(logits, labels, group, len(sizes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    arrays = [tensor.detach().numpy().astype(np.float64) for tensor in (w1, b1, w2, linear)]
    fusion = Fusion(mean, scale, *arrays, float(bias.detach()), np.zeros(4))
    return replace(fusion, document=_document_weights(examples, fusion))


def _listwise(logits: torch.Tensor, labels: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Mean over contexts with a relevant sentence of -log(probability mass on the relevant ones) under a softmax."""
    top = torch.full((groups,), -1e9).scatter_reduce(0, group, logits.detach(), "amax")
    mass = torch.exp(logits - top[group])
    total = torch.zeros(groups).scatter_add(0, group, mass)
    right = torch.zeros(groups).scatter_add(0, group, mass * labels)
    has = torch.zeros(groups).scatter_add(0, group, labels) > 0
    return -torch.log(right[has] / total[has] + 1e-6).mean()


def _document_weights(examples: Sequence[Example], fusion: Fusion, *, steps: int = 400) -> Array:
    """Weights of `document_features` by a softmax over each context's documents."""
    usable = [one for one in examples if 0 < one.gold.sum() < len(one.gold)]
    if not usable:
        return np.array([1.0, 0.0, 0.0, 0.0])
    tables = [document_features(one.evidence, one.features, fusion.logits(one.features)) for one in usable]
    inputs = torch.tensor(np.concatenate(tables), dtype=torch.float32)
    labels = torch.tensor(np.concatenate([one.gold for one in usable]), dtype=torch.float32)
    group = torch.repeat_interleave(torch.arange(len(usable)), torch.tensor([len(one.gold) for one in usable]))
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0], requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.02, weight_decay=0.0)
    for _ in range(steps):
        scores = inputs @ weights
        loss = _listwise(scores, labels, group, len(usable)) + F.binary_cross_entropy_with_logits(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fitted: Array = weights.detach().numpy().astype(np.float64)
    return fitted


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
