"""A word pruner made, measured, saved, and exported to ship: int8 ONNX with parity report, settings and model card.

    python -m ctxprune.trainers.llmlingua2.export --checkpoint FOLDER --validation TARGETS --out DIR
    python -m ctxprune.trainers.llmlingua2.export --checkpoint FOLDER --texts FILE --out DIR

The trainer does the first at its end; run it alone to export again. The second puts any token classifier on ONNX
Runtime as it is, the published checkpoints too: DIR/fp32 makes the decisions of the checkpoint in less time than torch
takes, DIR/int8 is faster again. Either goes where a model is asked for: `load("llmlingua2", model="DIR/fp32")` or
`PromptCompressor("DIR/int8")`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification, PreTrainedModel

from ctxprune.compressors.llmlingua.checkpoint import KeepClassifier, LoadedTokenClassifier, load_token_classifier
from ctxprune.compressors.llmlingua.model import CONFIG
from ctxprune.data.corpus import read_corpus
from ctxprune.errors import InputError
from ctxprune.models.encoders import position_limit
from ctxprune.models.formats import PairFormat, named_tokenizer, pair_format
from ctxprune.models.hub import read_tokenizer, resolve
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.trainers.llmlingua2.items import WordItem, collate_words, encode_targets, text_sequences
from ctxprune.trainers.llmlingua2.targets import WordTargets, read_targets
from ctxprune.trainers.shared.corpora import drawn
from ctxprune.trainers.shared.export import export_int8, model_card
from ctxprune.trainers.shared.loop import IGNORE, auc
from ctxprune.trainers.shared.rewrite import ParityReport

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


#: Tokens of an input at run time: longer windows cost more attention and were rare in training.
WINDOW = 384
CALIBRATION_TEXTS, PARITY_TEXTS = 64, 200


@dataclass(frozen=True, slots=True)
class Card:
    """What the model card says besides the figures. base: the encoder's name. recipe: Markdown: data, command."""

    name: str
    base: str
    licence: str
    recipe: str


