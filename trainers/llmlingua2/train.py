"""Train an LLMLingua-2 word pruner: an encoder that says how much each word is worth keeping (Pan et al., ACL 2024).

    python -m ctxprune.trainers.llmlingua2.train --base MODEL --data TARGETS[:LIMIT[:REPEAT]] ... --validation TARGETS \
        --out FOLDER

TARGETS are files that a teacher wrote: `deletion.py` (a language model that deletes words), `targets.py`
(what people ask about) or `self_information.py`. The checkpoint in FOLDER is a plain *ForTokenClassification of two
labels; `--export FOLDER` adds int8 ONNX with a parity report and a model card. The same command resumes a stopped run.
Several processes: torchrun or accelerate; on a CPU, one process a core with one thread each is the fastest.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ctxprune.compressors.llmlingua.checkpoint import KeepClassifier
from ctxprune.errors import InputError
from ctxprune.models.formats import special_tokens
from ctxprune.trainers.llmlingua2.export import (
    Card,
    evaluate,
    export_word_pruner,
    keep_loss,
    new_word_pruner,
    save_word_pruner,
)
from ctxprune.trainers.llmlingua2.items import Forced, WordItem, collate_words, encode_targets
from ctxprune.trainers.llmlingua2.targets import WordTargets, read_targets
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.export import command_line
from ctxprune.trainers.shared.loop import BatchLoss, Run, add_run_arguments, batches, schedule


def load_targets(sources: Sequence[Source], *, seed: int) -> list[WordTargets]:
    """The texts of all files, in file order; LIMIT draws at random, REPEAT goes over them again."""
    texts: list[WordTargets] = []
    for source in sources:
        chosen = source.draw(read_targets(source.path), source.key(seed))
        texts += chosen * source.repeat
        print(f"{source.path}: {len(chosen)} texts", flush=True)
    if not texts:
        raise InputError(
            "the --data files hold no texts; write some with a teacher, such as ctxprune.trainers.llmlingua2.targets"
        )
    return texts


def batch_loss(run: Run, members: Sequence[WordItem], pad_id: int) -> BatchLoss:
    batch = collate_words(members, pad_id, run.accelerator.device)
    with run.accelerator.autocast():
        logits = run.module(batch["ids"], batch["mask"])["keep"]
    loss = keep_loss(logits, batch["keep"], positive_weight=run.arguments.positive_weight)
    return BatchLoss(loss, {"loss": float(loss.detach())})


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="ctxprune train llmlingua2", description=__doc__.split("\n", 1)[0] if __doc__ else ""
    )
    made.add_argument("--base", required=True, help="encoder to start from: a folder or a hub id")
    made.add_argument("--data", required=True, nargs="+", metavar="TARGETS[:LIMIT[:REPEAT]]", help="a teacher's files")
    made.add_argument("--validation", help="targets for the evaluations during training")
    made.add_argument("--out", required=True, type=Path, help="folder for the checkpoint and the report")
    made.add_argument("--export", type=Path, help="folder for the int8 export with its model card")
    made.add_argument("--base-name", help="the base's name in the model card (default: as --base)")
    made.add_argument("--base-licence", default="not stated", help="for the model card")
    made.add_argument("--recipe", default="", help="how data and model were made, for the model card")
    made.add_argument("--positive-weight", type=float, default=1.0, help="of the loss on words to keep")
    made.add_argument("--force-tokens", nargs="*", default=[], help="words always kept at run time, not trained on")
    made.add_argument("--force-digits", action="store_true", help="likewise words that hold a digit")
    add_run_arguments(made, lr=2e-4, max_length=384)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    pruner = new_word_pruner(arguments.base)
    forced = Forced(tokens=tuple(arguments.force_tokens), digits=arguments.force_digits)
    length = min(arguments.max_length, pruner.max_length)

    def encoded(texts: Sequence[WordTargets]) -> list[WordItem]:
        return encode_targets(texts, pruner.tokenizer, pruner.layout, max_length=length, forced=forced)

    sources = [Source.parse(text) for text in arguments.data]
    items = encoded(load_targets(sources, seed=arguments.seed))
    print(f"{len(items)} windows, {sum(len(item.ids) for item in items)} tokens", flush=True)
    held = list(read_targets(arguments.validation)) if arguments.validation else []
    held = drawn(held, 200, arguments.seed)
    validation = encoded(held)
    plan = schedule(arguments, lambda rng: batches(items, arguments.batch_size, rng))
    run = Run(KeepClassifier(pruner.model), arguments, steps=math.ceil(len(plan) / arguments.accumulate))
    checkpoint = arguments.out / "training.pt"
    run.resume(checkpoint)
    pad_id = special_tokens(pruner.tokenizer).get("[PAD]", 0)  # any id will do: padding is masked

    def evaluated(_: Mapping[str, float]) -> dict[str, float]:
        return evaluate(run.module, validation, pad_id=pad_id, accelerator=run.accelerator) if validation else {}

    run.train(plan, lambda batch: batch_loss(run, batch, pad_id), evaluated, checkpoint)
    if run.accelerator.is_main_process:
        save_word_pruner(pruner, arguments.out)
        (arguments.out / "history.json").write_text(json.dumps(run.history, indent=1))
        if arguments.export:
            card = Card(
                name=arguments.export.name,
                base=arguments.base_name or arguments.base,
                licence=arguments.base_licence,
                recipe=arguments.recipe or command_line("ctxprune.trainers.llmlingua2.train", arguments),
            )
            export_word_pruner(pruner, arguments.export, validation=held, card=card, seed=arguments.seed)


if __name__ == "__main__":
    main()
