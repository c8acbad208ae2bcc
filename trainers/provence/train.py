"""Train a Provence pruner: one encoder, a keep head over passage tokens and a rank head (Chirkova et al., ICLR 2025).

    python -m ctxprune.trainers.provence.train --base MODEL --data FILE[:LIMIT[:REPEAT]] ... --validation FILE \
        --out FOLDER

reads labelled questions, trains, evaluates as it goes and leaves the checkpoint in FOLDER; `--export FOLDER` adds the
int8 ONNX export with its parity report, the fitted score fusion and a model card. The same command resumes a stopped
run. Several processes: `accelerate launch -m ctxprune.trainers.provence.train ...` or torchrun; on a CPU, one process a
core with one thread each is the fastest.
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

from ctxprune.compressors.provence.model import load_pruner, new_pruner, save_pruner
from ctxprune.data import read_questions
from ctxprune.data.questions import Question
from ctxprune.models.formats import special_tokens
from ctxprune.trainers.provence.bundle import bundle, write_card
from ctxprune.trainers.provence.items import (
    IGNORE,
    Family,
    Item,
    collate,
    encode,
    encode_families,
    family_batches,
    numbered,
    read_families,
    repeats,
)
from ctxprune.trainers.provence.losses import SentenceTable, highest_by_item, listwise, sentence_table, twin_margin
from ctxprune.trainers.provence.pairs import Variation, plain_pairs
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.loop import Run, add_run_arguments

#: Margins, in log-odds, by which the answerable twin's best sentence and best answer token must lead.
TWIN_MARGIN = 3.0
#: Items that go through the encoder at once; a family's lengths differ, and padding is wasted work.
_PART = 12


def losses(outputs: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of one part of a batch: cross-entropy of the keep head over labelled passage tokens, of the rank head over pairs,
    and of the answer head.

    token_logits: (b, s, 2); rank_logits: (b, 1); answer_logits: (b, s). Each loss is a mean, zero without labels.
    """
    keep_labels, answer_labels = batch["keep"], batch["answer"]
    zero = sum((logits.sum() * 0.0 for logits in outputs.values()), torch.zeros(()))  # every head has a gradient
    result = {"keep": zero, "rank": zero, "answer": zero}
    if (keep_labels != IGNORE).any():
        logits = outputs["token_logits"].float()
        result["keep"] = zero + F.cross_entropy(logits.flatten(0, 1), keep_labels.flatten(), ignore_index=IGNORE)
    result["rank"] = F.binary_cross_entropy_with_logits(outputs["rank_logits"][:, 0].float(), batch["rank"])
    labelled = answer_labels != IGNORE
    if "answer_logits" in outputs and labelled.any():
        result["answer"] = F.binary_cross_entropy_with_logits(
            outputs["answer_logits"][labelled].float(), answer_labels[labelled].float()
        )
    return result


