"""Train an abstractive compressor: a T5-like model, or a causal one by LoRA (Xu et al., ICLR 2024, section 3.2).

    python -m ctxprune.trainers.recomp.abstractive --base MODEL --data TARGETS[:LIMIT[:REPEAT]] ... \
        --validation TARGETS --out FOLDER

TARGETS are files of `ctxprune.trainers.recomp.summaries`. The prompt is the one that `recomp-abstractive` asks at use,
and the loss is on the summary alone. FOLDER is then `load("recomp-abstractive", model=FOLDER)`, or for LoRA
`load("recomp-abstractive", model=MODEL, adapter=FOLDER)`; training.json in it tells how it was made. The same command
resumes a stopped run. `benchmarks.recomp_abstractive` measures what the summaries are worth.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ctxprune.errors import CtxpruneError, InputError
from ctxprune.models.causal import load_causal_lm, trailing_log_probabilities
from ctxprune.models.seq2seq import SUPPORTED, load_seq2seq, model_config, name_base
from ctxprune.trainers.recomp.items import Example, Fitting, SummaryTarget, causal_batch, examples, read_summary_targets
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.loop import IGNORE, Clock, add_run_arguments, rate_factor


class CausalTrainer(Trainer):
    """Loss on the target's tokens only, and the vocabulary's head run for them only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # the mean is over a batch's own tokens, so accumulated batches are averaged
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """inputs: a `causal_batch`. Returns the mean nats of a target token, and with return_outputs no outputs."""
        labels = inputs["labels"]
        read = {name: value for name, value in inputs.items() if name != "labels"}
        found = trailing_log_probabilities(model, labels.clamp(min=0), **read)
        loss = -found[labels != IGNORE].mean()
        return (loss, {"loss": loss}) if return_outputs else loss


def load_base(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """(tokenizer, model) to train: a T5-like model whole, a causal one with fresh LoRA weights or (--full) whole.

    Raises CheckpointError when the model cannot be loaded or is of neither kind.
    """
    seq2seq = model_config(arguments.base).model_type in SUPPORTED
    lora = not (seq2seq or arguments.full)
    if arguments.last_layers is not None and not lora:
        raise InputError(
            f"--last-layers {arguments.last_layers} is for LoRA, and all weights are trained; leave it out"
        )
    # frozen weights may be coarse; weights that learn need float32 for their small steps
    dtype = "bfloat16" if lora and arguments.precision == "bf16" else "float32"
    if seq2seq:
        tokenizer, model = load_seq2seq(arguments.base, tokenizer=arguments.base, device="cpu", dtype=dtype)
    else:
        tokenizer, model = load_causal_lm(arguments.base, device="cpu", dtype=dtype, gguf_file=None)
    if on_cpu(arguments):
        model.set_attn_implementation("eager")  # the backward pass of the fused kernels is slow there
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = arguments.dropout
    if arguments.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return tokenizer, with_lora(model, arguments) if lora else model


def with_lora(model: Any, arguments: argparse.Namespace) -> Any:
    """Low-rank updates beside the linear layers, all but the head; only they learn. Their weights are float32."""
    from peft import LoraConfig, get_peft_model

    options: dict[str, Any] = {"target_modules": "all-linear"}
    if arguments.last_layers is not None:
        options = last_linear_layers(model, arguments.last_layers)
    options |= {"lora_dropout": arguments.dropout, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, **options))


def last_linear_layers(model: Any, count: int) -> dict[str, Any]:
    """peft's choice of the linear modules in the last `count` transformer layers.

    The backward pass ends where the first of them begins. Raises InputError when the model has not so many.
    """
    layers = model.config.num_hidden_layers
    if not 1 <= count <= layers:
        raise InputError(f"--last-layers must be between 1 and the model's {layers}, got {count}")
    head = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return {"target_modules": sorted(linear), "layers_to_transform": list(range(layers - count, layers))}


def on_cpu(arguments: argparse.Namespace) -> bool:
    return bool(arguments.cpu or not torch.cuda.is_available())


def load_targets(sources: Sequence[Source], *, seed: int) -> list[SummaryTarget]:
    """The targets of all files, in file order; LIMIT draws at random, REPEAT goes over them again."""
    targets: list[SummaryTarget] = []
    for source in sources:
        chosen = source.draw(read_summary_targets(source.path), source.key(seed))
        targets += chosen * source.repeat
        empty = sum(not made.target for made in chosen)
        print(f"{source.path}: {len(chosen)} targets, {empty} of them empty", flush=True)
    if not targets:
        raise InputError("the --data files hold no targets; make some with ctxprune.trainers.recomp.summaries")
    return targets


