"""Fit the context head of a pruner on held-out training questions, in contexts of every size.

    python -m ctxprune.trainers.provence.fusion --model FOLDER --data FILE[:LIMIT] ... --hold-out 0.05

writes head, operating points and what scores look like (a server compares its own with that) into FOLDER/pruner.json.
Only questions that the encoder was not trained on are used: on its own training questions the encoder looks better than
it is, and the head would trust it too much.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ctxprune.compressors.provence.context_head import COLUMNS, ContextHead
from ctxprune.compressors.provence.fusion import Array, document_features
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.errors import InputError
from ctxprune.trainers.provence.contexts import FORMS, Example, gather_examples
from ctxprune.trainers.provence.points import SIZES, calibrated_fields, only_up_to
from ctxprune.trainers.shared.corpora import Source

#: With fewer contexts the fit would follow their accidents; sentences are then scored by their tokens alone.
MIN_EXAMPLES = 100
#: What the weights of documents are pulled to, and how strongly.
DOCUMENT_PRIOR = np.array([0.5, 0.5, 0.0, 0.0])
PULL = 1.0
#: How much of the prior order (see `context_head.PRIOR_ORDER`) is added to what the networks say.
ORDER_SHARE = 0.5
#: Networks in the average, their width, and the steps of each fit.
NETWORKS, WIDTH, STEPS = 3, 16, 200


def fit(examples: Sequence[Example], *, seed: int = 0) -> ContextHead:
    """Fit the networks, then the weights of documents; every file weighs the same, and so does every form within it.

    Raises InputError when no context has a relevant sentence.
    """
    usable = [one for one in examples if one.known.any()]
    if not any(one.labels[one.known].any() for one in usable):
        raise InputError("no held-out context has a relevant sentence; give more --data or a larger --hold-out")
    rows = np.concatenate([one.table[one.known] for one in usable])
    mean, scale = rows.mean(0), rows.std(0) + 1e-3
    networks = [_network(usable, mean, scale, seed + place) for place in range(NETWORKS)]
    skip, hidden, shift, out, bias = (np.stack(parts) for parts in zip(*networks, strict=True))
    head = _ordered(usable, ContextHead(mean, scale, skip, hidden, shift, out, bias, DOCUMENT_PRIOR))
    ranked = [one for one in examples if 0 < one.gold.sum() < len(one.gold)]
    tables = [(document_features(one.evidence, one.features, head.logits(one.table)), one.gold) for one in ranked]
    document = _ordering_weights(tables, _weights_of(ranked), DOCUMENT_PRIOR) if tables else DOCUMENT_PRIOR
    return replace(head, document=document)


def _ordered(examples: Sequence[Example], head: ContextHead) -> ContextHead:
    """The head with a share of the prior order, which holds far from the training domains, calibrated anew.

    log-odds = slope * (head + ORDER_SHARE * order_gap) + size * log sentences + bias, folded into the head's weights.
    """
    gap, sentences = COLUMNS.index("order_gap"), COLUMNS.index("sentences")
    logits = [head.logits(one.table[one.known]) + ORDER_SHARE * one.table[one.known, gap] for one in examples]
    inputs = torch.tensor(np.concatenate(logits))
    size = torch.tensor(np.concatenate([one.table[one.known, sentences] for one in examples]))
    labels = torch.tensor(np.concatenate([one.labels[one.known] for one in examples]))
    sizes = torch.tensor([int(one.known.sum()) for one in examples])
    weights = (_weights_of(examples) / sizes.sqrt()).repeat_interleave(sizes)
    slope, rise, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.0, 0.0))

    def loss() -> torch.Tensor:
        errors = F.binary_cross_entropy_with_logits(slope * inputs + rise * size + bias, labels, reduction="none")
        return (errors * weights).sum() / weights.sum()

    _minimise(loss, [slope, rise, bias])
    a, c, b = (float(value.detach()) for value in (slope, rise, bias))
    skip = head.skip * a
    skip[:, gap] += a * ORDER_SHARE * head.scale[gap]
    skip[:, sentences] += c * head.scale[sentences]
    shift = a * ORDER_SHARE * head.mean[gap] + c * head.mean[sentences] + b
    return replace(head, skip=skip, out=head.out * a, bias=head.bias * a + shift)


def _network(
    examples: Sequence[Example], mean: Array, scale: Array, seed: int
) -> tuple[Array, Array, Array, Array, Array]:
    """One network's skip, hidden, hidden bias, out and bias: log-loss of every sentence and listwise loss of every
    context. Columns are dropped at random while fitting, so that no single piece of evidence is leaned on."""
    torch.manual_seed(seed)
    inputs = torch.tensor(
        np.clip((np.concatenate([one.table[one.known] for one in examples]) - mean) / scale, -4, 4), dtype=torch.float32
    )
    labels = torch.tensor(np.concatenate([one.labels[one.known] for one in examples]), dtype=torch.float32)
    sizes = torch.tensor([int(one.known.sum()) for one in examples])
    group = torch.repeat_interleave(torch.arange(len(examples)), sizes)
    context_weight = _weights_of(examples).float()
    weight = (context_weight / sizes.sqrt()).repeat_interleave(sizes)
    weight = weight / weight.sum()
    width = inputs.shape[1]
    skip = torch.zeros(width, requires_grad=True)
    hidden = (torch.randn(WIDTH, width) * 0.5 / width**0.5).requires_grad_()
    shift = torch.zeros(WIDTH, requires_grad=True)
    out = (torch.randn(WIDTH) * 0.1).requires_grad_()
    bias = torch.tensor(-3.0, requires_grad=True)
    parameters = [skip, hidden, shift, out, bias]
    optimizer = torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=STEPS)
    relevant = torch.zeros(len(examples)).index_add(0, group, labels)
    listed = (relevant > 0) & (relevant < sizes)
    for _ in range(STEPS):
        seen = (torch.rand(width) > 0.1).float()  # the same columns for all: a mask an entry costs more than the rest
        logits = inputs @ (skip * seen) + torch.tanh(inputs @ (hidden * seen).T + shift) @ out + bias
        errors = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        loss = (errors * weight).sum() + 0.1 * _listwise(logits, labels, group, listed, context_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    skip_, hidden_, shift_, out_, bias_ = (one.detach().double().numpy() for one in parameters)
    return skip_, hidden_, shift_, out_, bias_


def _listwise(
    logits: torch.Tensor, labels: torch.Tensor, group: torch.Tensor, listed: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Weighted mean of -log(softmax mass of a context's relevant sentences), over the contexts `listed`."""
    count = len(listed)
    mass = torch.exp(logits.clamp(-20, 20))
    total = torch.zeros(count).index_add(0, group, mass)
    right = torch.zeros(count).index_add(0, group, mass * labels)
    share = weight * listed
    return -((right / total + 1e-6).log() * share).sum() / share.sum().clamp(min=1e-9)


