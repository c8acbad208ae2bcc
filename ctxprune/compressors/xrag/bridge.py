"""The xRAG bridge (Cheng et al., NeurIPS 2024, section 3): a retriever's vector of a text becomes one input embedding.

Only the projector is trained; the language model and the retriever stay as they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ctxprune.bundled import bundled_folder
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.hub import Weights, checkpoint_file, fill, read_json, read_weights, resolve, write_json
from ctxprune.runtime.weights import write_digests
from ctxprune.vectors.pieces import PieceKind, checked_piece_kind

Vectors: TypeAlias = npt.NDArray[np.float32]

#: Among the bundled ones; it makes one vector of a document, xrag-smollm2-pieces one of each 16 tokens.
DEFAULT_BRIDGE = "xrag-smollm2-mini"
#: How the paper's second stage asks, in the placeholders of `ctxprune.prompt`.
DEFAULT_TEMPLATE = "Refer to the background document: {context}\n\n{question}"
#: How far a vector's length may be from one where the bridge was trained on vectors of length one.
_LENGTH_TOLERANCE = 0.02


class Projector(nn.Module):
    """Linear, GELU, Linear ("mlp2x_gelu"), in float32 whatever the language model computes in.

    scale: of the input; the square root of `d_retriever` gives vectors of length one the unit variance that the first
    layer's initial weights are made for. output_scale: of the output, so that it gets the length of the model's token
    embeddings while the weights, and with them the learning rate, keep their usual size. 1.0 leaves a published
    projector as it is.
    """

    def __init__(self, d_retriever: int, d_model: int, *, scale: float = 1.0, output_scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.output_scale = scale, output_scale
        self.projector = nn.Sequential(
            nn.Linear(d_retriever, d_model, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(d_model, d_model, dtype=torch.float32),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (n, d_retriever) float. Returns (n, d_model) float32."""
        with torch.autocast(vectors.device.type, enabled=False):
            projected: Tensor = self.projector(vectors.float() * self.scale)
        return projected * self.output_scale

    @torch.no_grad()
    def match_length(self, vectors: Tensor, length: float) -> None:
        """Set `output_scale` so that the projections of these vectors, (n, d_retriever), have `length` as their median
        Euclidean length."""
        self.output_scale *= length / float(self(vectors).norm(dim=-1).median())


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What a bridge was trained for, and what has to be the same when it is used.

    generator: name of the language model, whose embeddings have `d_model` dimensions. encoder: name of the embedder,
    whose vectors have `d_retriever`. shard_tokens: a vector stands for at most so many tokens of text. pieces: what it
    stands for, see `ctxprune.vectors.piece_offsets`. revision: of the language model, "" where it has none. reader: the
    digest of low-rank updates that were trained with the bridge, "" for the model as it is. normalised: whether vectors
    have length one. pooling: how the encoder makes a vector of its tokens ("mean", "last", "cls"). template: the prompt
    it was trained with, holding {context} (the soft tokens) and {question}. scale, output_scale: see `Projector`.
    """

    generator: str
    encoder: str
    d_retriever: int
    d_model: int
    shard_tokens: int = 180
    normalised: bool = True
    pooling: str = "mean"
    template: str = DEFAULT_TEMPLATE
    scale: float = 1.0
    output_scale: float = 1.0
    pieces: PieceKind = "tokens"
    revision: str = ""
    reader: str = ""

    @property
    def reads(self) -> str:
        """What the soft tokens are for: the model, its revision where that is known, or the reader made of it."""
        if self.reader:
            return f"{self.generator}+reader-{self.reader[:12]}"
        return f"{self.generator}@{self.revision}" if self.revision else self.generator

    def __post_init__(self) -> None:
        for name in ("d_retriever", "d_model", "shard_tokens"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        checked_piece_kind(self.pieces)
        if missing := [name for name in ("{context}", "{question}") if name not in self.template]:
            raise InputError(f"the bridge's template needs {' and '.join(missing)}, got {self.template!r:.80}")


class Bridge:
    """A trained projector with its config. constant: (d_model,) the soft token trained beside it that says nothing of
    any document, a control for measurements; None when there is none."""

    def __init__(self, projector: Projector, config: BridgeConfig, *, constant: Vectors | None = None) -> None:
        self.projector = projector.eval().cpu()
        self.config = config
        self.constant = constant

    def project(self, vectors: npt.ArrayLike) -> Vectors:
        """vectors: (n, d_retriever). Returns the soft tokens, (n, d_model) float32.

        Raises InputError for vectors of another width, nan or infinity, and for a length other than one where the
        bridge was trained on vectors of length one.
        """
        rows = torch.from_numpy(np.array(self._checked(np.asarray(vectors, dtype=np.float32))))
        with torch.inference_mode():
            found: Vectors = self.projector(rows).numpy()
        return found

    def _checked(self, vectors: Vectors) -> Vectors:
        width = self.config.d_retriever
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InputError(
                f"vectors must have the shape (n, {width}), got {vectors.shape}; embed the documents with "
                f"{self.config.encoder!r}, which the bridge was trained on"
            )
        if bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            raise InputError(f"vector {bad[0]} of {len(vectors)} holds nan or infinity; embed its text again")
        lengths = np.linalg.norm(vectors, axis=1)
        if self.config.normalised and (odd := np.flatnonzero(abs(lengths - 1) > _LENGTH_TOLERANCE).tolist()):
            raise InputError(
                f"vector {odd[0]} of {len(vectors)} has the length {lengths[odd[0]]:.3g}, the bridge was trained on "
                "vectors of length one; divide each by its length"
            )
        return vectors


#: What the keys begin with in a published checkpoint; ours have only the second half.
_OUTER = "projector."
_KEYS = tuple(f"{_OUTER}projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a published xRAG model."""
    return "projector_type" in config and "retriever_hidden_size" in config


