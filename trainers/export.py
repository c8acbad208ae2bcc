"""Export a torch encoder to int8 ONNX with a report of how close it stays to the original.

    python -m ctxprune.trainers.export encoder --base MODEL --qa FILE --out FOLDER

makes the sentence encoder that ships in the package, with its model card (see `trainers/export_encoder.py`).
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from ctxprune.errors import InputError
from ctxprune.runtime.base import TokenSequence
from ctxprune.runtime.digests import write_digests
from ctxprune.runtime.onnx import DTYPE, MAX_LENGTH, SLOW_FUSIONS, OnnxRuntime
from ctxprune.trainers.parity import THRESHOLD, ParityReport, measure
from ctxprune.trainers.rewrite import MIN_LAYER_OUTPUTS, Unpadded, prepared, shrink, smooth

#: The first opset with GELU as one operator.
OPSET = 20


def export_int8(
    module: nn.Module,
    folder: Path,
    *,
    output_names: Sequence[str],
    parity_sequences: Sequence[TokenSequence],
    calibration: Sequence[TokenSequence] = (),
    tokenizer_json: Path | None = None,
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
    tokenizer_json: copied without its truncation and padding. max_length: the longest input in tokens. metadata: kept
    in the file, as strings. keep_fp32: write model_fp32.onnx as well. threshold: keep probability at
    which the report counts the tokens that change sides. table_bits: of an embedding's values, 8 or 4.
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
    if tokenizer_json is not None:
        copy_tokenizer(tokenizer_json, folder / "tokenizer.json")
    with OnnxRuntime(path) as exported:
        report = measure(original, exported, parity_sequences, file_bytes=path.stat().st_size, threshold=threshold)
    (folder / "parity.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return report


def copy_tokenizer(source: Path, target: Path) -> None:
    """Without truncation and padding: inputs are windowed by offsets instead, so that no text is lost unseen."""
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(target), pretty=False)


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


if __name__ == "__main__":
    from ctxprune.trainers.export_encoder import main

    sys.exit(main(sys.argv[1:]))
