"""Export a trained sentence selector as an int8 ONNX folder like the bundled encoder's, with settings and card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from ctxprune.errors import CheckpointError
from ctxprune.trainers.shared.export import WINDOW_TOKENS, Agreement, export_encoder
from ctxprune.trainers.shared.rewrite import ParityReport


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


def selector_card(
    report: ParityReport, agreement: Agreement, *, name: str, base: str, recipe: str, figures: dict[str, Any]
) -> str:
    """Markdown; every figure in it was measured by the run that wrote it."""
    return f"""---
license: apache-2.0
base_model: {base}
---
# {name}

A sentence selector after RECOMP's extractive compressor (Xu et al., ICLR 2024): a dual encoder whose question vector is
near to the sentences that help to answer it. A vector is the mean over the tokens' last hidden states, scaled to
length one; a sentence is read after its document's title and a line break.

- Base model: `{base}`
- `model.onnx` ({report.file_bytes / 1e6:.1f} MB, int8 weights), `tokenizer.json`, `recomp.json` (how to read it),
  `parity.json` (int8 against fp32 outputs)

## Recipe

{recipe or "not stated"}

## Figures

Sentence ranking on the validation questions before and after training, and the int8 vectors against those in fp32:

```json
{json.dumps({**figures, "int8": asdict(agreement)}, indent=1)}
```
"""