def published_config(config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """The fields of a `BridgeConfig`: what config.json and weights say, the rest as the paper has it for xrag-7b.

    Raises CheckpointError for a projector of another kind than two layers with a GELU.
    """
    if config["projector_type"] != "mlp2x_gelu":
        raise CheckpointError(f"projector_type {config['projector_type']!r} is not supported, only 'mlp2x_gelu'")
    return {
        "generator": "mistralai/Mistral-7B-Instruct-v0.2",
        "encoder": "Salesforce/SFR-Embedding-Mistral",
        "d_retriever": config["retriever_hidden_size"],
        "d_model": len(weights["projector.0.bias"]),
        "normalised": False,
        "pooling": "last",
    }


def published_projector(source: str | Path, folder: Path, *, revision: str | None) -> Weights:
    """The projector's tensors under the keys of `bridge.Projector`, float32.

    folder: where config.json is; a hub id is asked for the files that are not there, of several shards only for those
    that hold the projector. Raises CheckpointError when a key is in no file, and for a file that is damaged.
    """
    find = partial(checkpoint_file, source, folder, revision=revision)
    single = next((path for name in _SINGLE if (path := find(name))), None)
    homes = dict.fromkeys(_KEYS, single) if single else _shards(source, find)
    weights = {key: value for path in {*homes.values()} for key, value in _read(path).items()}
    if missing := [key for key in _KEYS if key not in weights]:
        raise CheckpointError(f"{source} has no {', '.join(missing)}; is it an xRAG checkpoint?")
    return {key.removeprefix(_OUTER): value.float() for key, value in weights.items()}


def _shards(source: str | Path, find: Callable[[str], Path | None]) -> dict[str, Path]:
    """For each of the projector's keys the shard that holds it."""
    index = next((path for name in _INDICES if (path := find(name))), None)
    if index is None:
        raise CheckpointError(f"{source} has no weights: none of {', '.join([*_SINGLE, *_INDICES])}")
    names = read_json(index).get("weight_map")
    names = names if isinstance(names, dict) else {}
    homes: dict[str, Path] = {}
    for key in _KEYS:
        name = names.get(key)
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names no shard for {key} ({name!r}); is it an xRAG checkpoint?")
        if (path := find(name)) is None:
            raise CheckpointError(f"{source} lacks the shard {name}; fetch the checkpoint again")
        homes[key] = path
    return homes


def _read(path: Path) -> Weights:
    """The projector's tensors in one file; weights_only keeps a pickle from running code, mapping spares the memory."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in _KEYS if key in file.keys()}  # noqa: SIM118
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        return {key: found[key].clone() for key in _KEYS if key in found}
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors, or is damaged, and is not opened") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch the file again") from error


__all__ = ["DEFAULT_TEMPLATE", "Bridge", "BridgeConfig", "Projector", "load_bridge", "save_bridge"]

Fields: TypeAlias = "Mapping[str, Any]"

#: The folder, in a bridge's, of the low-rank updates of the model that reads it.
READER = "reader"
#: The `model_type` of our own format.
MODEL_TYPE = "xrag_bridge"
_CONSTANT = "constant"


def save_bridge(bridge: Bridge, folder: str | Path) -> None:
    """Write model.safetensors and, last, config.json into the folder, which is made if it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().contiguous() for key, value in bridge.projector.state_dict().items()}
    if bridge.constant is not None:
        weights[_CONSTANT] = torch.from_numpy(bridge.constant.copy())
    save_file(weights, folder / "model.safetensors")
    write_digests(folder)
    write_json(folder / "config.json", {"model_type": MODEL_TYPE, **asdict(bridge.config)})


