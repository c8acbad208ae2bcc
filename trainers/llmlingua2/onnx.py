"""Put a token classifier on ONNX Runtime as it is, in fp32 and in int8, for CPUs: the published checkpoints too.

    python -m ctxprune.trainers.llmlingua2.onnx --checkpoint FOLDER --texts FILE --out DIR

writes DIR/fp32 and DIR/int8. Either goes where a model is asked for: `load("llmlingua2", model="DIR/fp32")` or
`PromptCompressor("DIR/int8")`. The fp32 graph makes the decisions of the checkpoint, in less time than torch takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ctxprune.compressors.llmlingua.checkpoint import LoadedTokenClassifier, load_token_classifier
from ctxprune.compressors.llmlingua.model import CONFIG
from ctxprune.data.corpus import read_corpus
from ctxprune.trainers.llmlingua2.items import text_sequences
from ctxprune.trainers.shared.export import export_int8
from ctxprune.trainers.shared.rewrite import ParityReport

#: P(keep) from which a word stays where no rate is given, as for the checkpoint itself.
THRESHOLD = 0.5
CALIBRATION_TEXTS, PARITY_TEXTS = 64, 100


def export_checkpoint(loaded: LoadedTokenClassifier, out: Path, *, texts: Sequence[str], name: str) -> ParityReport:
    """Write `out`/fp32 and `out`/int8, each with model.onnx, tokenizer.json and tokenclass.json; int8 against fp32.

    texts: like those that will be compressed; one in four, at most 64, calibrates the int8 activations, and int8 is
    measured against fp32 on up to 100 of the others. Raises InputError for fewer than two texts.
    """
    split = min(CALIBRATION_TEXTS, len(texts) // 4)
    sequences = [
        list(text_sequences(loaded.tokenizer, loaded.layout, part, loaded.max_length))
        for part in (texts[:split], texts[split : split + PARITY_TEXTS])
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
        threshold=THRESHOLD,
    )
    folders["fp32"].mkdir(exist_ok=True)
    (folders["int8"] / "model_fp32.onnx").replace(folders["fp32"] / "model.onnx")
    for kind, folder in folders.items():
        _describe(loaded, folder, f"{name} {kind}")
    return parity


def _describe(loaded: LoadedTokenClassifier, folder: Path, name: str) -> None:
    loaded.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"format": 1, "kind": "llmlingua2", "name": name, "max_length": loaded.max_length}
    settings |= {"default_threshold": THRESHOLD, "rows": loaded.rows}
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Export a token classifier to ONNX, in fp32 and int8, without training")
    made.add_argument("--checkpoint", required=True, help="folder or hub id of a *ForTokenClassification checkpoint")
    made.add_argument("--texts", required=True, type=Path, help="texts to calibrate and check int8 on (JSONL or .txt)")
    made.add_argument("--out", required=True, type=Path)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    documents = islice(read_corpus(arguments.texts), CALIBRATION_TEXTS + PARITY_TEXTS)
    texts = [document.text for document in documents if document.text.strip()]
    name = Path(arguments.checkpoint).name
    parity = export_checkpoint(load_token_classifier(arguments.checkpoint), arguments.out, texts=texts, name=name)
    print(json.dumps(parity.to_dict(), indent=1))


if __name__ == "__main__":
    main()
