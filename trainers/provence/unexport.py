"""Read an int8 export of a pruner back into a checkpoint that training can go on from.

    python -m ctxprune.trainers.provence.unexport --export FOLDER --base MODEL --out FOLDER

So the bundled model can be fine-tuned on one's own questions although only its int8 weights are shipped: give the
result to `ctxprune train provence --warm-start`. base: the encoder that the export was trained from; its config and
tokenizer are taken as they are, and so are its embeddings where the export's are theirs but for the rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ctxprune.compressors.provence.model import LoadedPruner, new_pruner, save_pruner
from ctxprune.errors import CheckpointError
from ctxprune.trainers.shared.rewrite import Int4Embedding
from ctxprune.trainers.shared.sharing import load_whole

Tables = Mapping[str, npt.NDArray[Any]]
#: What `trainers.rewrite` puts before the names of the module that it wraps.
_WRAPPED = "encoder."
_HEADS = {"token_logits": "pruning_head.classifier.weight", "answer_logits": "answer_head.weight"}


def read_back(export: Path, base: str) -> LoadedPruner:
    """A pruner with the weights of `export`, in fp32.

    Raises CheckpointError when the export is no pruner made from `base`.
    """
    from onnx import numpy_helper

    graph = load_whole(export).graph
    tables = {table.name: numpy_helper.to_array(table) for table in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    weights = {name: torch.tensor(values) for name, values in _named(graph, tables, makers)}
    pruner = new_pruner(base, answer_head="answer_head.bias" in weights)
    state = pruner.module.state_dict()
    missing = [name for name in state if name not in weights]
    wrong = [name for name, values in weights.items() if name in state and state[name].shape != values.shape]
    if missing or wrong:
        name = (missing + wrong)[0]
        raise CheckpointError(f"{export} is no export of a pruner of {base}: {name} is missing or of another shape")
    pruner.module.load_state_dict({name: _exact(state[name], weights[name]) for name in state})
    return pruner


def _exact(base: torch.Tensor, exported: torch.Tensor) -> torch.Tensor:
    """The base's values where the exported ones are theirs, rounded to int8 with one scale a row."""
    step = base.abs().amax(dim=-1, keepdim=True) / 127
    return base if bool(((base - exported).abs() <= 0.51 * step).all()) else exported


def _named(graph: Any, tables: Tables, makers: Mapping[str, Any]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """(name in the checkpoint, values) of every weight that the graph holds by name or beside a bias of known name."""
    for name, values in tables.items():
        wrapped = name.startswith(_WRAPPED) and values.dtype == np.float32
        if wrapped and not name.endswith((".inverse", ".scale")) and "_Transposed" not in name:
            yield name.removeprefix(_WRAPPED), values
        elif name.startswith(_WRAPPED) and name.endswith(".weight") and values.dtype == np.int8:  # an embedding table
            yield name.removeprefix(_WRAPPED), values * tables[name.removesuffix("weight") + "scale"]
        elif name.startswith(_WRAPPED) and name.endswith(".weight") and values.dtype == np.uint8:  # one of 4 bits
            scale = torch.tensor(tables[name.removesuffix("weight") + "scale"])
            yield name.removeprefix(_WRAPPED), Int4Embedding.decoded(torch.tensor(values), scale).numpy()
    for node in graph.node:
        quantised = next((name for name in node.input if name.endswith("_quantized") and name in tables), None)
        if quantised is not None:
            yield _name_of(node, quantised), _layer(node, quantised, tables, makers)
    for output, name in _HEADS.items():
        kernel = _kernel(output, tables, makers)
        if kernel is not None:
            yield name, kernel


def _layer(node: Any, quantised: str, tables: Tables, makers: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """(outputs, inputs): int8 times scale, and what `rewrite.smooth` moved from the inputs into the weights moved
    back."""
    scale = tables[quantised.removesuffix("_quantized") + "_scale"]
    layer = tables[quantised].astype(np.float32) * scale
    inverse = _inverse(node.input[0], tables, makers)
    return np.ascontiguousarray((layer if inverse is None else layer * inverse[:, None]).T)


def _name_of(node: Any, quantised: str) -> str:
    bias = next((name for name in node.input if name.endswith(".bias")), None)
    name = quantised.split("_Transposed")[0] if bias is None else bias.removesuffix("bias") + "weight"
    return name.removeprefix(_WRAPPED)


def _inverse(name: str, tables: Tables, makers: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """The vector that a layer's input is multiplied by before it, if there is one."""
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type == "DynamicQuantizeLinear":
        return _inverse(node.input[0], tables, makers)
    if node.op_type != "Mul":
        return None
    return next((tables[each] for each in node.input if each.endswith(".inverse")), None)


def _kernel(output: str, tables: Tables, makers: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """The fp32 weights of the small layer that an output comes from, (outputs, inputs)."""
    node = makers.get(output)
    while node is not None and node.op_type != "MatMul":
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is None:
        return None
    return np.ascontiguousarray(next(tables[name] for name in node.input if name in tables).T)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Read an int8 export of a pruner back into a checkpoint")
    parser.add_argument("--export", required=True, type=Path, help="folder with model.onnx")
    parser.add_argument("--base", required=True, help="the encoder that it was trained from: a folder or a hub id")
    parser.add_argument("--out", required=True, type=Path, help="folder for the checkpoint")
    arguments = parser.parse_args(argv)
    save_pruner(read_back(arguments.export, arguments.base), arguments.out)
    print(f"{arguments.out}: give it to `ctxprune train provence --warm-start`")


if __name__ == "__main__":
    main()
