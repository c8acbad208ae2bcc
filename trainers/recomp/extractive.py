"""Fine-tune a dual encoder to choose sentences (RECOMP, Xu et al., ICLR 2024, section 3.1) with sentence-transformers.

    python -m ctxprune.trainers.recomp.extractive --base MODEL --data LABELS[:LIMIT[:REPEAT]] ... --validation FILE \\
        --out FOLDER

learns from the files of `labels.py`: the question's vector is to be nearest to its positive sentence among the
sentences of the batch and its own hard negatives. The model that ranks the validation questions' sentences best is
left in FOLDER; `--export FOLDER` adds an int8 ONNX export. The same command resumes a stopped run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from ctxprune.errors import CheckpointError, CtxpruneError, InputError
from ctxprune.models.sentence_encoders import sentence_transformer
from ctxprune.trainers.recomp.choice import (
    Labelled,
    Ranked,
    measured,
    rank_by_vectors,
    ranking_tasks,
    read_labels,
    with_distractors,
)
from ctxprune.trainers.recomp.labels import load_questions
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.export import WINDOW_TOKENS, Agreement, export_encoder, model_card
from ctxprune.trainers.shared.loop import Clock, add_run_arguments, rate_factor
from ctxprune.trainers.shared.rewrite import ParityReport


class SentenceRanking(SentenceEvaluator):
    """Ranks by cosine and returns `choice.measured`; the model with the best mrr is kept."""

    primary = "mrr"

    def __init__(self, tasks: Sequence[Ranked]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tasks = tasks
        self.primary_metric = self.primary
        self.greater_is_better = True

    @property
    def description(self) -> str:
        return "sentence ranking"

    def __call__(  # type: ignore[override]  # the trainer of a SentenceTransformer passes one
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        def embed(texts: Sequence[str]) -> Any:
            vectors = model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(vectors, dtype=np.float32)

        return measured(self.tasks, rank_by_vectors(self.tasks, embed, embed))


def training_rows(labelled: Sequence[Labelled], negatives: int) -> list[dict[str, str]]:
    """One row a positive: anchor, positive, negative_1 ...; a question with fewer negatives repeats them."""
    return [
        {"anchor": each.question, "positive": text}
        | {f"negative_{n + 1}": each.negatives[n % len(each.negatives)] for n in range(negatives)}
        for each in labelled
        for text in each.positives
    ]


def load_rows(sources: Sequence[Source], *, negatives: int, seed: int) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for source in sources:
        labelled = list(read_labels(source.path))
        chosen = drawn(labelled, source.limit or len(labelled), source.key(seed))
        made = training_rows(chosen, negatives) * source.repeat
        rows += made
        print(f"{source.path}: {len(chosen)} questions, {len(made)} rows", flush=True)
    if not rows:
        raise InputError("--data holds no labels; make them with python -m ctxprune.trainers.recomp.labels")
    return rows


def load_encoder(base: str, arguments: argparse.Namespace) -> SentenceTransformer:
    """Eager attention: the backward pass of the fused kind is slow on a CPU."""
    options = {"attn_implementation": "eager"} if arguments.cpu or not torch.cuda.is_available() else {}
    model: SentenceTransformer = sentence_transformer(
        base, device="cpu" if arguments.cpu else None, model_kwargs=options
    )
    model.max_seq_length = min(arguments.max_length, model.max_seq_length or arguments.max_length)
    for name, parameter in model.named_parameters():
        if arguments.freeze_embeddings and "embeddings" in name:
            parameter.requires_grad = False
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = arguments.dropout
    return model


def training_arguments(arguments: argparse.Namespace, *, steps: int, evaluated: bool) -> Any:
    best: dict[str, Any] = {}
    if evaluated:
        best = {"eval_strategy": "steps", "eval_steps": arguments.evaluate_every, "load_best_model_at_end": True}
        best["metric_for_best_model"] = f"eval_{SentenceRanking.primary}"
    return SentenceTransformerTrainingArguments(
        output_dir=str(arguments.out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=arguments.batch_size,
        gradient_accumulation_steps=arguments.accumulate,
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # a positive of one question is no negative of another
        bf16=arguments.precision == "bf16",
        fp16=arguments.precision == "fp16",
        use_cpu=arguments.cpu,
        save_steps=arguments.evaluate_every,
        save_total_limit=2,
        logging_steps=20,
        seed=arguments.seed,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        dataloader_pin_memory=False,
        **best,
    )


def train(
    model: SentenceTransformer,
    rows: Sequence[dict[str, str]],
    evaluator: SentenceRanking | None,
    arguments: argparse.Namespace,
) -> list[dict[str, float]]:
    """Train in place and leave the best weights in `model`; returns the history of losses and evaluations."""
    steps = arguments.max_steps or math.ceil(arguments.epochs * len(rows) / arguments.batch_size / arguments.accumulate)
    clock = Clock(arguments.max_minutes)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=arguments.lr, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(clock.progress(step, steps)))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=training_arguments(arguments, steps=steps, evaluated=evaluator is not None),
        train_dataset=Dataset.from_list(list(rows)),
        loss=MultipleNegativesRankingLoss(model, scale=arguments.scale),
        evaluator=evaluator,
        optimizers=(optimizer, rates),
        callbacks=[clock],
    )
    checkpoints = arguments.out / "checkpoints"
    trainer.train(resume_from_checkpoint=checkpoints.is_dir() and any(checkpoints.glob("checkpoint-*")))
    return list(trainer.state.log_history)


def validation(arguments: argparse.Namespace) -> SentenceRanking | None:
    """The validation questions, each widened to `--documents` passages."""
    if not arguments.validation:
        return None
    asked = load_questions([Source.parse(arguments.validation)], seed=arguments.seed)
    tasks = ranking_tasks(with_distractors(asked, arguments.documents, seed=arguments.seed))
    if not tasks:
        raise InputError(f"--validation {arguments.validation} has no question with sentence labels")
    return SentenceRanking(tasks)


def export_selector(
    folder: Path, out: Path, *, qa: Path, base: str, recipe: str, figures: dict[str, Any], texts: int = 500
) -> None:
    """Write model.onnx, tokenizer.json, parity.json, recomp.json and README.md into `out`.

    folder: a sentence-transformers model of a BERT with mean pooling; another is a CheckpointError. qa: questions with
    documents; the first texts calibrate the quantisation, `texts` of those after them are compared on.
    """
    check_pooling(folder)
    report, agreement = export_encoder(folder, qa, out, questions=min(texts, 300), documents=texts)
    settings = {
        "name": out.name,
        "base": base,
        "pooling": "mean",
        "similarity": "cosine",
        "max_tokens": WINDOW_TOKENS,
        "with_title": True,
    }
    (out / "recomp.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    card = selector_card(report, agreement, name=out.name, base=base, recipe=recipe, figures=figures)
    (out / "README.md").write_text(card, encoding="utf-8")


def check_pooling(folder: Path) -> None:
    """Raises CheckpointError unless the model takes the mean over its tokens, as the export's reader does."""
    pooling = [part for part in SentenceTransformer(str(folder), device="cpu") if hasattr(part, "pooling_mode")]
    modes = [str(part.pooling_mode) for part in pooling]
    if modes != ["mean"]:
        raise CheckpointError(f"{folder} pools by {', '.join(modes) or 'nothing known'}; the export needs mean pooling")


