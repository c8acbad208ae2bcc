"""The files of a model: whether they are whole, by their digests, and which of them several bundled models share.

A changed bit in a model file seldom stops it from loading; it changes scores, and nobody would know. Digests are
written by `python -m ctxprune.runtime.weights DIR`.

The English models are made from one encoder whose word embeddings no training touched, so they need its table and its
tokenizer once: in `ctxprune/bundled/shared`, named by each shared.json. A folder without shared.json, as the exporters
write it, holds all that its model needs.

    {"files": {"tokenizer.json": SHARED FILE}, "tables": {INITIALIZER OF model.onnx: [SHARED FILE, TENSOR]}}
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ctxprune.bundled import FOLDER as BUNDLED
from ctxprune.errors import CheckpointError

#: Beside the weights: {file name: SHA-256 in hexadecimal}.
DIGESTS = "digests.json"
_WEIGHTS = ("*.onnx", "*.safetensors")


def write_digests(folder: Path) -> dict[str, str]:
    """Write digests.json for the weights in the folder, in place of the one that is there; returns what it holds.

    Raises CheckpointError for a folder without weights.
    """
    files = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not files:
        raise CheckpointError(f"{folder} holds no {' or '.join(_WEIGHTS)} file; name the folder of a model")
    digests = {path.name: file_sha256(path) for path in files}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    return digests


def check_digest(path: Path) -> None:
    """Raises CheckpointError when the weights in `path` are not those that digests.json beside them names.

    Passes what has no digest, as exports of earlier versions. A file is read once as long as its size and time stay.
    """
    listed = path.parent / DIGESTS
    if not listed.is_file():
        return
    try:
        expected = json.loads(listed.read_text(encoding="utf-8")).get(path.name)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{listed} is damaged ({error!r}); download or export the model again") from error
    state = path.stat()
    if expected is not None and expected != _known_sha256(path.absolute(), state.st_size, state.st_mtime_ns):
        raise CheckpointError(
            f"{path} is not the file that {DIGESTS} beside it names: it is damaged or was replaced; install, download "
            f"or export it again, or, if it was meant, run: python -m ctxprune.runtime.weights {path.parent}"
        )


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, modified: int) -> str:
    """size, modified: of the file, so that another file of the name is read anew."""
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str]) -> int:
    """Write the digests of every folder named; exit code 1 for one without weights, 2 without any name."""
    if not argv:
        sys.stderr.write("usage: python -m ctxprune.runtime.weights FOLDER...\n")
        return 2
    try:
        for name in argv:
            for file, digest in write_digests(Path(name)).items():
                sys.stdout.write(f"{digest}  {Path(name) / file}\n")
    except (CheckpointError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


SHARED = "shared.json"
FOLDER = BUNDLED / "shared"

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
        values = np.frombuffer(memoryview(content)[start + begin : start + end], _DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