def cross_fitted(examples: Sequence[Example], *, folds: int = 4) -> list[Array]:
    """Each context's log-odds by a head that was fitted without it."""
    logits: list[Array] = [np.zeros(0)] * len(examples)
    for fold in range(folds):
        head = fit([one for place, one in enumerate(examples) if place % folds != fold], seed=fold * NETWORKS)
        for place in range(fold, len(examples), folds):
            logits[place] = head.logits(examples[place].table)
    return logits


def refit_points(
    examples: Sequence[Example],
    model: PrunerModel,
    folder: Path,
    *,
    points_from: Sequence[str] = (),
    up_to: int | None = None,
) -> None:
    """Write points and reference anew into pruner.json, by the head that it has. InputError without one.

    up_to: only those of contexts of at most so many sentences, one of `points.SIZES`; the others stay (None: all).

    Contexts that the head was fitted on flatter it, if little: it has few weights. As `fit_and_save` writes nothing for
    fewer than `MIN_EXAMPLES`.
    """
    if _too_few(examples):
        return
    if model.fusion is None:
        raise InputError(f"{folder} has no context head to fit points for; fit it first, without --keep-head")
    logits = [model.fusion.score(one.evidence)[0] for one in examples]
    fields = calibrated_fields(examples, logits, points_from)
    if up_to is not None:
        fields = only_up_to(up_to, fields, json.loads((folder / "pruner.json").read_text(encoding="utf-8")))
    _write(folder, fields)


