"""Export a torch encoder to int8 ONNX with a report of how close it stays to the original, and a model card.

    python -m ctxprune.trainers.shared.export encoder --base MODEL --qa FILE --out FOLDER

makes the sentence encoder that ships in the package. Every figure of a card is its run's own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import nn

from ctxprune.data.questions import read_jsonl
from ctxprune.errors import InputError
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.runtime.onnx import DTYPE, MAX_LENGTH, SLOW_FUSIONS, OnnxRuntime
from ctxprune.runtime.weights import write_digests
from ctxprune.trainers.shared.rewrite import (
    MIN_LAYER_OUTPUTS,
    THRESHOLD,
    ParityReport,
    Unpadded,
    measure,
    prepared,
    shrink,
    smooth,
)

#: The first opset with GELU as one operator.
OPSET = 20


def export_int8(
    module: nn.Module,
    folder: Path,
    *,
    output_names: Sequence[str],
    parity_sequences: Sequence[TokenSequence],
    calibration: Sequence[TokenSequence] = (),
    max_length: int = 512,
    metadata: Mapping[str, str] | None = None,
    keep_fp32: bool = False,
    threshold: float = THRESHOLD,
    table_bits: int = 8,
) -> ParityReport:
    """Write model.onnx, digests.json and parity.json into `folder`, and return what parity.json says.

    module: called as module(input_ids, attention_mask, token_type_ids), all (batch, seq), returns tensors by name, the
    batch first; left as it is. The exported graph takes input_ids and token_type_ids and has no mask: rows of a batch
    must be equally long, and `OnnxRuntime` runs one at a time. Weights are int8 with one scale an output channel,
    activations get theirs while running; embeddings have one scale a row; small layers and layers over one vector a
    sequence stay fp32. parity_sequences: what to compare on. calibration: typical inputs, some dozens and none of the
    former; with them outlying channels are smoothed (see `rewrite.smooth`), which about halves the error.
    max_length: the longest input in tokens. metadata: kept in the file, as strings. keep_fp32: write model_fp32.onnx as
    well. threshold: keep probability at which the report counts the tokens that change sides. table_bits: of an
    embedding's values, 8 or 4.
    Raises InputError when there is nothing to compare on.
    """
    if not parity_sequences:
        raise InputError("parity_sequences is empty; pass some typical inputs, so that the export can be checked")
    folder.mkdir(parents=True, exist_ok=True)
    model = prepared(module, output_names)
    original = prepared(module, output_names)
    if keep_fp32:
        _write(model, folder / "model_fp32.onnx", max_length=max_length, metadata=metadata, int8=False)
    if calibration:
        smooth(model, calibration)
    shrink(model, table_bits=table_bits)
    path = folder / "model.onnx"
    _write(model, path, max_length=max_length, metadata=metadata, int8=True)
    write_digests(folder)
    with OnnxRuntime(path) as exported:
        report = measure(original, exported, parity_sequences, file_bytes=path.stat().st_size, threshold=threshold)
    (folder / "parity.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return report


def _write(model: Unpadded, path: Path, *, max_length: int, metadata: Mapping[str, str] | None, int8: bool) -> None:
    properties = {**(metadata or {}), DTYPE: "int8" if int8 else "float32", MAX_LENGTH: str(max_length)}
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        exported = Path(scratch) / "exported.onnx"
        _to_onnx(model, exported, max_length)
        if int8:
            quantised = Path(scratch) / "quantised.onnx"
            _quantise(exported, quantised)
            exported = quantised
        fused = Path(scratch) / "fused.onnx"
        _fuse(exported, fused)
        _finish(fused, path, properties)


def _to_onnx(model: Unpadded, path: Path, max_length: int) -> None:
    ids = torch.ones(2, min(37, max_length), dtype=torch.long)  # torch.export takes sizes 0 and 1 as constants
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=max_length)}
    program = torch.onnx.export(
        model,
        (ids, torch.zeros_like(ids)),
        input_names=["input_ids", "token_type_ids"],
        output_names=list(model.output_names),
        dynamic_shapes=(axes, axes),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(path)


def _quantise(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    widths = {table.name: table.dims[-1] for table in graph.initializer if len(table.dims) == 2}
    small = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and widths.get(node.input[1], 0) < MIN_LAYER_OUTPUTS
    ]
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],  # per tensor, more than twice as many tokens cross the threshold
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=small,
        extra_options={"MatMulConstBOnly": True},
    )


def _fuse(source: Path, target: Path) -> None:
    """The graph as ONNX Runtime would make it while loading, so that every loading need not."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
    )


