"""Regular expressions that are compiled when they are first used, for those that few texts need and that take long."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, cast


def on_use(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """As `re.compile`, at the first use: a class of ten thousand letters takes 5 ms, and most runs never meet one.

    For the methods and attributes of a pattern; `re.sub` and its like take no such object. Raises `re.error` when used.
    """
    return cast("re.Pattern[str]", _OnUse(pattern, flags))


class _OnUse:
    def __init__(self, pattern: str, flags: int) -> None:
        self._source = pattern, flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(*self._source)

    def __getattr__(self, name: str) -> Any:
        """Found once and kept, so that later uses cost what those of a pattern do."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._compiled, name)
        vars(self)[name] = found
        return found