def export_word_pruner(
    pruner: WordPruner, out: Path, *, validation: Sequence[WordTargets], card: Card, seed: int = 13
) -> dict[str, Any]:
    """Write model.onnx, tokenizer.json, parity.json, tokenclass.json and README.md into `out`; returns the figures.

    validation: texts that were not trained on; a part calibrates the int8 weights, the others are measured on, and give
    the default threshold: the keep probability at which half of their words stay.
    Raises InputError for fewer than 8 validation texts.
    """
    if len(validation) < 8:
        raise InputError(f"an export is checked on at least 8 validation texts, got {len(validation)}; pass more")
    texts = drawn(validation, CALIBRATION_TEXTS + PARITY_TEXTS, seed)
    split = min(CALIBRATION_TEXTS, len(texts) // 4)
    window = min(WINDOW, pruner.max_length)
    items = encode_targets(texts[split:], pruner.tokenizer, pruner.layout, max_length=window)
    module = KeepClassifier(pruner.model)
    figures: dict[str, Any] = {
        "validation": evaluate(module, items, pad_id=0, accelerator=Accelerator(cpu=True), size=8)
    }
    threshold = round(figures["validation"][f"threshold_at_{RATES[0]}"], 4)
    sequences = [
        list(text_sequences(pruner.tokenizer, pruner.layout, [item.text for item in part], window))
        for part in (texts[:split], texts[split:])
    ]
    out.mkdir(parents=True, exist_ok=True)
    pruner.tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    parity = export_int8(
        module,
        out,
        output_names=["keep"],
        parity_sequences=sequences[1],
        calibration=sequences[0],
        max_length=pruner.max_length,
        metadata={"ctxprune.name": card.name},
        threshold=threshold,
    )
    _describe(out, card.name, max_length=window, default_threshold=threshold, base=card.base)
    figures["parity"] = parity.to_dict()
    (out / "README.md").write_text(_card(card, figures, threshold), encoding="utf-8")
    return figures


def _describe(out: Path, name: str, **fields: object) -> None:
    settings = {"format": 1, "kind": "llmlingua2", "name": name, **fields}
    (out / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


#: Of an export as it is: P(keep) from which a word stays where no rate is given, as for the checkpoint itself, and the
#: texts that int8 is compared on.
AS_IS_THRESHOLD, CHECKED_TEXTS = 0.5, 100


def export_checkpoint(loaded: LoadedTokenClassifier, out: Path, *, texts: Sequence[str], name: str) -> ParityReport:
    """Write `out`/fp32 and `out`/int8, each with model.onnx, tokenizer.json and tokenclass.json; int8 against fp32.

    texts: like those that will be compressed; one in four, at most 64, calibrates the int8 activations, and int8 is
    measured against fp32 on up to 100 of the others. Raises InputError for fewer than two texts.
    """
    split = min(CALIBRATION_TEXTS, len(texts) // 4)
    sequences = [
        list(text_sequences(loaded.tokenizer, loaded.layout, part, loaded.max_length))
        for part in (texts[:split], texts[split : split + CHECKED_TEXTS])
    ]
    folders = {kind: out / kind for kind in ("int8", "fp32")}
    parity = export_int8(
        loaded.module,
        folders["int8"],
        output_names=["keep"],
        parity_sequences=sequences[1],
        calibration=sequences[0],
        max_length=loaded.max_length,
        metadata={"ctxprune.name": name},
        keep_fp32=True,
        threshold=AS_IS_THRESHOLD,
    )
    folders["fp32"].mkdir(exist_ok=True)
    (folders["int8"] / "model_fp32.onnx").replace(folders["fp32"] / "model.onnx")
    for kind, folder in folders.items():
        loaded.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        fields = {"default_threshold": AS_IS_THRESHOLD, "rows": loaded.rows}
        _describe(folder, f"{name} {kind}", max_length=loaded.max_length, **fields)
    return parity


_ABOUT = """\
A word pruner after LLMLingua-2 (Pan et al., ACL 2024): one encoder pass over a text, whatever the question, gives the
log-odds of keeping every token."""
_FILES = """\
- Files: `model.onnx` (int8 weights, one scale an output channel; output `keep`, (batch, seq) float32),
  `tokenizer.json`, `tokenclass.json` (window, threshold), `parity.json` (int8 against the fp32 original)
- Licence of the weights: Apache-2.0. The training data keeps its own licences, named below."""
_EXPLAINED = """\
`validation`: in fp32, against the teacher's targets on texts that were not trained on; a word is wanted from a target
of 0.5 on. `kept_at_R`: wanted words that stay when a text is cut to the share R of its words; `runs_at_R`: runs of
neighbouring wanted words that stay whole. `parity`: int8 against fp32."""


def _card(card: Card, figures: dict[str, Any], threshold: float) -> str:
    half = "the keep probability at which half of the words of the validation texts stay."
    return model_card(
        card.name,
        base=card.base,
        about=_ABOUT,
        files=f"- Base model: {card.base} ({card.licence})\n{_FILES}\n- `default_threshold` {threshold}: {half}",
        recipe=card.recipe,
        explained=_EXPLAINED,
        figures=figures,
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Export a word pruner to int8 ONNX, with a model card or as it is")
    made.add_argument("--checkpoint", required=True, help="folder or hub id of a *ForTokenClassification checkpoint")
    data = made.add_mutually_exclusive_group(required=True)
    data.add_argument("--validation", help="a teacher's file of texts that were not trained on: with a model card")
    data.add_argument("--texts", type=Path, help="texts to calibrate and check int8 on (JSONL or .txt): as it is")
    made.add_argument("--out", required=True, type=Path)
    made.add_argument("--name", default="llmlingua2-mini")
    made.add_argument("--base-name", default="not stated")
    made.add_argument("--base-licence", default="not stated")
    made.add_argument("--recipe", default="", help="how data and model were made, for the card")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    if arguments.texts:
        documents = islice(read_corpus(arguments.texts), CALIBRATION_TEXTS + CHECKED_TEXTS)
        texts = [document.text for document in documents if document.text.strip()]
        loaded, name = load_token_classifier(arguments.checkpoint), Path(arguments.checkpoint).name
        figures = export_checkpoint(loaded, arguments.out, texts=texts, name=name).to_dict()
    else:
        card = Card(arguments.name, arguments.base_name, arguments.base_licence, arguments.recipe)
        pruner, held = new_word_pruner(arguments.checkpoint), list(islice(read_targets(arguments.validation), 2000))
        figures = export_word_pruner(pruner, arguments.out, validation=held, card=card)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
