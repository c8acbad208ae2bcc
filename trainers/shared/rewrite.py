"""Rewrite an encoder in torch so that its int8 export is small, fast and close to the original."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from ctxprune.errors import InputError
from ctxprune.runtime import EncoderOutput, EncoderRuntime, TokenSequence

#: Encoders in which every token sees every other: a sequence without padding needs no mask there.
GLOBAL_ATTENTION = ("bert", "roberta", "xlm-roberta")
UNMASKED = "ctxprune_unmasked"
#: Smaller tables and layers stay fp32: they weigh little, and the last layers' errors reach the scores undamped.
MIN_TABLE_ROWS, MIN_LAYER_OUTPUTS = 1024, 16
#: A channel that reaches beyond so many times the median channel is scaled down to it.
REACH = 3.0
#: Values that share a scale in a table of 4 bits.
BLOCK = 32


class Unpadded(nn.Module):
    """An encoder for sequences without padding: (input_ids, token_type_ids), both (batch, seq), to a tuple of outputs.

    encoder: called as encoder(input_ids, attention_mask, token_type_ids), returns the outputs by name.
    """

    def __init__(self, encoder: nn.Module, output_names: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.output_names = tuple(output_names)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        outputs = self.encoder(input_ids, torch.ones_like(input_ids), token_type_ids)
        return tuple(outputs[name] for name in self.output_names)

    def run(self, sequence: TokenSequence) -> dict[str, Tensor]:
        """The outputs of one sequence by name, without the batch axis."""
        with torch.inference_mode():
            outputs = self(torch.tensor(sequence.ids)[None], torch.tensor(sequence.type_ids)[None])
        return {name: output[0] for name, output in zip(self.output_names, outputs, strict=True)}


def prepared(module: nn.Module, output_names: Sequence[str]) -> Unpadded:
    """A copy on the CPU, in fp32 and eval mode, whose attention exports to few operators."""
    encoder = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    AttentionInterface.register(UNMASKED, _unmasked_attention)
    for model in encoder.modules():
        if isinstance(model, PreTrainedModel):
            simple = model.config.model_type in GLOBAL_ATTENTION
            model.set_attn_implementation(UNMASKED if simple else "eager")
    return Unpadded(encoder, output_names).eval()


def shrink(model: nn.Module, *, table_bits: int = 8) -> None:
    """Replace large embedding tables by ones of 8 or 4 bits a value, in place. Raises InputError for other bits."""
    if table_bits not in (4, 8):
        raise InputError(f"table_bits must be 4 or 8, got {table_bits}")
    kind = Int8Embedding if table_bits == 8 else Int4Embedding
    for name, table in list(model.named_modules()):
        if isinstance(table, nn.Embedding) and table.num_embeddings >= MIN_TABLE_ROWS:
            model.set_submodule(name, kind(table))


def smooth(model: Unpadded, sequences: Sequence[TokenSequence]) -> None:
    """Take outlying channels out of the linear layers' inputs and into their weights, in place; exact in fp32.

    A layer's int8 inputs share one scale, so that a single channel that reaches far costs all others their precision
    (MiniLM has some that reach 15 times the median), while the weights have a scale for every output. The idea is of
    Xiao et al., "SmoothQuant", 2023; here a channel is only ever scaled down, so one that the sequences never excite
    cannot be blown up. sequences: typical inputs, some dozens.
    """
    for names, peaks in _input_peaks(model, sequences):
        scale = (peaks / (REACH * peaks.median())).clamp(min=1.0)
        if bool((scale > 1.0).any()):
            inverse = nn.Parameter(1.0 / scale, requires_grad=False)  # one object, so that the export multiplies once
            for name in names:
                linear = cast(nn.Linear, model.get_submodule(name))
                model.set_submodule(name, SmoothedLinear(linear, inverse))


def _input_peaks(model: Unpadded, sequences: Sequence[TokenSequence]) -> Iterator[tuple[list[str], Tensor]]:
    """The largest magnitude of every input channel, (width,), with the layers that read that same input."""
    linears = [(name, layer) for name, layer in model.named_modules() if _is_quantised(layer)]
    inputs: dict[str, Tensor] = {}
    peaks: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs[name] = args[0]
            peak = args[0].abs().flatten(0, -2).amax(dim=0)
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in linears]
    for sequence in sequences:
        model.run(sequence)
    for handle in handles:
        handle.remove()
    groups: dict[int, list[str]] = {}
    for name, tensor in inputs.items():
        if tensor.dim() == 3:  # layers over one vector a sequence are not quantised
            groups.setdefault(id(tensor), []).append(name)
    for names in groups.values():
        yield names, peaks[names[0]].clone()


def _is_quantised(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.out_features >= MIN_LAYER_OUTPUTS


class SmoothedLinear(nn.Module):
    """The linear layer over inputs multiplied by `inverse`, (in_features,), with weights that make up for it."""

    def __init__(self, linear: nn.Linear, inverse: nn.Parameter) -> None:
        super().__init__()
        self.inverse = inverse
        self.weight = nn.Parameter(linear.weight / inverse, requires_grad=False)
        self.bias = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden * self.inverse, self.weight, self.bias)


class Int8Embedding(nn.Module):
    """An embedding table of int8 values with one scale a row: (...,) ids to (..., width) float32."""

    weight: Tensor
    scale: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        scale = table.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        scale[scale == 0] = 1.0
        self.register_buffer("weight", (table.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float() * F.embedding(ids, self.scale)


class Int4Embedding(nn.Module):
    """An embedding table of 4 bits a value with one scale for 32 values: (...,) ids to (..., width) float32.

    A byte holds the value of a column of the row's first half (low bits) and of its second half: 0 to 15 for -8 to 7
    times the scale. Half as large as int8; of use where the base came in 4 bits already: its values are found
    again but for the rounding of the scales.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        values, scale = quantised_blocks(table.weight.detach().float())
        half = values.shape[1] // 2
        self.register_buffer("weight", values[:, :half] | (values[:, half:] << 4))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoded(F.embedding(ids, self.weight), F.embedding(ids, self.scale))

    @staticmethod
    def decoded(packed: Tensor, scale: Tensor) -> Tensor:
        """packed: (..., width / 2) uint8; scale: (..., width / 32) float16. Returns (..., width) float32."""
        whole = packed.float()
        high = (whole / 16).floor()  # the exporter has no shift of uint8
        values = torch.cat([whole - 16 * high, high], dim=-1) - 8.0
        blocks = values.reshape(*values.shape[:-1], -1, BLOCK)
        decoded: Tensor = (blocks * scale.float().unsqueeze(-1)).flatten(-2)
        return decoded


