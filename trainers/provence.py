"""Train a Provence pruner: one encoder, a keep head over passage tokens and a rank head (Chirkova et al., ICLR 2025).

    python -m ctxprune.trainers.provence --base MODEL --data FILE[:LIMIT[:REPEAT]] ... --validation FILE --out FOLDER

reads labelled questions, trains, evaluates as it goes and leaves the checkpoint in FOLDER; `--export FOLDER` adds the
int8 ONNX export with its parity report, the fitted score fusion and a model card. The same command resumes a stopped
run. Several processes: `accelerate launch -m ctxprune.trainers.provence ...` or torchrun; on a CPU, one process a core
with one thread each is the fastest.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from ctxprune.models.formats import special_tokens
from ctxprune.models.provence import load_pruner, new_pruner, save_pruner
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.trainers.bundle import bundle, write_card
from ctxprune.trainers.items import IGNORE, Item, collate, encode
from ctxprune.trainers.pairs import Negatives, Pair, Variation, plain_pairs, training_pairs
from ctxprune.trainers.sources import Source, held_out
from ctxprune.trainers.training_run import Run, add_run_arguments, schedule


def losses(outputs: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cross-entropy of the keep head over labelled passage tokens, of the rank head over pairs, and of the answer head.

    token_logits: (b, s, 2); rank_logits: (b, 1); answer_logits: (b, s). Each loss is a mean, zero without labels.
    """
    keep_labels, answer_labels = batch["keep"], batch["answer"]
    zero = sum((logits.sum() * 0.0 for logits in outputs.values()), torch.zeros(()))  # every head has a gradient
    found = {"keep": zero, "rank": zero, "answer": zero}
    if (keep_labels != IGNORE).any():
        logits = outputs["token_logits"].float()
        found["keep"] = zero + F.cross_entropy(logits.flatten(0, 1), keep_labels.flatten(), ignore_index=IGNORE)
    found["rank"] = F.binary_cross_entropy_with_logits(outputs["rank_logits"][:, 0].float(), batch["rank"])
    known = answer_labels != IGNORE
    if "answer_logits" in outputs and known.any():
        found["answer"] = F.binary_cross_entropy_with_logits(
            outputs["answer_logits"][known].float(), answer_labels[known].float()
        )
    return found


