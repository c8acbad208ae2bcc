"""Load and save xRAG bridges: ours (safetensors and JSON), and the projector of a published xRAG checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.bridge import DEFAULT_TEMPLATE, Bridge, BridgeConfig, Projector
from ctxprune.models.checkpoint import fill, read_json, read_weights, resolve, write_json
from ctxprune.models.xrag_published import is_published, published_config, published_projector
from ctxprune.runtime.digests import write_digests

__all__ = ["DEFAULT_TEMPLATE", "Bridge", "BridgeConfig", "Projector", "load_bridge", "save_bridge"]

Fields: TypeAlias = "Mapping[str, Any]"

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
    """A bridge on the CPU in float32 from a folder or hub id, of our own format or that of `Hannibal046/xrag-7b`.

    Of a published checkpoint only the projector is read, and fetched only the shard that holds it; its config names
    neither model, so they are taken for those of xrag-7b. generator, encoder: names to use instead of the saved ones,
    for the same models from another place. Raises CheckpointError for what is missing, damaged or of another layout.
    """
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
            f"(model_type is {saved.get('model_type')!r}); pass the folder that ctxprune.trainers.xrag wrote"
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
