"""Export a sentence encoder for the dense retriever, and write its model card with what was measured.

python -m ctxprune.trainers.export encoder --base MODEL --qa FILE --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ctxprune.qa import read_jsonl
from ctxprune.runtime.base import TokenSequence
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.quiet import no_bars_off_terminal
from ctxprune.trainers.parity import ParityReport
from ctxprune.trainers.rewrite import prepared

OUTPUT = "last_hidden_state"
#: The model was trained on at most so many tokens.
WINDOW_TOKENS = 256
CALIBRATION_TEXTS = 64

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """int8 against fp32 sentence vectors (mean over tokens, length one) of questions and documents.

    cosine_mean, cosine_min: between the two vectors of a text. top1, top10: share of the fp32 ranking's best document,
    or best ten, that the int8 ranking also puts first, or among its ten; mean over the questions.
    """

    questions: int
    documents: int
    cosine_mean: float
    cosine_min: float
    top1: float
    top10: float


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    report, agreement = export_encoder(
        arguments.base, arguments.qa, arguments.out, questions=arguments.questions, documents=arguments.documents
    )
    card = model_card(report, agreement, base_name=arguments.base_name, qa=arguments.qa.name)
    (arguments.out / "README.md").write_text(card, encoding="utf-8")
    print(f"{arguments.out}: {report.file_bytes / 1e6:.1f} MB", *asdict(agreement).items())
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.trainers.export", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    encoder = commands.add_parser("encoder", help="a BERT sentence encoder, to int8 ONNX with a model card")
    encoder.add_argument("--base", type=Path, required=True, help="folder of the encoder")
    encoder.add_argument("--base-name", default="sentence-transformers/all-MiniLM-L6-v2", help="its name in the card")
    encoder.add_argument("--qa", type=Path, required=True, help="questions with documents (JSONL), to measure on")
    encoder.add_argument("--out", type=Path, required=True)
    encoder.add_argument("--questions", type=int, default=300, help="how many to measure on")
    encoder.add_argument("--documents", type=int, default=500, help="how many to measure on")
    return parser.parse_args(argv)


def export_encoder(
    base: Path, qa: Path, out: Path, *, questions: int, documents: int
) -> tuple[ParityReport, Agreement]:
    """Export `base`; the first texts of `qa` calibrate, the ones after them are measured on."""
    from transformers import AutoModel

    from ctxprune.trainers.export import export_int8

    with no_bars_off_terminal():
        module = AutoModel.from_pretrained(base)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    asked, passages = _texts(qa)
    half = CALIBRATION_TEXTS // 2
    held_questions = list(_sequences(tokenizer, asked[half : half + questions]))
    held_documents = list(_sequences(tokenizer, passages[half : half + documents]))
    report = export_int8(
        module,
        out,
        output_names=[OUTPUT],
        parity_sequences=held_documents[:200],
        calibration=list(_sequences(tokenizer, asked[:half] + passages[:half])),
        tokenizer_json=base / "tokenizer.json",
        max_length=module.config.max_position_embeddings,
    )
    reference = prepared(module, [OUTPUT])
    exact = _unit(reference.run(each)[OUTPUT].numpy() for each in held_questions + held_documents)
    with OnnxRuntime(out / "model.onnx") as runtime:
        quantised = _unit(output[OUTPUT] for output in runtime.forward(held_questions + held_documents))
    return report, agree(exact, quantised, questions=len(held_questions))


def agree(exact: Vectors, quantised: Vectors, *, questions: int) -> Agreement:
    """exact, quantised: (questions + documents, width), rows of length one, the questions first."""
    cosines = (exact * quantised).sum(axis=1)
    right, ours = (np.argsort(-(rows[:questions] @ rows[questions:].T), axis=1) for rows in (exact, quantised))
    return Agreement(
        questions=questions,
        documents=len(exact) - questions,
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        top1=float((right[:, 0] == ours[:, 0]).mean()),
        top10=float(np.mean([np.isin(a[:10], b[:10]).mean() for a, b in zip(right, ours, strict=True)])),
    )


def _texts(qa: Path) -> tuple[list[str], list[str]]:
    """Questions and documents, each once, in the file's order."""
    questions, passages = [], []
    for question in read_jsonl(qa):
        questions.append(question.text)
        passages += [labelled.document.text for labelled in question.documents]
    return list(dict.fromkeys(questions)), list(dict.fromkeys(passages))


def _sequences(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[TokenSequence]:
    for encoding in tokenizer.encode_batch(list(texts)):
        ids = np.array(encoding.ids, dtype=np.int64)
        if len(ids) > WINDOW_TOKENS:  # its end is cut off, and the closing token kept
            ids = np.append(ids[: WINDOW_TOKENS - 1], ids[-1])
        yield TokenSequence(ids, np.zeros_like(ids))


def _unit(outputs: Iterable[npt.NDArray[np.float32]]) -> Vectors:
    """outputs: (seq, width) each. Returns (n, width), the means over the tokens, scaled to length one."""
    means = np.stack([output.mean(axis=0, dtype=np.float64) for output in outputs])
    vectors: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return vectors


def model_card(report: ParityReport, agreement: Agreement, *, base_name: str, qa: str) -> str:
    """Markdown; every figure in it is measured by this script."""
    hidden = report.outputs[OUTPUT]
    return f"""---
license: apache-2.0
base_model: {base_name}
---
# Sentence encoder, int8 ONNX

`{base_name}` (Apache-2.0) with int8 weights and no further training,
for the dense retriever and the `embedding-sentences` baseline. A text's vector is the mean over its tokens'
`{OUTPUT}`, scaled to length one.

- `model.onnx` ({report.file_bytes / 1e6:.1f} MB): inputs `input_ids`, `token_type_ids` (batch, seq) int64, output
  `{OUTPUT}` (batch, seq, width) float32. There is no mask: run one sequence a call, without padding.
- `tokenizer.json`: the original's, without its truncation and padding.
- `parity.json`: the outputs compared with the original's.

## How it was made

    python -m ctxprune.trainers.export encoder --base {base_name.split("/")[-1]} --qa {qa} --out FOLDER

Weights of the linear layers are int8 with one scale an output channel, activations get theirs while running, embeddings
have one scale a row. Outlying input channels were first scaled down, with weights that make up for it, by the ranges
seen on the first {CALIBRATION_TEXTS} texts of the file; the figures are from other texts of that file.

## How close it is to the original in fp32

| | |
|---|---|
| cosine between the vectors of a text, mean / lowest of {agreement.questions + agreement.documents} | \
{agreement.cosine_mean:.4f} / {agreement.cosine_min:.4f} |
| same best document ({agreement.questions} questions, {agreement.documents} documents) | {agreement.top1:.1%} |
| shared among the best ten | {agreement.top10:.1%} |
| token outputs: correlation / largest difference ({report.tokens} tokens) | \
{hidden.correlation:.4f} / {hidden.max_abs_difference:.3f} |
"""
