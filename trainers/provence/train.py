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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ctxprune.compressors.provence.model import LoadedPruner, load_pruner, new_pruner, save_pruner
from ctxprune.data import read_questions
from ctxprune.data.questions import Question
from ctxprune.models.formats import special_tokens
from ctxprune.trainers.provence.bundle import bundle, write_card
from ctxprune.trainers.provence.items import (
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
from ctxprune.trainers.provence.losses import comparing_losses, highest_by_item, losses, sentence_table
from ctxprune.trainers.provence.pairs import Variation, plain_pairs
from ctxprune.trainers.provence.taught import read_lessons
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.export import command_line
from ctxprune.trainers.shared.loop import IGNORE, BatchLoss, Run, add_run_arguments, auc, schedule

#: Items that go through the encoder at once; a family's lengths differ, and padding is wasted work.
_PART = 12


def forward(module: torch.nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = module(batch["ids"], batch["mask"], batch["types"])
    return outputs


def batch_losses(
    module: torch.nn.Module, families: Sequence[Family], pad_id: int, accelerator: Accelerator
) -> dict[str, Tensor]:
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


def weighted(run: Run, families: Sequence[Family], pad_id: int) -> BatchLoss:
    """All losses of a batch in one, each with the weight that the arguments give it."""
    arguments = run.arguments
    weights = {"keep": 1.0, "rank": arguments.rank_weight, "answer": arguments.answer_weight}
    weights |= dict.fromkeys(("sentences", "passages", "twins"), arguments.list_weight)
    with run.accelerator.autocast():
        found = batch_losses(run.module, families, pad_id, run.accelerator)
    total = sum((weights[name] * value for name, value in found.items()), torch.zeros(()))
    return BatchLoss(total, {name: float(value.detach()) for name, value in found.items()})


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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="ctxprune train provence", description=(__doc__ or "").split("\n", 1)[0])
    add = made.add_argument
    add("--base", required=True, help="encoder to start from: a folder or a hub id")
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="training questions")
    add("--warm-start", help="a trained pruner to go on from, in place of the base")
    add("--validation", nargs="+", default=[], help="questions for the evaluations during training")
    add("--out", required=True, type=Path, help="folder for the checkpoint and the report")
    add("--export", type=Path, help="folder for the int8 export with fusion and model card")
    add("--base-licence", default="not stated", help="for the model card")
    add("--hold-out", type=float, default=0.05, help="share of passages kept out for fitting the fusion")
    add_run_arguments(made, lr=2e-4, max_length=384)
    add("--freeze-layers", type=int, default=0, help="lowest layers to leave as they are")
    add("--told", type=float, default=0.0, help="share of questions followed by a sentence, as at a second look")
    add("--rank-weight", type=float, default=0.5)
    add("--list-weight", type=float, default=0.2, help="of each loss that compares sentences or passages")
    add("--batch-tokens", type=int, default=6000, help="padded tokens a batch, over all processes")
    add("--per-passage", type=int, default=2, help="questions on one gold passage at most (0: no limit)")
    add("--taught", type=Path, help="folder of a teacher's labels (ctxprune.trainers.provence.distil)")
    add("--teacher-weight", type=share, default=0.5, help="the teacher's part in the targets; the rest is the labels'")
    add("--answer-weight", type=float, default=1.0, help="of the answer head's loss; 0 leaves the head out")
    return made


def share(text: str) -> float:
    """An argument type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def starting_pruner(arguments: argparse.Namespace) -> LoadedPruner:
    """The pruner to be trained: one trained before, or the base with fresh heads; its lowest layers frozen if asked."""
    if arguments.warm_start:
        pruner = load_pruner(arguments.warm_start, attn_implementation="sdpa")
    else:
        answer_head = arguments.answer_weight > 0
        pruner = new_pruner(arguments.base, answer_head=answer_head, attn_implementation="sdpa")
    for name, parameter in pruner.module.named_parameters():
        if any(f"layer.{place}." in name for place in range(arguments.freeze_layers)):
            parameter.requires_grad = False
    return pruner


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    pruner = starting_pruner(arguments)
    sources = [Source.parse(text) for text in arguments.data]
    pairs = read_families(
        sources,
        seed=arguments.seed,
        variation=Variation(told=arguments.told),
        hold_out=arguments.hold_out,
        per_passage=arguments.per_passage,
    )
    lessons = read_lessons(arguments.taught) if arguments.taught else None
    families = encode_families(
        pairs, pruner, max_length=arguments.max_length, lessons=lessons, weight=arguments.teacher_weight
    )
    if lessons is not None:
        taught = sum(item.targets is not None for family in families for item in family.items)
        print(f"the teacher has read {taught} of {sum(len(one.items) for one in families)} pairs", flush=True)
    tokens = sum(len(item.ids) for family in families for item in family.items)
    print(f"{len(families)} families, {tokens} tokens, {repeats(pairs):.0%} of the passages are repeats", flush=True)
    asked = [one for path in arguments.validation for one in drawn(list(read_questions(path)), 300, arguments.seed)]
    validation = encode(list(plain_pairs(asked)), pruner, max_length=arguments.max_length)
    plan = schedule(arguments, lambda rng: family_batches(families, arguments.batch_tokens, rng))
    run = Run(pruner.module, arguments, steps=math.ceil(len(plan) / arguments.accumulate))
    checkpoint = arguments.out / "training.pt"
    run.resume(checkpoint)
    pad_id = special_tokens(pruner.tokenizer).get("[PAD]", 0)  # any id will do: padding is masked

    def evaluated(_: Mapping[str, float]) -> dict[str, float]:
        return evaluate(run.module, validation, pad_id=pad_id, accelerator=run.accelerator) if validation else {}

    run.train(plan, lambda batch: weighted(run, batch, pad_id), evaluated, checkpoint)
    if run.accelerator.is_main_process:
        save_pruner(pruner, arguments.out)
        (arguments.out / "history.json").write_text(json.dumps(run.history, indent=1))
        if arguments.export:
            export(arguments, sources, asked)


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
    write_card(
        arguments.export,
        base=arguments.base,
        licence=arguments.base_licence,
        recipe=command_line("ctxprune.trainers.provence.train", arguments),
        sources=sources,
        figures=figures,
    )


if __name__ == "__main__":
    main()
