"""Files that several bundled models have in common: kept once in `ctxprune/bundled/shared`, named by each shared.json.

The English models are made from one encoder whose word embeddings no training touched, so they need its table and its
tokenizer once. A folder without shared.json, as the exporters write it, holds all that its model needs.

    {"files": {"tokenizer.json": SHARED FILE}, "tables": {INITIALIZER OF model.onnx: [SHARED FILE, TENSOR]}}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import ctxprune.bundled
from ctxprune.errors import CheckpointError
from ctxprune.runtime.digests import check_digest

SHARED = "shared.json"
FOLDER = Path(ctxprune.bundled.__file__).parent / "shared"

_loading = threading.Lock()


def model_file(folder: Path, name: str) -> Path:
    """The folder's own file, else the shared one that stands for it, else where the folder's own should be.

    Raises CheckpointError for a shared.json that cannot be read.
    """
    own = folder / name
    if own.is_file():
        return own
    shared = _listing(folder)["files"].get(name)
    return FOLDER / shared if shared else own


def shared_tables(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The initializers that a folder's model.onnx leaves out, by name; models of one process share the memory.

    Raises CheckpointError when one is missing, damaged or not what digests.json says.
    """
    tables = {}
    for name, (file, tensor) in _listing(folder)["tables"].items():
        tensors = _tensors(FOLDER / file)
        if tensor not in tensors:
            raise CheckpointError(f"{FOLDER / file} holds no {tensor}, which {folder} needs; reinstall ctxprune-rag")
        tables[name] = tensors[tensor]
    return tables


def _listing(folder: Path) -> dict[str, Any]:
    path = folder / SHARED
    if not path.is_file():
        return {"files": {}, "tables": {}}
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
        files, tables = dict(listing.get("files", {})), dict(listing.get("tables", {}))
        for name in [*files.values(), *(file for file, _tensor in tables.values())]:
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(f"{name!r} is no name of a shared file")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); reinstall ctxprune-rag, or export the model") from error
    return {"files": files, "tables": tables}


def _tensors(path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
    if not path.is_file():
        raise CheckpointError(f"no shared weights {path}; reinstall ctxprune-rag, or export the model for itself")
    check_digest(path)
    state = path.stat()
    with _loading:  # two models that load at a time read the file once
        return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, modified: int) -> Mapping[str, np.ndarray[Any, Any]]:
    """size, modified: of the file, so that another file of the name is read anew."""
    try:
        return _parsed(path.read_bytes())
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); reinstall ctxprune-rag") from error


#: The number formats of tables, by their names in a safetensors file.
_DTYPES = {"U8": "<u1", "I8": "<i1", "F16": "<f2", "F32": "<f4"}


def _parsed(content: bytes) -> Mapping[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file, read-only: the length of a JSON header (8 bytes), the header, the values.

    Read here, since an installation that only compresses has no need of the library.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = np.frombuffer(content[start + begin : start + end], _DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors
