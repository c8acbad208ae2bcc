"""Copies of a pydantic adapter with other options: built anew, so that a copy does what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel

from ctxprune.errors import InputError


class CopiesBuiltAnew(BaseModel):
    """For a model whose options are read once, when it is built: pydantic's own copies keep what was built before.

    `copy.replace` comes this way too. Raises, with options that cannot be, what building one raises.
    """

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        options = {name: getattr(copied, name) for name in type(self).model_fields if name in self.model_fields_set}
        return type(self)(**{**options, **update})

    def copy(self, *, include: Any = None, exclude: Any = None, update: Any = None, deep: bool = False) -> Self:
        """As `model_copy`. Raises InputError for `include` and `exclude`, which would leave options out."""
        if include is not None or exclude is not None:
            raise InputError(f"a copy of {type(self).__name__} has all its options; pass update= to change some")
        return self.model_copy(update=update, deep=deep)
