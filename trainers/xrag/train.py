"""Train an xRAG bridge: one soft token a document for a frozen language model (Cheng et al., NeurIPS 2024).

    python -m ctxprune.trainers.xrag.train --stage 1 --generator MODEL --data FILE[:LIMIT] ... --validation FILE \
        --out FOLDER
    python -m ctxprune.trainers.xrag.train --stage 2 --init FOLDER --generator MODEL --data FILE[:LIMIT[:REPEAT]] ...

Stage 1, paraphrase pretraining: the model writes a passage out of its soft token. Stage 2, context-aware instruction
tuning: it answers questions from soft tokens as it does from the text (NLL + alpha * KL); --paraphrase mixes stage 1
in, so that the bridge does not forget it. A constant token is trained beside the bridge as a control. FOLDER gets the
bridge, history.json (the evaluations) and report.json. With --lora the language model gets low-rank updates, which
belong to the bridge (FOLDER/reader). The same command resumes a stopped run. Several processes: torchrun or
accelerate.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxprune.compressors.xrag.bridge import DEFAULT_TEMPLATE, Bridge, BridgeConfig, Projector, load_bridge, save_bridge
from ctxprune.errors import InputError
from ctxprune.generators.soft_prompt import Parts, answers_nll
from ctxprune.models.causal import load_causal_lm, revision_of
from ctxprune.models.hub import write_json
from ctxprune.models.sentence_encoders import RAW, Embedder, embedder_name, load_embedder
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.loop import BatchLoss, Run, add_run_arguments, batches, schedule
from ctxprune.trainers.xrag.data import (
    SoftItem,
    Trained,
    answer_items,
    batch_losses,
    embedded_texts,
    paraphrase_items,
    prompt,
    read_exercises,
    read_passages,
    soft_tokens,
)
from ctxprune.trainers.xrag.reader import checksum, save_reader, updates, with_updates
from ctxprune.vectors.pieces import PIECE_KINDS

#: Documents to tell apart, and how much of each is read to tell; chance is 1 / CANDIDATES.
CANDIDATES, IDENTIFY_TOKENS = 32, 32


@torch.no_grad()
def evaluate(model: Any, trained: Trained, items: Sequence[SoftItem], *, identify: int) -> dict[str, float]:
    """Nats per target token with the document's own soft tokens ("true"), with another item's ("shuffled"), with those
    of the other item that is most like it ("nearest"), the constant one ("constant"), none, and the text where an item
    has it; the means of shuffled - true and nearest - true over items; the share of items with true below shuffled;
    and, for `identify` > 0 of the items, the share identified.

    items: in random order, as each gets the next one's soft tokens where they are shuffled.
    """
    own, constant = soft_tokens(trained, items)
    targets = [item.target for item in items]
    prompts: dict[str, list[Parts]] = {
        "true": [prompt(item, tokens) for item, tokens in zip(items, own, strict=True)],
        "shuffled": [prompt(item, tokens) for item, tokens in zip(items, [*own[1:], own[0]], strict=True)],
        "nearest": [prompt(item, own[place]) for item, place in zip(items, nearest(items), strict=True)],
        "constant": [prompt(item, constant) for item in items],
        "none": [[item.bare] for item in items],
    }
    if all(item.told for item in items):
        prompts["text"] = [[item.told] for item in items]
    nats = {name: answers_nll(model, rows, targets) for name, rows in prompts.items()}
    tokens = np.array([len(target) for target in targets])
    gain = (nats["shuffled"] - nats["true"]) / tokens
    measured = {name: float(values.sum() / tokens.sum()) for name, values in nats.items()}
    hard = (nats["nearest"] - nats["true"]) / tokens
    measured |= {"shuffled_minus_true": float(gain.mean()), "true_better": float((gain > 0).mean())}
    measured |= {"nearest_minus_true": float(hard.mean())}
    if identify:
        measured["identified"] = identified(model, items, own, identify)
    return measured


def nearest(items: Sequence[SoftItem]) -> list[int]:
    """For each item the place of the one of another document whose mean vector is most like its own, the hardest to
    tell from it; the item's own place where all are of one document, told by a vector in common."""
    means = np.stack([item.vectors.mean(axis=0) for item in items])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    likeness = means @ means.T
    rows = [{row.tobytes() for row in item.vectors} for item in items]
    others = np.array([[not one & other for other in rows] for one in rows])
    best = np.where(others, likeness, -np.inf).argmax(axis=1)
    return [int(found) if others[place, found] else place for place, found in enumerate(best)]


