"""Tell what a model's name can be before the libraries that would load it are imported."""

from __future__ import annotations

from pathlib import Path

from ctxprune.errors import UnknownNameError


def check_source(source: str, *, bundled: str) -> None:
    """Raises UnknownNameError for what is neither there nor a hub id such as org/name; `bundled` is named beside them.

    The hub's few ids without an owner are plain language models, which no compressor of ours runs as they are.
    """
    if not Path(source).expanduser().exists() and ("/" not in source or source.startswith((".", "/", "~"))):
        raise UnknownNameError(f"no model at {source!r}; give a folder, a hub id such as org/name, or {bundled!r}")