def _too_few(examples: Sequence[Example]) -> bool:
    if len(examples) < MIN_EXAMPLES:
        print(f"{len(examples)} held-out contexts are too few to fit a fusion (at least {MIN_EXAMPLES}); left out")
    return len(examples) < MIN_EXAMPLES


def _write(folder: Path, fields: Mapping[str, object]) -> None:
    """Into pruner.json, beside what is there."""
    path = folder / "pruner.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def _weights_of(examples: Sequence[Example]) -> torch.Tensor:
    """(n_examples,), summing to 1: files, and forms within them, count nearly alike however many contexts they gave."""
    counts = Counter((one.source, one.form) for one in examples)
    forms = Counter(source for source, _ in counts)
    weights = torch.tensor([1.0 / counts[one.source, one.form] ** 0.5 / forms[one.source] for one in examples])
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


def _minimise(loss: Callable[[], torch.Tensor], parameters: list[torch.Tensor]) -> None:
    """L-BFGS: the problems are small, smooth and convex or nearly so."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def report(examples: Sequence[Example], head: ContextHead) -> dict[str, dict[str, float]]:
    """By source: share of contexts whose best sentence, or three best, hold a relevant one; gold first."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for one in examples:
        logits, ranks = head.score(one.evidence)
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


def add_fusion_arguments(made: argparse.ArgumentParser) -> None:
    """What the fit reads: for this program and for the one that exports and fits in one go."""
    made.add_argument("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="as in training")
    made.add_argument("--hold-out", type=float, default=0.05, help="as in the training run; 1 uses all questions")
    made.add_argument(
        "--unseen",
        nargs="+",
        default=[],
        metavar="FILE[:LIMIT[:REPEAT]]",
        help="files that the encoder was not trained on: all of their questions are used",
    )
    made.add_argument(
        "--points-from", nargs="+", default=[], metavar="NAME", help="files (without endings) that the points hold for"
    )
    made.add_argument("--seed", type=int, default=7)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Fit the context head of an exported pruner")
    made.add_argument("--model", required=True, type=Path, help="folder with pruner.json and model.onnx")
    made.add_argument(
        "--keep-head", action="store_true", help="leave the head as it is; fit points and what scores look like anew"
    )
    made.add_argument(
        "--forms", nargs="+", default=[], choices=FORMS, metavar="FORM", help=f"contexts to make of {', '.join(FORMS)}"
    )
    made.add_argument(
        "--up-to", type=int, choices=SIZES, help="with --keep-head: only the points of contexts of so many sentences"
    )
    add_fusion_arguments(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.up_to and not arguments.keep_head:
        raise InputError("--up-to leaves the other points as they are, which a new head cannot; pass --keep-head too")
    model = PrunerModel.from_export(arguments.model)
    sources = [Source.parse(text) for text in arguments.data]
    unseen = [Source.parse(text) for text in arguments.unseen]
    drawn = {"seed": arguments.seed, "forms": arguments.forms}
    examples = gather_examples(model, sources, hold_out=arguments.hold_out, **drawn)
    examples += gather_examples(model, unseen, hold_out=1.0, **drawn)
    if arguments.keep_head:
        refit_points(examples, model, arguments.model, points_from=arguments.points_from, up_to=arguments.up_to)
    else:
        fit_and_save(examples, arguments.model, points_from=arguments.points_from)


def fit_and_save(
    examples: Sequence[Example], folder: Path, *, points_from: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Fit on all examples, write head, points, default threshold, floor and reference into pruner.json; returns how a
    fit on 4/5 of them does on the rest.

    Writes nothing and returns {} when there are fewer than `MIN_EXAMPLES`.
    """
    if _too_few(examples):
        return {}
    for_fit = [one for place, one in enumerate(examples) if place % 5]
    figures = report(examples[::5], fit(for_fit))
    print(json.dumps(figures, indent=1), flush=True)
    fields = calibrated_fields(examples, cross_fitted(examples), points_from)
    _write(folder, {"fusion": fit(examples).to_dict(), **fields})
    return figures


if __name__ == "__main__":
    main()