_ABOUT = """\
A sentence selector after RECOMP's extractive compressor (Xu et al., ICLR 2024): a dual encoder whose question vector is
near to the sentences that help to answer it. A vector is the mean over the tokens' last hidden states, scaled to
length one; a sentence is read after its document's title and a line break."""
_EXPLAINED = """\
Sentence ranking on the validation questions before and after training, and the int8 vectors against those in fp32:"""


def selector_card(
    report: ParityReport, agreement: Agreement, *, name: str, base: str, recipe: str, figures: dict[str, Any]
) -> str:
    """Markdown; every figure in it was measured by the run that wrote it."""
    return model_card(
        name,
        base=base,
        about=_ABOUT,
        files=f"- Base model: `{base}`\n- `model.onnx` ({report.file_bytes / 1e6:.1f} MB, int8 weights), "
        "`tokenizer.json`, `recomp.json` (how to read it),\n  `parity.json` (int8 against fp32 outputs)",
        recipe=recipe or "not stated",
        explained=_EXPLAINED,
        figures={**figures, "int8": asdict(agreement)},
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="ctxprune train recomp-extractive", description="Fine-tune a dual encoder to choose sentences."
    )
    made.add_argument("--base", required=True, help="a sentence-transformers model: a folder or a hub id")
    made.add_argument("--data", required=True, nargs="+", metavar="LABELS[:LIMIT[:REPEAT]]", help="of recomp-labels")
    made.add_argument("--validation", metavar="FILE[:LIMIT]", help="questions whose sentence ranking picks the model")
    made.add_argument("--documents", type=int, default=5, help="widen a validation question to so many passages")
    made.add_argument("--out", required=True, type=Path, help="folder for the model, its checkpoints and the history")
    made.add_argument("--export", type=Path, help="folder for the int8 ONNX export")
    made.add_argument("--base-name", help="the base's name in the model card (default: as --base)")
    made.add_argument("--recipe", default="", help="how labels and model were made, for the model card")
    made.add_argument("--hard-negatives", type=int, default=2, help="a row; more of them take longer")
    made.add_argument("--scale", type=float, default=20.0, help="of the cosines in the softmax")
    add_run_arguments(made, lr=2e-5, max_length=256)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        _train(arguments)
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(arguments: argparse.Namespace) -> None:
    if arguments.hard_negatives < 1:
        raise InputError(f"--hard-negatives must be at least 1, got {arguments.hard_negatives}")
    if arguments.export and not arguments.validation:
        raise InputError("--export needs --validation: the export is calibrated and compared on its texts")
    sources = [Source.parse(text) for text in arguments.data]
    rows = load_rows(sources, negatives=arguments.hard_negatives, seed=arguments.seed)
    torch.manual_seed(arguments.seed)
    model, evaluator = load_encoder(arguments.base, arguments), validation(arguments)
    before = evaluator(model) if evaluator else {}
    print("before", json.dumps(before), flush=True)
    history = train(model, rows, evaluator, arguments)
    after = evaluator(model) if evaluator else {}
    print("after", json.dumps(after), flush=True)
    model.save_pretrained(str(arguments.out), create_model_card=False)
    figures = {"before": before, "after": after}
    (arguments.out / "history.json").write_text(json.dumps({**figures, "log": history}, indent=1), encoding="utf-8")
    if arguments.export:
        export_selector(
            arguments.out,
            arguments.export,
            qa=Path(Source.parse(arguments.validation).path),
            base=arguments.base_name or arguments.base,
            recipe=arguments.recipe,
            figures=figures,
        )


if __name__ == "__main__":
    sys.exit(main())