def quantised_blocks(table: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, width) fp32 to (rows, width) uint8 of 0 to 15 and (rows, width / 32) float16 scales.

    Of the scales that put a block's largest value on a whole step, either sign, the one with the smallest error.
    Raises InputError for a width that is no multiple of 64.
    """
    if table.shape[1] % (2 * BLOCK):
        raise InputError(f"a table of 4 bits needs a width that is a multiple of {2 * BLOCK}, got {table.shape[1]}")
    blocks = table.reshape(len(table), -1, BLOCK)
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    best, scale = torch.full_like(largest, torch.inf), torch.ones_like(largest)
    for steps in (-8.0, 7.0, -7.0, 6.0, -6.0, 5.0, -5.0, 4.0, -4.0, 3.0, -3.0, 2.0, -2.0, 1.0, -1.0):
        tried = (largest / steps).half().float()
        tried[tried == 0] = 1.0
        error = ((blocks / tried).round().clamp(-8, 7) * tried - blocks).square().sum(-1, keepdim=True)
        scale, best = torch.where(error < best, tried, scale), torch.minimum(error, best)
    values = ((blocks / scale).round().clamp(-8, 7) + 8).to(torch.uint8)
    return values.flatten(-2), scale.squeeze(-1).half()


def _unmasked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Softmax attention over all tokens, as transformers calls it. query, key, value: (batch, heads, seq, width).

    Returns (batch, seq, heads, width). The mask is left out: there is no padding.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = (query @ key.transpose(2, 3) * scaling).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


Floats = npt.NDArray[np.floating[Any]]
#: Keep probability at which a token is kept by default; how many tokens change sides there is what users would see.
THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class OutputParity:
    """correlation: Pearson's, over all values (1.0 when both are constant). max_abs_difference: the largest one."""

    correlation: float
    max_abs_difference: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Exported against original outputs. crossing: share of passage tokens whose keep probability lies on
    different sides of `threshold`; None for an encoder that has neither `token_logits` nor `keep` log-odds."""

    outputs: dict[str, OutputParity]
    crossing: float | None
    threshold: float
    sequences: int
    tokens: int
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    original: Unpadded,
    exported: EncoderRuntime,
    sequences: Sequence[TokenSequence],
    *,
    file_bytes: int,
    threshold: float = THRESHOLD,
) -> ParityReport:
    """sequences: at least one, of the kind that the model will see; those used to calibrate would flatter it."""
    expected = [{name: value.numpy() for name, value in original.run(sequence).items()} for sequence in sequences]
    actual = exported.forward(sequences)
    return ParityReport(
        outputs={name: compare(_joined(expected, name), _joined(actual, name)) for name in original.output_names},
        crossing=_crossing(expected, actual, sequences, threshold),
        threshold=threshold,
        sequences=len(sequences),
        tokens=sum(map(len, sequences)),
        file_bytes=file_bytes,
    )


def compare(expected: Floats, actual: Floats) -> OutputParity:
    """Two arrays of the same shape."""
    if np.ptp(expected) == 0 or np.ptp(actual) == 0:
        correlation = float(np.allclose(expected, actual))
    else:
        correlation = np.corrcoef(expected.ravel(), actual.ravel())[0, 1]
    return OutputParity(float(correlation), float(np.abs(expected - actual).max()))


def keep_probability(output: EncoderOutput) -> Floats | None:
    """From `keep` log-odds (seq,) or from `token_logits` (seq, 2), remove and keep. Returns (seq,) in [0, 1]; None when
    the encoder gives neither."""
    if "keep" in output:
        difference = output["keep"]
    elif "token_logits" in output:
        difference = output["token_logits"][:, 1] - output["token_logits"][:, 0]
    else:
        return None
    probability: Floats = 1 / (1 + np.exp(-difference.astype(np.float64)))
    return probability


def _crossing(
    expected: Sequence[EncoderOutput],
    actual: Sequence[EncoderOutput],
    sequences: Sequence[TokenSequence],
    threshold: float,
) -> float | None:
    crossed = []
    for left, right, sequence in zip(expected, actual, sequences, strict=True):
        before, after = keep_probability(left), keep_probability(right)
        if before is None or after is None:
            return None
        passage = sequence.type_ids == sequence.type_ids.max()
        crossed.append(((before >= threshold) != (after >= threshold))[passage])
    return float(np.concatenate(crossed).mean())


def _joined(outputs: Sequence[EncoderOutput], name: str) -> Floats:
    return np.concatenate([output[name].reshape(-1) for output in outputs])