def load_bridge(
    source: str | Path, *, revision: str | None = None, generator: str | None = None, encoder: str | None = None
) -> Bridge:
    """A bridge on the CPU in float32: a bundled one by name, or from a folder or hub id, of our own format or that of
    `Hannibal046/xrag-7b`.

    Of a published checkpoint only the projector is read, and fetched only the shard that holds it; its config names
    neither model, so they are taken for those of xrag-7b. generator, encoder: names to use instead of the saved ones,
    for the same models from another place. Raises CheckpointError for what is missing, damaged or of another layout.
    """
    source = bundled_folder(source, "config.json") or source
    folder = resolve(source, revision=revision, weights=False)
    saved = read_json(folder / "config.json")
    given = {name: value for name, value in (("generator", generator), ("encoder", encoder)) if value is not None}
    if is_published(saved):
        weights = published_projector(source, folder, revision=revision)
        config = _config({**published_config(saved, weights), **given}, source)
    elif saved.get("model_type") == MODEL_TYPE:
        weights = read_weights(resolve(source, revision=revision))
        config = _config({**saved, **given}, source)
    else:
        raise CheckpointError(
            f"{source} is no xRAG bridge: its config.json has neither model_type {MODEL_TYPE!r} nor a projector_type "
            f"(model_type is {saved.get('model_type')!r}); pass the folder that ctxprune.trainers.xrag.train wrote"
        )
    return _bridge(config, weights, source)


def _bridge(config: BridgeConfig, weights: dict[str, torch.Tensor], source: str | Path) -> Bridge:
    constant = weights.pop(_CONSTANT, None)
    if constant is not None and constant.shape != (config.d_model,):
        raise CheckpointError(
            f"{source}: the constant token has the shape {tuple(constant.shape)} instead of ({config.d_model},)"
        )
    with torch.random.fork_rng(devices=[]):  # random weights, soon overwritten, shall not move the caller's stream
        projector = Projector(config.d_retriever, config.d_model, scale=config.scale, output_scale=config.output_scale)
    fill(projector, weights, what=f"the bridge {source}")
    for name, value in projector.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{source}: {name} holds nan or infinity; train the bridge again or fetch it again")
    return Bridge(projector, config, constant=None if constant is None else constant.float().numpy())


def _config(saved: Fields, source: str | Path) -> BridgeConfig:
    """The fields of `BridgeConfig` in `saved`, of the types that it gives them; others are passed over."""
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (float, int)}
    kinds["PieceKind"] = kinds["str"]
    known: dict[str, Any] = {}
    for field in fields(BridgeConfig):
        if field.name in saved:
            value = saved[field.name]
            if type(value) not in kinds[str(field.type)]:
                raise CheckpointError(f"{source}: config.json has {field.name} = {value!r}, expected {field.type}")
            known[field.name] = value
    try:
        return BridgeConfig(**known)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{source}: config.json does not describe a bridge ({error})") from error
