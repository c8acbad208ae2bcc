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
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ctxprune.compressors.llmlingua.checkpoint import KeepClassifier
from ctxprune.errors import InputError
from ctxprune.models.formats import special_tokens
from ctxprune.trainers.llmlingua2.export import Card, export_word_pruner
from ctxprune.trainers.llmlingua2.items import Forced, WordItem, collate_words, encode_targets
from ctxprune.trainers.llmlingua2.pruner import evaluate, keep_loss, new_word_pruner, save_word_pruner
from ctxprune.trainers.llmlingua2.targets import WordTargets, read_targets
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.loop import Run, add_run_arguments, schedule


def load_targets(sources: Sequence[Source], *, seed: int) -> list[WordTargets]:
    """The texts of all files, in file order; LIMIT draws at random, REPEAT goes over them again."""
    texts: list[WordTargets] = []
    for source in sources:
        everything = list(read_targets(source.path))
        if source.limit is not None and source.limit < len(everything):
            everything = random.Random(f"{seed} {Path(source.path).name}").sample(everything, source.limit)
        texts += everything * source.repeat
        print(f"{source.path}: {len(everything)} texts", flush=True)
    if not texts:
        raise InputError(
            "the --data files hold no texts; write some with a teacher, such as ctxprune.trainers.llmlingua2.targets"
        )
    return texts


def train(
    run: Run, plan: Sequence[Sequence[WordItem]], validation: Sequence[WordItem], pad_id: int, checkpoint: Path
) -> None:
    """Go through the plan from where the run stands; evaluate and save every `--evaluate-every` steps."""
    arguments, accelerator = run.arguments, run.accelerator
    run.module.train()
    average = math.nan
    for group in run.groups(plan):
        started = time.monotonic()
        for rate_group in run.optimizer.param_groups:
            rate_group["lr"] = run.learning_rate()
        for members in group:
            batch = collate_words(run.share(members), pad_id, accelerator.device)
            with accelerator.accumulate(run.module):
                with accelerator.autocast():
                    logits = run.module(batch["ids"], batch["mask"])["keep"]
                loss = keep_loss(logits, batch["keep"], positive_weight=arguments.positive_weight)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(run.module.parameters(), 1.0)
                run.optimizer.step()
                run.optimizer.zero_grad()
            value = float(loss.detach())
            average = value if math.isnan(average) else 0.98 * average + 0.02 * value
        run.step += 1
        run.seconds += run.agreed(time.monotonic() - started)
        if run.step % 20 == 0 and accelerator.is_main_process:
            shown = f"{run.seconds:.0f} s lr {run.learning_rate():.2e} loss {average:.4f}"
            print(f"step {run.step}/{run.steps} {shown}", flush=True)
        if run.step % arguments.evaluate_every == 0 or run.finished:
            if validation:
                measured = evaluate(run.module, validation, pad_id=pad_id, accelerator=accelerator)
                run.history.append({"step": run.step, "seconds": run.seconds, **measured})
                print("validation", json.dumps({k: round(v, 4) for k, v in run.history[-1].items()}), flush=True)
            run.save(checkpoint)
        if run.finished:
            return


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


def command_line(arguments: argparse.Namespace) -> str:
    """The command that made the model, as a Markdown code block."""
    given = []
    for name, value in vars(arguments).items():
        if value:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            given.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {shown}"))
    return "    python -m ctxprune.trainers.llmlingua2.train " + " ".join(given)


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
    held = random.Random(arguments.seed).sample(held, min(200, len(held)))
    plan = schedule(items, arguments)
    run = Run(KeepClassifier(pruner.model), arguments, steps=math.ceil(len(plan) / arguments.accumulate))
    checkpoint = arguments.out / "training.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
    pad_id = special_tokens(pruner.tokenizer).get("[PAD]", 0)  # any id will do: padding is masked
    train(run, plan, encoded(held), pad_id, checkpoint)
    if run.accelerator.is_main_process:
        save_word_pruner(pruner, arguments.out)
        (arguments.out / "history.json").write_text(json.dumps(run.history, indent=1))
        if arguments.export:
            card = Card(
                name=arguments.export.name,
                base=arguments.base_name or arguments.base,
                licence=arguments.base_licence,
                recipe=arguments.recipe or command_line(arguments),
            )
            export_word_pruner(pruner, arguments.export, validation=held, card=card, seed=arguments.seed)


if __name__ == "__main__":
    main()
