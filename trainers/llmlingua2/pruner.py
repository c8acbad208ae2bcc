"""How well word scores agree with a teacher: loss, order, and what survives a cut to half or a third of the words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification, PreTrainedModel

from ctxprune.models.encoders import position_limit
from ctxprune.models.formats import PairFormat, named_tokenizer, pair_format
from ctxprune.models.hub import read_tokenizer, resolve
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.trainers.llmlingua2.items import WordItem, collate_words
from ctxprune.trainers.provence.items import IGNORE
from ctxprune.trainers.provence.train import auc

#: Shares of the words of a text at which the evaluation looks.
RATES = (0.5, 0.33)

Floats = npt.NDArray[np.floating[Any]]


def keep_loss(logits: torch.Tensor, targets: torch.Tensor, *, positive_weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy with soft targets, the mean over tokens whose target is known. logits, targets: (batch, seq).

    positive_weight: of the part that pulls up. Special tokens, padding and forced words carry IGNORE.
    """
    known = targets != IGNORE
    if not known.any():
        return logits.sum() * 0.0
    weight = torch.tensor(positive_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits[known].float(), targets[known], pos_weight=weight)


@torch.inference_mode()
def evaluate(
    module: torch.nn.Module, items: Sequence[WordItem], *, pad_id: int, accelerator: Accelerator, size: int = 32
) -> dict[str, float]:
    """The mean loss, the area under the ROC curve of words, and what is kept at the `RATES`.

    module: a `KeepClassifier`. A word scores the mean of its tokens' keep probability; it counts as wanted with a
    target of at least 0.5. kept_at_R: share of wanted words among the best R of the words of their window. runs_at_R:
    share of runs of neighbouring wanted words (an answer, mostly) of which no word is lost there. threshold_at_R: the
    keep probability at which a window is cut to R, mean over the windows.
    """
    module.eval()
    losses, scores, targets = [], [], []
    kept: dict[str, list[float]] = {f"{name}_at_{rate}": [] for name in ("kept", "runs", "threshold") for rate in RATES}
    ordered = sorted(items, key=lambda item: len(item.ids))
    for begin in range(0, len(ordered), size):
        members = ordered[begin : begin + size]
        batch = collate_words(members, pad_id, accelerator.device)
        with accelerator.autocast():
            logits = module(batch["ids"], batch["mask"])["keep"]
        losses.append(float(keep_loss(logits, batch["keep"])))
        for item, row in zip(members, logits.float().sigmoid().cpu().numpy(), strict=True):
            mine, wanted = by_word(item, row[: len(item.ids)])
            scores.append(mine)
            targets.append(wanted)
            for name, values in kept_shares(mine, wanted >= 0.5).items():
                kept[name] += values
    module.train()
    labels = (np.concatenate(targets) >= 0.5).astype(int)
    found = {"loss": float(np.mean(losses)), "auc": auc(np.concatenate(scores), labels)}
    return found | {name: float(np.mean(values)) if values else math.nan for name, values in kept.items()}


def by_word(item: WordItem, scores: Floats) -> tuple[Floats, Floats]:
    """scores: (n,), one a token. Returns the mean score and the target of every word that has a target: (words,)."""
    known = item.keep != IGNORE
    _, words = np.unique(item.words[known], return_inverse=True)
    tokens = np.maximum(np.bincount(words), 1)
    return np.bincount(words, scores[known]) / tokens, np.bincount(words, item.keep[known]) / tokens


def kept_shares(scores: Floats, wanted: npt.NDArray[np.bool_]) -> dict[str, list[float]]:
    """For each rate 1 or 0 for every wanted word and for every run of them, kept or not, and the threshold.

    scores, wanted: (words,). Words that tie with the last one kept are kept too.
    """
    found: dict[str, list[float]] = {}
    if not len(scores):
        return found
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(int), [0]])))
    for rate in RATES:
        threshold = np.sort(scores)[::-1][max(1, round(rate * len(scores))) - 1]
        kept = scores >= threshold
        found[f"kept_at_{rate}"] = [float(each) for each in kept[wanted]]
        runs = zip(edges[::2], edges[1::2], strict=True)
        found[f"runs_at_{rate}"] = [float(kept[start:end].all()) for start, end in runs]
        found[f"threshold_at_{rate}"] = [float(threshold)]
    return found


@dataclass(frozen=True, slots=True)
class WordPruner:
    """model: label 1 keeps a token. tokenizer: a plain one. layout: what stands around a text. max_length: tokens of an
    input, at most."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    layout: PairFormat
    max_length: int


def new_word_pruner(base: str | Path) -> WordPruner:
    """A word pruner to be trained, from a plain encoder, or one trained before (its head is then kept).

    Draws from torch's global generator. Raises CheckpointError when there is no such base, or no tokenizer in it.
    """
    folder = resolve(base)
    with no_bars_off_terminal():
        model = AutoModelForTokenClassification.from_pretrained(
            folder, num_labels=2, attn_implementation="eager", dtype=torch.float32
        )
    tokenizer = read_tokenizer(folder, model.config)
    return WordPruner(model, tokenizer, pair_format(tokenizer, type_ids=False), position_limit(model.config))


def save_word_pruner(pruner: WordPruner, folder: Path) -> None:
    """As a stock transformers checkpoint, which other tools can load too."""
    with no_bars_off_terminal():
        pruner.model.save_pretrained(folder)
    named_tokenizer(pruner.tokenizer).save(str(folder / "tokenizer.json"))