def _finish(source: Path, target: Path, properties: Mapping[str, str]) -> None:
    """Add the properties, and take off what the exporter notes down: names of its source files and lines."""
    import onnx

    model = onnx.load(source)
    model.doc_string = model.graph.doc_string = ""
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for table in model.graph.initializer:
        del table.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save(model, target)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what was decided here (no preprocessing, unused names) and log each of their steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def model_card(
    name: str, *, base: str, about: str, files: str, recipe: str, explained: str, figures: Mapping[str, Any]
) -> str:
    """Markdown. about: a paragraph. files: a list of what is there and under which licence. recipe: data and command.
    explained: what the figures are."""
    return f"""---
license: apache-2.0
base_model: {base}
---
# {name}

{about}

{files}

## Recipe

{recipe}

## Figures

{explained}

```json
{json.dumps(figures, indent=1)}
```
"""


def command_line(module: str, arguments: argparse.Namespace) -> str:
    """The command that made a model, as a Markdown code block; options that are off or empty are left out."""
    options = []
    for name, value in vars(arguments).items():
        if value:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            options.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {shown}"))
    return f"    python -m {module} " + " ".join(options)


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
    card = encoder_card(report, agreement, base_name=arguments.base_name, qa=arguments.qa.name)
    (arguments.out / "README.md").write_text(card, encoding="utf-8")
    print(f"{arguments.out}: {report.file_bytes / 1e6:.1f} MB", *asdict(agreement).items())
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.trainers.shared.export", description=__doc__)
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
        max_length=module.config.max_position_embeddings,
    )
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
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


def encoder_card(report: ParityReport, agreement: Agreement, *, base_name: str, qa: str) -> str:
    """Markdown; every figure in it is measured by this script."""
    base = base_name.split("/")[-1]
    return model_card(
        "Sentence encoder, int8 ONNX",
        base=base_name,
        about=f"""\
`{base_name}` (Apache-2.0) with int8 weights and no further training,
for the dense retriever and the `embedding-sentences` baseline. A text's vector is the mean over its tokens'
`{OUTPUT}`, scaled to length one.""",
        files=f"""\
- `model.onnx` ({report.file_bytes / 1e6:.1f} MB): inputs `input_ids`, `token_type_ids` (batch, seq) int64, output
  `{OUTPUT}` (batch, seq, width) float32. There is no mask: run one sequence a call, without padding.
- `tokenizer.json`: the original's, without its truncation and padding.
- `parity.json`: the outputs compared with the original's.""",
        recipe=f"""\
    python -m ctxprune.trainers.shared.export encoder --base {base} --qa {qa} --out FOLDER

Weights of the linear layers are int8 with one scale an output channel, activations get theirs while running, embeddings
have one scale a row. Outlying input channels were first scaled down, with weights that make up for it, by the ranges
seen on the first {CALIBRATION_TEXTS} texts of the file; the figures are from other texts of that file.""",
        explained="""\
How close the vectors are to the original's in fp32: cosine between the two vectors of a text, share of questions with
the same best document, share of the ten best in common; and the token outputs.""",
        figures={**asdict(agreement), "tokens": report.tokens, OUTPUT: asdict(report.outputs[OUTPUT])},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