def new_trainer(
    model: Any, tokenizer: Any, train: Sequence[Example], held: Sequence[Example], arguments: argparse.Namespace
) -> tuple[Trainer, Clock]:
    """A transformers trainer with length buckets, the schedule of `Clock`, and evaluation on `held` if there is any."""
    share = max(1, arguments.batch_size // PartialState().num_processes)
    batches = math.ceil(len(train) / (share * PartialState().num_processes))
    steps = arguments.max_steps or math.ceil(batches / arguments.accumulate) * arguments.epochs
    clock = Clock(arguments.max_minutes)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=arguments.lr, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(clock.progress(step, steps)))
    seq2seq = model.config.is_encoder_decoder
    kind, settings = (Seq2SeqTrainer, Seq2SeqTrainingArguments) if seq2seq else (CausalTrainer, TrainingArguments)
    trainer = kind(
        model=model,
        args=settings(**_settings(arguments, share=share, steps=steps, evaluates=bool(held))),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model) if seq2seq else causal_batch,
        train_dataset=cast(Any, list(train)),
        eval_dataset=cast(Any, list(held)) if held else None,
        optimizers=(optimizer, rates),
        callbacks=[clock],
    )
    return trainer, clock


def _settings(arguments: argparse.Namespace, *, share: int, steps: int, evaluates: bool) -> dict[str, Any]:
    return {
        "output_dir": str(arguments.out / "checkpoints"),
        "per_device_train_batch_size": share,
        "per_device_eval_batch_size": share,
        "gradient_accumulation_steps": arguments.accumulate,
        "max_steps": steps,
        "learning_rate": arguments.lr,
        "train_sampling_strategy": "group_by_length",
        "bf16": arguments.precision == "bf16",
        "fp16": arguments.precision == "fp16",
        "use_cpu": arguments.cpu,
        "dataloader_pin_memory": not on_cpu(arguments),
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": arguments.evaluate_every,
        "save_steps": arguments.evaluate_every,
        "save_total_limit": 2,
        "load_best_model_at_end": evaluates,
        "logging_steps": min(10, arguments.evaluate_every),
        "disable_tqdm": True,
        "report_to": "none",
        "seed": arguments.seed,
    }


def report(
    arguments: argparse.Namespace, model: Any, fitting: Fitting, trainer: Trainer, clock: Clock
) -> dict[str, Any]:
    """What the run was and did. tokens_per_second: over all starts, evaluations included."""
    tokens = sum(len(each["input_ids"]) for each in fitting.examples)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    return {
        "arguments": given,
        "examples": len(fitting.examples),
        "left_out_too_long": fitting.too_long,
        "mean_input_tokens": tokens / len(fitting.examples),
        "trained_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "steps": trainer.state.global_step,
        "seconds": clock.seconds,
        "tokens_per_second": tokens * (trainer.state.epoch or 0.0) / clock.seconds,
        "history": trainer.state.log_history,
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="ctxprune train recomp-abstractive", description=(__doc__ or "").split("\n", 1)[0]
    )
    made.add_argument("--base", required=True, help="T5-like or causal model to start from: a folder or a hub id")
    made.add_argument("--base-name", help="what the adapter calls its base, e.g. a hub id (default: as --base)")
    made.add_argument("--data", required=True, nargs="+", metavar="TARGETS[:LIMIT[:REPEAT]]", help="summaries to learn")
    made.add_argument("--validation", help="targets for the evaluations during training, which choose the best weights")
    made.add_argument("--out", required=True, type=Path, help="folder for the model or adapter, and training.json")
    made.add_argument("--full", action="store_true", help="train all weights of a causal model instead of LoRA")
    made.add_argument("--rank", type=int, default=8, help="of the LoRA weights (default: %(default)s)")
    made.add_argument("--last-layers", type=int, metavar="N", help="LoRA in the last N layers alone, which is faster")
    add_run_arguments(made, lr=2e-4, max_length=512)
    made.set_defaults(batch_size=8, evaluate_every=50)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Train, save, report; returns the exit code."""
    arguments = parser().parse_args(argv)
    try:
        run(arguments)
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(arguments: argparse.Namespace) -> None:
    targets = load_targets([Source.parse(text) for text in arguments.data], seed=arguments.seed)
    held = list(read_summary_targets(arguments.validation)) if arguments.validation else []
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    tokenizer, model = load_base(arguments)
    options = {"max_length": arguments.max_length, "name": arguments.base}
    fitting = examples(targets, model, tokenizer, **options)
    print(f"{len(fitting.examples)} examples; {fitting.too_long} left out as longer than {arguments.max_length} tokens")
    validation = examples(held, model, tokenizer, **options).examples if held else []
    trainer, clock = new_trainer(model, tokenizer, fitting.examples, validation, arguments)
    checkpoints = arguments.out / "checkpoints"
    found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=found)
    trainer.save_model(str(arguments.out))
    if not hasattr(model, "peft_config"):
        tokenizer.save_pretrained(arguments.out)
    elif arguments.base_name:
        name_base(arguments.out, arguments.base_name)
    made = report(arguments, model, fitting, trainer, clock)
    (arguments.out / "training.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: made[name] for name in ("steps", "seconds", "tokens_per_second")}))


if __name__ == "__main__":
    sys.exit(main())
