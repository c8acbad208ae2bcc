"""The word pruner that the LLMLingua-2 trainer trains: made from an encoder, saved as a stock checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForTokenClassification, PreTrainedModel

from ctxprune.models.backbones import position_limit
from ctxprune.models.checkpoint import read_tokenizer, resolve
from ctxprune.models.formats import PairFormat, named_tokenizer, pair_format
from ctxprune.runtime.quiet import no_bars_off_terminal


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