def identified(model: Any, items: Sequence[SoftItem], own: Sequence[Tensor], count: int) -> float:
    """The share of the first `count` items whose own soft tokens, of those of the first `CANDIDATES` items, make the
    first `IDENTIFY_TOKENS` of its target the most likely."""
    candidates = own[:CANDIDATES]
    asked = items[: min(count, len(candidates))]
    prompts = [prompt(item, tokens) for item in asked for tokens in candidates]
    targets = [item.target[:IDENTIFY_TOKENS] for item in asked for _ in candidates]
    best = answers_nll(model, prompts, targets).reshape(len(asked), len(candidates)).argmin(axis=1)
    return float((best == np.arange(len(asked))).mean())


BATCH = 256
LR = 2e-3


def warm_start(projector: Projector, items: Sequence[SoftItem], table: Tensor, *, epochs: int) -> None:
    """Fit the projector to the `bags` of what each vector stands for, least squares relative to their length; draws
    from torch's global generator.

    table: (vocabulary, d_model) token embeddings. Items that do not say what their vectors stand for are passed over.
    """
    known = [item for item in items if item.pieces]
    if not known:
        return
    vectors = torch.from_numpy(np.concatenate([item.vectors for item in known]))
    wanted = bags([piece for item in known for piece in item.pieces], table)
    length = float(wanted.norm(dim=-1).median())
    optimizer = torch.optim.AdamW(projector.parameters(), lr=LR, weight_decay=0.01)
    steps = epochs * math.ceil(len(vectors) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for places in torch.split(torch.randperm(len(vectors)), BATCH):
            loss = (projector(vectors[places]) - wanted[places]).square().sum(dim=-1).mean() / length**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def bags(texts: Sequence[Sequence[int]], table: Tensor) -> Tensor:
    """(n, d_model) the mean of each text's token embeddings, weighted by their squared inverse document frequency and
    scaled to the median length of the token embeddings. Unweighted, what all texts share drowns the rest."""
    found = Counter(token for text in texts for token in {*text})
    weights = {token: math.log((len(texts) + 1) / (count + 1)) ** 2 + 1e-6 for token, count in found.items()}
    table = table.detach().float().cpu()
    rows = [torch.tensor([weights[token] for token in text]) @ table[list(text)] for text in texts]
    means = torch.stack(rows)
    scaled: Tensor = means / means.norm(dim=-1, keepdim=True) * table.norm(dim=-1).median()
    return scaled


#: Of the paper.
SHARD_TOKENS = 180
#: Learning rates of the stages for a small model; the paper has 6e-3 and 2e-5 for one of 7B parameters.
LEARNING_RATES = {1: 1e-3, 2: 1e-4}


def items_of(
    sources: Sequence[Source],
    stage: int,
    arguments: argparse.Namespace,
    config: BridgeConfig,
    embedder: Embedder,
    tokenizer: Any,
) -> list[SoftItem]:
    """The stage's items of these files, their vectors looked up or made."""
    folder, kind = arguments.vectors or arguments.out / "vectors", config.pieces
    embedded = partial(embedded_texts, embedder=embedder, folder=folder, shard_tokens=config.shard_tokens, pieces=kind)
    if stage == 1:
        passages = read_passages(sources, max_tokens=arguments.max_tokens, seed=arguments.seed)
        vectors = embedded(passages)
        rng = random.Random(arguments.seed)
        return paraphrase_items(passages, vectors, tokenizer, max_length=arguments.max_length, rng=rng)
    exercises = read_exercises(sources, seed=arguments.seed)
    documents = [exercise.document for exercise in exercises]
    vectors = embedded(documents)
    return answer_items(
        exercises,
        vectors,
        tokenizer,
        template=config.template,
        max_length=arguments.max_length,
        name=arguments.generator,
        expanded=arguments.expanded,
        rng=random.Random(arguments.seed),
    )


def new_bridge(
    config: BridgeConfig, model: Any, items: Sequence[SoftItem], *, warm_epochs: int
) -> tuple[Projector, torch.Tensor]:
    """A projector whose soft tokens are as long as the model's token embeddings (their medians), random or after a
    warm start, and a constant token that begins as the mean of its outputs, in its units before `output_scale`."""
    projector = Projector(config.d_retriever, config.d_model, scale=config.scale)
    sample = torch.from_numpy(np.concatenate([item.vectors for item in items[:512]]))
    table = model.get_input_embeddings().weight.detach().float()
    length = float(table.norm(dim=-1).median())
    projector.match_length(sample, length)
    if warm_epochs:
        warm_start(projector, items, table, epochs=warm_epochs)
        projector.match_length(sample, length)
    with torch.no_grad():
        return projector, projector(sample).mean(dim=0) / projector.output_scale


class Stage:
    """What the training loop asks of a stage: the loss of a batch, and the figures of a line of the history.

    tokens: that the language model has read so far, over all starts of the run.
    """

    def __init__(self, run: Run, model: Any, held: Sequence[SoftItem]) -> None:
        self.run, self.model, self.held = run, model, held
        self.tokens = run.history[-1]["tokens"] if run.history else 0.0

    def loss(self, batch: Sequence[SoftItem]) -> BatchLoss:
        losses = batch_losses(self.model, self.run.module, batch, alpha=self.run.arguments.alpha)
        self.tokens += losses.tokens
        return BatchLoss(losses.total, {f"train_{name}": getattr(losses, name) for name in ("nll", "constant", "kl")})

    def measured(self, means: Mapping[str, float]) -> dict[str, float]:
        figures = {**means, "tokens": float(self.tokens)}
        if not self.held:
            return figures
        arguments, trained = self.run.arguments, self.run.accelerator.unwrap_model(self.run.module)
        identify = arguments.identify if arguments.stage == 1 else 0
        return figures | evaluate(self.model, trained, self.held, identify=identify)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="ctxprune train xrag", description=__doc__.split("\n", 1)[0] if __doc__ else "")
    made.add_argument("--stage", type=int, choices=[1, 2], required=True)
    made.add_argument("--generator", required=True, help="the language model: a folder or a hub id")
    made.add_argument("--generator-name", help="what the bridge shall call it (default: as --generator)")
    made.add_argument("--encoder", default="bundled", help="'bundled', or a sentence-transformers folder or id")
    made.add_argument("--pooling", default="mean", help="how the encoder pools, for the bridge's config")
    made.add_argument("--init", type=Path, help="a bridge to start from, such as stage 1's folder")
    made.add_argument("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="texts or questions")
    made.add_argument("--validation", nargs="+", default=[], metavar="FILE[:LIMIT]", help="held out, of the same kind")
    made.add_argument("--validation-items", type=int, default=48, help="drawn from the held-out files")
    made.add_argument("--identify", type=int, default=8, help="held-out passages to identify among 32 (0: none)")
    made.add_argument("--out", required=True, type=Path, help="folder for the bridge, its checkpoint and reports")
    made.add_argument("--vectors", type=Path, help="vector store to use and fill (default: vectors in --out)")
    made.add_argument("--max-tokens", type=int, default=180, help="of the bundled tokenizer a passage, in stage 1")
    made.add_argument("--shard-tokens", type=int, help="of the bundled tokenizer a vector (default: 180, or --init's)")
    made.add_argument("--pieces", choices=PIECE_KINDS, help="what a vector stands for (default: tokens, or --init's)")
    made.add_argument("--warm-epochs", type=int, default=8, help="of the warm start of a new bridge (0: none)")
    made.add_argument(
        "--paraphrase", nargs="+", default=[], metavar="FILE[:LIMIT]", help="texts as in stage 1, among stage 2's items"
    )
    made.add_argument("--expanded", type=float, default=0.0, help="share of stage 2 with the evidence as text")
    made.add_argument("--template", default=DEFAULT_TEMPLATE, help="of stage 2, with {context} and {question}")
    made.add_argument("--alpha", type=float, default=2.0, help="weight of the KL divergence, in stage 2")
    made.add_argument("--lora", type=int, default=0, help="rank of updates of the model, then no stock one (0: none)")
    made.add_argument("--dtype", default="bfloat16", help="what the language model computes in")
    made.add_argument("--attn", default="eager", help="attention; sdpa's backward pass is slower on a CPU")
    add_run_arguments(made, lr=0.0, max_length=256)
    return made


def _config(arguments: argparse.Namespace, embedder: Embedder, model: Any, start: Bridge | None) -> BridgeConfig:
    d_model, revision = model.get_input_embeddings().embedding_dim, revision_of(model)
    name = arguments.generator_name or arguments.generator
    if start is None:
        width, unit = embedder.dimension, not embedder.name.startswith(RAW)
        return BridgeConfig(
            generator=name, encoder=embedder.name, d_retriever=width, d_model=d_model, pooling=arguments.pooling,
            shard_tokens=arguments.shard_tokens or SHARD_TOKENS, pieces=arguments.pieces or "tokens",
            template=arguments.template, revision=revision, normalised=unit, scale=math.sqrt(width) if unit else 1.0,
        )  # fmt: skip
    config = start.config
    encoder = embedder_name(config.encoder, unit=config.normalised)
    if (encoder, config.d_retriever, config.d_model) != (embedder.name, embedder.dimension, d_model):
        raise InputError(
            f"the bridge {arguments.init} goes from {encoder!r} ({config.d_retriever}) to {config.d_model} "
            f"dimensions, not from {embedder.name!r} ({embedder.dimension}) to {d_model}; pass what it was trained with"
        )
    if start.config.reader and not arguments.lora:
        raise InputError(f"the bridge {arguments.init} has a reader of its own; pass --lora with its rank")
    for option in ("shard_tokens", "pieces"):
        trained, wanted = getattr(config, option), getattr(arguments, option)
        if wanted not in (None, trained):
            raise InputError(
                f"the bridge {arguments.init} was trained with {option} = {trained}, not {wanted}; leave the "
                "option out, or train a new bridge"
            )
    if "" not in (config.revision, revision) and config.revision != revision:
        raise InputError(
            f"the bridge {arguments.init} was trained with revision {config.revision!r} of {config.generator!r}, the "
            f"model here is its revision {revision!r}; load that one"
        )
    return replace(config, generator=name, revision=revision or config.revision, template=arguments.template)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    arguments.lr = arguments.lr or LEARNING_RATES[arguments.stage]
    arguments.alpha = arguments.alpha if arguments.stage == 2 else 0.0
    if arguments.stage == 1 and arguments.paraphrase:
        raise InputError("--paraphrase is for stage 2: stage 1 is nothing else; pass the files as --data")
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    tokenizer, model = load_causal_lm(arguments.generator, device="cpu", dtype=arguments.dtype, gguf_file=None)
    model.requires_grad_(False).set_attn_implementation(arguments.attn)
    frozen = checksum(model)
    if arguments.lora:
        model = with_updates(model, arguments.lora, arguments.init)
    embedder = load_embedder(arguments.encoder)
    start = load_bridge(arguments.init) if arguments.init else None
    config = _config(arguments, embedder, model, start)

    def items(files: Sequence[str], stage: int = arguments.stage) -> list[SoftItem]:
        sources = [Source.parse(file) for file in files]
        return items_of(sources, stage, arguments, config, embedder, tokenizer) if sources else []

    training = items(arguments.data) + items(arguments.paraphrase, stage=1)
    held = items(arguments.validation)
    held = drawn(held, arguments.validation_items, arguments.seed)
    print(f"{len(training)} items, {sum(len(item.ids) for item in training)} tokens; {len(held)} held out", flush=True)
    checkpoint = arguments.out / "training.pt"
    fresh = start is None and not checkpoint.exists() and arguments.stage == 1
    projector, constant = new_bridge(config, model, training, warm_epochs=arguments.warm_epochs if fresh else 0)
    if start is not None:
        projector = start.projector
        if start.constant is not None:
            constant = torch.from_numpy(start.constant / projector.output_scale)
    plan = schedule(arguments, lambda rng: batches(training, arguments.batch_size, rng))
    run = Run(
        Trained(projector, constant, updates(model)), arguments, steps=math.ceil(len(plan) / arguments.accumulate)
    )
    model.to(run.accelerator.device)
    if arguments.lora and run.accelerator.num_processes > 1:
        raise InputError(f"--lora {arguments.lora} trains in one process, got {run.accelerator.num_processes}")
    run.resume(checkpoint)
    stage = Stage(run, model, held)
    run.train(plan, stage.loss, stage.measured, checkpoint, newest=0.05)
    if checksum(model) != frozen:
        raise InputError("the language model's weights changed during training; they must stay frozen")
    if run.accelerator.is_main_process:
        reader = save_reader(model, tokenizer, arguments.out) if arguments.lora else ""
        _save(run, replace(config, reader=reader), frozen)


def _save(run: Run, config: BridgeConfig, frozen: str) -> None:
    arguments, trained = run.arguments, run.accelerator.unwrap_model(run.module)
    constant = trained.constant_token()[0].detach().float().cpu().numpy()
    scales = {"scale": trained.projector.scale, "output_scale": trained.projector.output_scale}
    save_bridge(Bridge(trained.projector, replace(config, **scales), constant=constant), arguments.out)
    write_json(arguments.out / "history.json", {"evaluations": run.history})
    tokens = run.history[-1]["tokens"]
    report = {
        "arguments": {name: value if _plain(value) else str(value) for name, value in vars(arguments).items()},
        "steps": run.step,
        "seconds": run.seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / run.seconds,
        "generator_checksum": frozen,
        "last": run.history[-1],
    }
    write_json(arguments.out / "report.json", report)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list))


if __name__ == "__main__":
    main()
