"""Make a trained word pruner ready to ship: int8 ONNX with a parity report, its settings, and a model card.

    python -m ctxprune.trainers.llmlingua2.export --checkpoint FOLDER --validation TARGETS --out DIR

The trainer calls this at its end; run it alone to export again, or to export a published checkpoint.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ctxprune.compressors.llmlingua.checkpoint import KeepClassifier
from ctxprune.errors import InputError
from ctxprune.trainers.llmlingua2.items import encode_targets, text_sequences
from ctxprune.trainers.llmlingua2.pruner import RATES, WordPruner, evaluate, new_word_pruner
from ctxprune.trainers.llmlingua2.targets import WordTargets, read_targets
from ctxprune.trainers.shared.export import export_int8

#: Tokens of an input at run time: longer windows cost more attention and were rare in training.
WINDOW = 384
CALIBRATION_TEXTS, PARITY_TEXTS = 64, 200


@dataclass(frozen=True, slots=True, kw_only=True)
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
    texts = random.Random(seed).sample(list(validation), min(len(validation), CALIBRATION_TEXTS + PARITY_TEXTS))
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
    settings = {"name": card.name, "max_length": window, "default_threshold": threshold, "base": card.base}
    settings = {"format": 1, "kind": "llmlingua2"} | settings
    (out / "tokenclass.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    figures["parity"] = parity.to_dict()
    (out / "README.md").write_text(model_card(card, figures, threshold), encoding="utf-8")
    return figures


def model_card(card: Card, figures: dict[str, Any], threshold: float) -> str:
    """Markdown; its figures are measured by this script."""
    return f"""---
license: apache-2.0
base_model: {card.base}
---
# {card.name}

A word pruner after LLMLingua-2 (Pan et al., ACL 2024): one encoder pass over a text, whatever the question, gives the
log-odds of keeping every token.

- Base model: {card.base} ({card.licence})
- Files: `model.onnx` (int8 weights, one scale an output channel; output `keep`, (batch, seq) float32),
  `tokenizer.json`, `tokenclass.json` (window, threshold), `parity.json` (int8 against the fp32 original)
- Licence of the weights: Apache-2.0. The training data keeps its own licences, named below.
- `default_threshold` {threshold}: the keep probability at which half of the words of the validation texts stay.

## Recipe

{card.recipe}

## Figures

`validation`: in fp32, against the teacher's targets on texts that were not trained on; a word is wanted from a target
of 0.5 on. `kept_at_R`: wanted words that stay when a text is cut to the share R of its words; `runs_at_R`: runs of
neighbouring wanted words that stay whole. `parity`: int8 against fp32.

```json
{json.dumps(figures, indent=1)}
```
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Export a trained word pruner to int8 ONNX and write its model card")
    made.add_argument("--checkpoint", required=True, type=Path, help="folder that the trainer saved")
    made.add_argument("--validation", required=True, help="a teacher's file of texts that were not trained on")
    made.add_argument("--out", required=True, type=Path)
    made.add_argument("--name", default="llmlingua2-mini")
    made.add_argument("--base-name", default="not stated")
    made.add_argument("--base-licence", default="not stated")
    made.add_argument("--recipe", default="", help="how data and model were made, for the card")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    card = Card(name=arguments.name, base=arguments.base_name, licence=arguments.base_licence, recipe=arguments.recipe)
    validation = list(islice(read_targets(arguments.validation), 2000))
    figures = export_word_pruner(new_word_pruner(arguments.checkpoint), arguments.out, validation=validation, card=card)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