def forward(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = module(batch["ids"], batch["mask"], batch["types"])
    return outputs


@torch.inference_mode()
def evaluate(
    module: torch.nn.Module, items: Sequence[Item], *, pad_id: int, accelerator: Accelerator, size: int = 32
) -> dict[str, float]:
    """Mean losses, areas under the ROC curve of the two heads, and the share of kept tokens found at P(keep) >= 0.1."""
    module.eval()
    totals: dict[str, list[float]] = {"keep": [], "rank": [], "answer": []}
    keep_scores, keep_labels, rank_scores, rank_labels = [], [], [], []
    ordered = sorted(items, key=lambda item: len(item.ids))
    for begin in range(0, len(ordered), size):
        batch = collate(ordered[begin : begin + size], pad_id, accelerator.device)
        with accelerator.autocast():
            outputs = forward(module, batch)
        for name, value in losses(outputs, batch).items():
            totals[name].append(float(value))
        known = batch["keep"] != IGNORE
        keep_scores.append(outputs["token_logits"].float().softmax(-1)[..., 1][known].cpu().numpy())
        keep_labels.append(batch["keep"][known].cpu().numpy())
        rank_scores.append(outputs["rank_logits"][:, 0].float().cpu().numpy())
        rank_labels.append(batch["rank"].cpu().numpy())
    module.train()
    scores, labels = np.concatenate(keep_scores), np.concatenate(keep_labels)
    found = {f"{name}_loss": float(np.mean(values)) for name, values in totals.items()}
    found["keep_auc"] = auc(scores, labels)
    found["rank_auc"] = auc(np.concatenate(rank_scores), np.concatenate(rank_labels))
    found["recall_at_0.1"] = float((scores[labels == 1] >= 0.1).mean()) if (labels == 1).any() else math.nan
    found["kept_at_0.1"] = float((scores >= 0.1).mean()) if len(scores) else math.nan
    return found


def auc(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Area under the ROC curve by the rank-sum formula; NaN when only one class is present."""
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def load_pairs(sources: Sequence[Source], *, seed: int, variation: Variation, hold_out: float) -> list[Pair]:
    """All training pairs of an epoch, in file order; `batches` shuffles them."""
    pairs: list[Pair] = []
    for source in sources:
        rng = random.Random(f"{seed} {Path(source.path).name}")
        everything = list(read_questions(source.path))
        negatives = Negatives(everything)
        questions = [question for question in everything if not held_out(question, hold_out)]
        chosen = rng.sample(questions, min(source.limit or len(questions), len(questions)))
        before = len(pairs)
        for _ in range(source.repeat):
            pairs += training_pairs(chosen, rng=rng, variation=variation, negatives=negatives)
        print(f"{source.path}: {len(chosen)} questions, {len(pairs) - before} pairs", flush=True)
    return pairs


def train(run: Run, plan: Sequence[Sequence[Item]], validation: Sequence[Item], pad_id: int, checkpoint: Path) -> None:
    """Go through the plan from where the run stands; evaluate and save every `--evaluate-every` steps."""
    arguments, accelerator = run.arguments, run.accelerator
    weights = {"keep": 1.0, "rank": arguments.rank_weight, "answer": arguments.answer_weight}
    run.module.train()
    averages: dict[str, float] = {}
    for group in run.groups(plan):
        started = time.monotonic()
        for rate_group in run.optimizer.param_groups:
            rate_group["lr"] = run.learning_rate()
        for members in group:
            batch = collate(run.share(members), pad_id, accelerator.device)
            with accelerator.accumulate(run.module):
                with accelerator.autocast():
                    outputs = forward(run.module, batch)
                found = losses(outputs, batch)
                accelerator.backward(sum((weights[name] * value for name, value in found.items()), torch.zeros(())))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(run.module.parameters(), 1.0)
                run.optimizer.step()
                run.optimizer.zero_grad()
            for name, value in found.items():
                averages[name] = 0.98 * averages.get(name, float(value.detach())) + 0.02 * float(value.detach())
        run.step += 1
        run.seconds += run.agreed(time.monotonic() - started)
        if run.step % 20 == 0 and accelerator.is_main_process:
            shown = " ".join(f"{name} {value:.4f}" for name, value in averages.items())
            print(f"step {run.step}/{run.steps} {run.seconds:.0f} s lr {run.learning_rate():.2e} {shown}", flush=True)
        if validation and (run.step % arguments.evaluate_every == 0 or run.finished):
            measured = evaluate(run.module, validation, pad_id=pad_id, accelerator=accelerator)
            run.history.append({"step": run.step, "seconds": run.seconds, **measured})
            print(
                "validation", json.dumps({name: round(value, 4) for name, value in run.history[-1].items()}), flush=True
            )
        if run.step % arguments.evaluate_every == 0 or run.finished:
            run.save(checkpoint)
        if run.finished:
            return


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="ctxprune train provence", description=__doc__.split("\n", 1)[0] if __doc__ else ""
    )
    made.add_argument("--base", required=True, help="encoder to start from: a folder or a hub id")
    made.add_argument("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="training questions")
    made.add_argument("--validation", help="questions for the evaluations during training")
    made.add_argument("--out", required=True, type=Path, help="folder for the checkpoint and the report")
    made.add_argument("--export", type=Path, help="folder for the int8 export with fusion and model card")
    made.add_argument("--base-licence", default="not stated", help="for the model card")
    made.add_argument("--hold-out", type=float, default=0.05, help="share of passages kept out for fitting the fusion")
    add_run_arguments(made, lr=2e-4, max_length=384)
    made.add_argument("--rank-weight", type=float, default=0.5)
    made.add_argument(
        "--answer-weight", type=float, default=1.0, help="weight of the answer head's loss; 0 leaves the head out"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    pruner = new_pruner(arguments.base, answer_head=arguments.answer_weight > 0, attn_implementation="eager")
    sources = [Source.parse(text) for text in arguments.data]
    pairs = load_pairs(sources, seed=arguments.seed, variation=Variation(), hold_out=arguments.hold_out)
    items = encode(pairs, pruner, max_length=arguments.max_length)
    print(f"{len(items)} pairs, {sum(len(item.ids) for item in items)} tokens", flush=True)
    asked = list(read_questions(arguments.validation)) if arguments.validation else []
    asked = random.Random(arguments.seed).sample(asked, min(300, len(asked)))
    validation = encode(list(plain_pairs(asked)), pruner, max_length=arguments.max_length)
    plan = schedule(items, arguments)
    run = Run(pruner.module, arguments, steps=math.ceil(len(plan) / arguments.accumulate))
    checkpoint = arguments.out / "training.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    pad_id = special_tokens(pruner.tokenizer).get("[PAD]", 0)  # any id will do: padding is masked
    train(run, plan, validation, pad_id, checkpoint)
    if run.accelerator.is_main_process:
        save_pruner(pruner, arguments.out)
        (arguments.out / "history.json").write_text(json.dumps(run.history, indent=1))
        if arguments.export:
            export(arguments, sources, asked)


def export(arguments: argparse.Namespace, sources: Sequence[Source], validation: Sequence[Question]) -> None:
    """The export that `ctxprune.trainers.bundle` makes; the card's recipe is the command line."""
    figures = bundle(
        load_pruner(arguments.out),
        arguments.export,
        sources=[replace(source, limit=min(source.limit or 400, 400)) for source in sources],
        validation=validation,
        hold_out=arguments.hold_out,
        seed=arguments.seed,
        name=arguments.export.name,
    )
    recipe = "    python -m ctxprune.trainers.provence " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in vars(arguments).items() if value
    )
    write_card(
        arguments.export,
        base=arguments.base,
        licence=arguments.base_licence,
        recipe=recipe,
        sources=sources,
        figures=figures,
    )


if __name__ == "__main__":
    main()
