"""`ctxprune models` and `ctxprune doctor`: what is installed, what it runs on, and whether the bundled model works."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ctxprune import __version__
from ctxprune.bundled import FOLDER
from ctxprune.cli.output import Line, print_json, show
from ctxprune.compressors import available
from ctxprune.runtime.device import describe

DISTRIBUTIONS = ("ctxprune-rag", "ctxprune-rag-light")
_QUESTION = "When was the lighthouse built?"
_RELEVANT = "The lighthouse was built in 1887."
_DOCUMENTS = ("Bread is baked every morning.", _RELEVANT, "Cats sleep for most of the day.")


def diagnose(*, as_json: bool) -> int:
    """Print the report. Returns 1 when the default path, the bundled model on the CPU, does not work; else 0."""
    report = {
        "version": __version__,
        **_machine(),
        "models": {model.name: {"bytes": model.size, "licence": model.licence} for model in bundled_models()},
        "self_test": self_test(),
        "extras": extras(),
    }
    if as_json:
        print_json(report, indent=2)
    else:
        show(_lines(report))
    return 0 if report["self_test"]["works"] else 1


def self_test() -> dict[str, Any]:
    """Load the bundled model and prune three short documents twice; load_ms counts imports."""
    from ctxprune import Context, Pipeline, load
    from ctxprune.types import about_of

    try:
        began = time.perf_counter()
        compressor = load("provence")
        pipeline = Pipeline([compressor])
        loaded = time.perf_counter()
        (result,) = pipeline.run([Context.of(_QUESTION, _DOCUMENTS)])
        first = time.perf_counter()
        pipeline.run([Context.of(_QUESTION, _DOCUMENTS)])
        ended = time.perf_counter()
    except Exception as error:  # whatever it is that broke, this is the command that has to say so
        return {"works": False, "error": f"{type(error).__name__}: {error}"}
    if result.text != _RELEVANT:
        return {"works": False, "error": f"for {_QUESTION!r} it kept {result.text!r}, not {_RELEVANT!r}"}
    model = about_of(compressor).parts.get("model")
    runtime = getattr(model, "runtime", None)
    return {
        "works": True,
        "load_ms": round(1000 * (loaded - began), 1),
        "first_ms": round(1000 * (first - loaded), 1),
        "warm_ms": round(1000 * (ended - first), 1),
        "device": getattr(runtime, "device", None),
        "dtype": getattr(runtime, "dtype", None),
        "threads": getattr(runtime, "threads", None),
    }


def distribution() -> str:
    """The name by which this package was installed."""
    return next(filter(_installed, DISTRIBUTIONS), DISTRIBUTIONS[0])


def extras() -> dict[str, list[str]]:
    """The packages that each extra lacks here."""
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires(distribution()) or []:
        found = re.match(r"([\w.-]+).*\bextra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if found and found[1] != distribution():
            lacking = missing.setdefault(found[2], [])
            lacking += [] if _installed(found[1]) else [found[1]]
    return missing


def _machine() -> dict[str, Any]:
    try:
        return describe(probe_torch=True)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            return describe() | {"torch_error": f"{type(error).__name__}: {error}"}
        return describe() | {"torch_error": "not installed; the bundled models do without"}
    except Exception as error:  # a broken torch must not hide the rest, and the default path does not need it
        return describe() | {"torch_error": f"{type(error).__name__}: {error}"}


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _lines(report: dict[str, Any]) -> Iterator[Line]:
    yield Line(f"ctxprune {report['version']}, Python {report['python']}, {report['platform']}", "head")
    packages = (f"{name} {version or 'MISSING'}" for name, version in report["packages"].items())
    yield _row("packages", ", ".join(packages))
    yield _row("cpus", str(report["cpus"]))
    yield _row("torch", report.get("torch_error") or f"{report['device']}, {report['dtype']} ({_names(report)})")
    for name, model in report["models"].items():
        yield _row(name, f"{model['bytes'] / 1e6:.1f} MB, {model['licence'] or 'no licence stated'}")
    for extra, lacking in report["extras"].items():
        advice = f"missing {', '.join(lacking)}: pip install '{distribution()}[{extra}]'"
        yield _row(f"extra {extra}", advice if lacking else "installed")
    test = report["self_test"]
    if test["works"]:
        run_by = f"ONNX Runtime on {test['device']}, {test['dtype']}, {test['threads']} threads"
        times = f"load {test['load_ms']} ms, first call {test['first_ms']} ms, next {test['warm_ms']} ms"
        yield Line(f"bundled model works: {run_by}; {times}", "kept")
    else:
        yield Line(f"BROKEN: the bundled model does not work: {test['error']}", "head")
        yield Line(f"next step: pip install --force-reinstall {distribution()}")


def _row(name: str, value: str) -> Line:
    return Line(value, "plain", f"  {name:<16} ")


def _names(report: dict[str, Any]) -> str:
    return ", ".join(report["devices"])


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
    return [
        _model(folder) for folder in sorted(FOLDER.iterdir()) if any((folder / name).is_file() for name in _WEIGHTS)
    ]


def list_models() -> None:
    show(_listing())


def _listing() -> Iterator[Line]:
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