def comparing_losses(
    parts: Sequence[tuple[dict[str, torch.Tensor], dict[str, Any]]], whole: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Of a whole batch, read in parts: listwise over the sentences and over the passages of each question, and twins.

    parts: (outputs, part of the batch), items in the batch's order. whole: "question" and "twins" of
    `numbered`, "rank": (items,).
    """
    tables, first, answers = [], 0, []
    for outputs, part in parts:
        tables.append(sentence_table(outputs["token_logits"], part["keep"], part["sentence"], first))
        first += len(part["rank"])
        if "answer_logits" in outputs:
            answers.append(outputs["answer_logits"].float().masked_fill(part["sentence"] == IGNORE, -10.0).amax(1))
    table = SentenceTable.join(tables)
    question, relevant = whole["question"], whole["rank"] > 0.5
    ranks = torch.cat([outputs["rank_logits"][:, 0].float() for outputs, _ in parts])
    twins = twin_margin(highest_by_item(table, first), relevant, question, whole["twins"], TWIN_MARGIN)
    if answers:
        twins = twins + twin_margin(torch.cat(answers), relevant, question, whole["twins"], TWIN_MARGIN)
    return {
        "sentences": listwise(table.logits, table.labels, question[table.item]),
        "passages": listwise(ranks, whole["rank"], question),
        "twins": twins,
    }


def forward(module: torch.nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = module(batch["ids"], batch["mask"], batch["types"])
    return outputs


def batch_losses(
    module: torch.nn.Module, families: Sequence[Family], pad_id: int, accelerator: Accelerator
) -> dict[str, torch.Tensor]:
    """All losses of a batch of families; its items go through the encoder in parts of similar length."""
    questions, twins = numbered(families)
    items = [item for family in families for item in family.items]
    order = sorted(range(len(items)), key=lambda place: len(items[place].ids))
    whole = {
        "question": torch.tensor([questions[place] for place in order], device=accelerator.device),
        "rank": torch.tensor([items[place].rank for place in order], device=accelerator.device),
        "twins": twins,
    }
    parts, weighted = [], []
    for begin in range(0, len(order), _PART):
        part = collate([items[place] for place in order[begin : begin + _PART]], pad_id, accelerator.device)
        outputs = forward(module, part)
        parts.append((outputs, part))
        weighted.append((len(part["rank"]) / len(order), losses(outputs, part)))
    result = {name: sum(share * each[name] for share, each in weighted) for name in ("keep", "rank", "answer")}
    return {**result, **comparing_losses(parts, whole)}  # type: ignore[dict-item]


@torch.inference_mode()
def evaluate(
    module: torch.nn.Module, items: Sequence[Item], *, pad_id: int, accelerator: Accelerator, size: int = 32
) -> dict[str, float]:
    """Mean losses, areas under the ROC curve of the two heads, and the share of kept tokens found at P(keep) >= 0.1."""
    module.eval()
    totals: dict[str, list[float]] = {"keep": [], "rank": [], "answer": []}
    keep_scores, keep_labels, rank_scores, rank_labels, best_scores = [], [], [], [], []
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
        table = sentence_table(outputs["token_logits"], batch["keep"], batch["sentence"])
        best_scores.append(highest_by_item(table, len(batch["rank"])).cpu().numpy())
    module.train()
    scores, labels = np.concatenate(keep_scores), np.concatenate(keep_labels)
    found = {f"{name}_loss": float(np.mean(values)) for name, values in totals.items()}
    found["keep_auc"] = auc(scores, labels)
    found["rank_auc"] = auc(np.concatenate(rank_scores), np.concatenate(rank_labels))
    found["best_auc"] = auc(np.concatenate(best_scores), np.concatenate(rank_labels))
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


def train(
    run: Run, plan: Sequence[Sequence[Family]], validation: Sequence[Item], pad_id: int, checkpoint: Path
) -> None:
    """Go through the plan from where the run stands; evaluate and save every `--evaluate-every` steps."""
    arguments, accelerator = run.arguments, run.accelerator
    weights = {"keep": 1.0, "rank": arguments.rank_weight, "answer": arguments.answer_weight}
    weights |= dict.fromkeys(("sentences", "passages", "twins"), arguments.list_weight)
    run.module.train()
    averages: dict[str, float] = {}
    for group in run.groups(plan):
        started = time.monotonic()
        for rate_group in run.optimizer.param_groups:
            rate_group["lr"] = run.learning_rate()
        for members in group:
            with accelerator.accumulate(run.module):
                with accelerator.autocast():
                    found = batch_losses(run.module, run.share(members), pad_id, accelerator)
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
    made.add_argument("--warm-start", help="a trained pruner to go on from, in place of the base")
    made.add_argument("--validation", nargs="+", default=[], help="questions for the evaluations during training")
    made.add_argument("--out", required=True, type=Path, help="folder for the checkpoint and the report")
    made.add_argument("--export", type=Path, help="folder for the int8 export with fusion and model card")
    made.add_argument("--base-licence", default="not stated", help="for the model card")
    made.add_argument("--hold-out", type=float, default=0.05, help="share of passages kept out for fitting the fusion")
    add_run_arguments(made, lr=2e-4, max_length=384)
    made.add_argument("--freeze-layers", type=int, default=0, help="lowest layers to leave as they are")
    made.add_argument("--rank-weight", type=float, default=0.5)
    made.add_argument(
        "--list-weight", type=float, default=0.2, help="weight of each loss that compares: see listwise.py"
    )
    made.add_argument("--batch-tokens", type=int, default=6000, help="padded tokens a batch, over all processes")
    made.add_argument("--per-passage", type=int, default=2, help="questions on one gold passage at most (0: no limit)")
    made.add_argument(
        "--answer-weight", type=float, default=1.0, help="weight of the answer head's loss; 0 leaves the head out"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    answer_head = arguments.answer_weight > 0
    pruner = (
        load_pruner(arguments.warm_start, attn_implementation="sdpa")
        if arguments.warm_start
        else new_pruner(arguments.base, answer_head=answer_head, attn_implementation="sdpa")
    )
    for name, parameter in pruner.module.named_parameters():
        if any(f"layer.{place}." in name for place in range(arguments.freeze_layers)):
            parameter.requires_grad = False
    sources = [Source.parse(text) for text in arguments.data]
    pairs = read_families(
        sources,
        seed=arguments.seed,
        variation=Variation(),
        hold_out=arguments.hold_out,
        per_passage=arguments.per_passage,
    )
    families = encode_families(pairs, pruner, max_length=arguments.max_length)
    tokens = sum(len(item.ids) for family in families for item in family.items)
    print(f"{len(families)} families, {tokens} tokens, {repeats(pairs):.0%} of the passages are repeats", flush=True)
    asked = [question for path in arguments.validation for question in drawn(path, arguments.seed)]
    validation = encode(list(plain_pairs(asked)), pruner, max_length=arguments.max_length)
    rng = random.Random(arguments.seed)
    plan = [batch for _ in range(arguments.epochs) for batch in family_batches(families, arguments.batch_tokens, rng)]
    plan = plan[: arguments.max_steps * arguments.accumulate or None]
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


def drawn(path: str, seed: int, count: int = 300) -> list[Question]:
    """At most `count` questions of a file, the same for the same seed."""
    questions = list(read_questions(path))
    return random.Random(seed).sample(questions, min(count, len(questions)))


def export(arguments: argparse.Namespace, sources: Sequence[Source], validation: Sequence[Question]) -> None:
    """The export that `ctxprune.trainers.provence.bundle` makes; the card's recipe is the command line."""
    figures = bundle(
        load_pruner(arguments.out),
        arguments.export,
        sources=[replace(source, limit=min(source.limit or 400, 400)) for source in sources],
        validation=validation,
        hold_out=arguments.hold_out,
        seed=arguments.seed,
        name=arguments.export.name,
    )
    recipe = "    python -m ctxprune.trainers.provence.train " + " ".join(
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
