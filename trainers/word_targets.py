"""What a teacher says of a text: how much each word is worth keeping, one number a word, and files of such texts.

Every teacher (a language model that deletes words, self-information, what people ask) leaves the same file, so the
trainer of `trainers/llmlingua2.py` need not know which one it learns from.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from ctxprune.errors import InputError
from ctxprune.qa import read_rows
from ctxprune.text import split_words


@dataclass(frozen=True, slots=True)
class WordTargets:
    """A text and the target of each of its words (the units of `split_words`), in [0, 1]: 1 keep, 0 remove.

    None: not known; no loss looks at the word. Raises InputError when count or range are wrong.
    """

    text: str
    targets: tuple[float | None, ...]

    def __post_init__(self) -> None:
        words = len(split_words(self.text))
        if len(self.targets) != words:
            raise InputError(
                f"{len(self.targets)} targets for {words} words; make one for each unit of ctxprune.text.split_words"
            )
        for place, target in enumerate(self.targets):
            if target is not None and not 0 <= target <= 1:
                raise InputError(f"targets[{place}] is {target}; a target lies in [0, 1], or is null where not known")


def read_targets(path: str | Path) -> Iterator[WordTargets]:
    """The texts of a JSONL file (.gz too) of `{"text", "targets"}` rows; InputError names a bad line."""
    for number, row in read_rows(Path(path)):
        try:
            yield _from_row(row)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None


def write_targets(path: str | Path, texts: Iterable[WordTargets], *, teacher: str, decimals: int = 4) -> int:
    """Write one row a text, with the teacher's name; returns how many. The file appears when all is done."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with _open_new(part, gzipped=path.suffix == ".gz") as lines:
        for item in texts:
            rounded = [None if target is None else round(target, decimals) for target in item.targets]
            lines.write(json.dumps({"text": item.text, "targets": rounded, "teacher": teacher}) + "\n")
            count += 1
    part.replace(path)
    return count


def _from_row(row: dict[str, Any]) -> WordTargets:
    text, targets = row.get("text"), row.get("targets")
    if not isinstance(text, str):
        raise InputError(f"field 'text' must be a string, got {type(text).__name__}")
    if not isinstance(targets, list) or any(
        isinstance(target, bool) or not isinstance(target, int | float | None) for target in targets
    ):
        raise InputError("field 'targets' must be a list with a number or null for each word; run a teacher first")
    return WordTargets(text, tuple(targets))


def _open_new(path: Path, *, gzipped: bool) -> TextIO:
    return cast(TextIO, gzip.open(path, "wt", encoding="utf-8")) if gzipped else path.open("w", encoding="utf-8")
