"""An environment for each peer, made once with the package index's client, or the reason why there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.peers.peers import Peer

_LIMIT = 1800.0


class MissingError(Exception):
    """The peer cannot be had; the message says why."""


def python_of(peer: Peer, folder: Path) -> Path:
    """The Python of the peer's environment, which is made in `folder`/NAME if it is not there.

    Without packages it is this one. Raises MissingError with the last line of pip where it cannot be made.
    """
    if not peer.packages:
        return Path(sys.executable)
    place = folder / peer.name
    python, done = place / "bin" / "python", place / "installed.txt"
    wanted = "\n".join(peer.packages)
    if not (done.is_file() and done.read_text() == wanted):
        _run([sys.executable, "-m", "venv", str(place)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages])
        done.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        raise MissingError(f"installing took longer than {_LIMIT:g} s") from None
    except OSError as error:
        raise MissingError(f"cannot be installed: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise MissingError(f"cannot be installed: {lines[-1]}")
