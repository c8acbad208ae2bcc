"""`ctxprune models`: the compressors that can be named, and the models inside the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ctxprune.cli.show import Line, show
from ctxprune.compressors import available

_LICENCE = re.compile(r"^\W*licen[cs]e\W*:\W*(.+)$", re.IGNORECASE | re.MULTILINE)

_WEIGHTS = ("model.onnx", "model.safetensors")


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A folder with weights. size: bytes of all its files. licence: as its card says, None when the card is missing."""

    name: str
    size: int
    licence: str | None


def bundled_models() -> list[BundledModel]:
    """The models inside the package, by name."""
    root = Path(str(files("ctxprune.bundled")))
    return [_model(folder) for folder in sorted(root.iterdir()) if any((folder / name).is_file() for name in _WEIGHTS)]


def list_models() -> None:
    show(_lines())


def _lines() -> Iterator[Line]:
    yield Line("Compressors (ctxprune compress -c NAME):", "head")
    for known in available():
        origin = "" if known.origin == "built-in" else f" (from {known.origin})"
        yield Line(f"{known.description}{origin}", "plain", f"  {known.name:<20} ")
    yield Line("Models in this package:", "head")
    for model in bundled_models():
        licence = model.licence or "no licence stated"
        yield Line(f"{model.size / 1e6:.1f} MB, {licence}", "plain", f"  {model.name:<20} ")


def _model(folder: Path) -> BundledModel:
    card = folder / "README.md"
    found = _LICENCE.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return BundledModel(folder.name, size, found.group(1).strip() if found else None)
