"""The command line: `ctxprune compress`, `run`, `models`, `doctor` and `train`."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ctxprune.errors import CtxpruneError, MissingPackageError

#: What a shell reports of a program that SIGPIPE ended.
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 fine, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted,
    141 where the reader of its output has gone away, as `| head` does.

    argv: without the program's name; None for the process's own arguments. With `--debug` an error is raised instead.
    """
    from ctxprune.cli.app import app

    arguments = sys.argv[1:] if argv is None else list(argv)
    _open_what_is_closed()
    _never_fail_to_encode()
    stdout = sys.stdout
    try:
        app(arguments, prog_name="ctxprune")
    except SystemExit as end:
        if sys.stdout is not stdout:  # typer wraps it and ends with 1 when the reader has gone away
            sys.stdout = stdout
            return _flushed(BROKEN_PIPE)
        return _flushed(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BrokenPipeError:
        return _flushed(BROKEN_PIPE)
    except Exception as error:
        if "--debug" in arguments:
            raise
        sys.stderr.write(f"error: {_message(error)}\n")
        return 1
    return _flushed(0)


#: The disk, the quota or the largest size of a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _message(error: Exception) -> str:
    if isinstance(error, CtxpruneError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("ctxprune"):
        return str(MissingPackageError("this command", error.name))
    if isinstance(error, OSError):
        said = f"{error.strerror or error}: {error.filename}" if error.filename else error.strerror or str(error)
        return f"{said}; free some space and run the command again" if error.errno in _FULL else said
    return f"unexpected {type(error).__name__}: {error}; `ctxprune --debug ...` shows where"


def _open_what_is_closed() -> None:
    """Whoever starts a command with a stream closed, as services do, wants nothing of it and gives nothing to it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # for as long as we run


def _never_fail_to_encode() -> None:
    """Documents may hold lone surrogates, and terminals may know few characters: both are printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """The exit code, once the output has left; a reader that has gone away (`| head`) is no error of ours."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more at its end: let that go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or BROKEN_PIPE
    return code
