"""Digests of a folder's weights, which tell a damaged model from a whole one: `python -m ctxprune.runtime.digests DIR`.

A changed bit in a model file seldom stops it from loading; it changes scores, and nobody would know.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

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
    digests = {path.name: _sha256(path) for path in files}
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
            f"or export it again, or, if it was meant, run: python -m ctxprune.runtime.digests {path.parent}"
        )


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, modified: int) -> str:
    """size, modified: of the file, so that another file of the name is read anew."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str]) -> int:
    """Write the digests of every folder named; exit code 1 for one without weights, 2 without any name."""
    if not argv:
        sys.stderr.write("usage: python -m ctxprune.runtime.digests FOLDER...\n")
        return 2
    try:
        for name in argv:
            for file, digest in write_digests(Path(name)).items():
                sys.stdout.write(f"{digest}  {Path(name) / file}\n")
    except (CheckpointError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
