"""One question file from the official files of a set: read, checked, written whole, and told what was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctxprune.data.questions import row_from_question
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.convert.check import Checked
from ctxprune.eval.convert.made import Made, Shape
from ctxprune.eval.convert.sets import Source, source_of
from ctxprune.files import write_rows


@dataclass(slots=True)
class Built:
    """What came of it.

    questions, unanswerable, documents: how many were written. left_out: by reason. digests: (path, SHA-256) of every
    file that was read, then of the one that was written.
    """

    questions: int = 0
    unanswerable: int = 0
    documents: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    digests: list[tuple[Path, str]] = field(default_factory=list)

    def in_words(self) -> str:
        """A line a fact, for people."""
        lines = [f"{digest}  {path}" for path, digest in self.digests]
        lines.append(
            f"{self.questions} questions, {self.unanswerable} of them unanswerable, "
            f"{self.documents / max(1, self.questions):.1f} documents each"
        )
        lines += [f"left out {count}: {reason}" for reason, count in sorted(self.left_out.items())]
        return "\n".join(lines) + "\n"


def build(name: str, given: Sequence[Path], out: Path, *, shape: Shape | None = None) -> Built:
    """Make `out` (.jsonl or .jsonl.gz) of the official files of a set, in the order in which they are given.

    given: files, or folders of them. The same files and options make the same bytes. Raises UnknownNameError for a name
    that is no set; InputError for an option that the set does not have, for a file that is another than expected (what
    was expected and what was found), for a question that is not sound or stands twice, and when no question is left.
    """
    source, shape, built = source_of(name), shape or Shape(), Built()
    _refuse_options(name, source, shape)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"the output's name must end in .jsonl or .jsonl.gz, got {out.name!r}")
    paths = [path for each in given for path in source.paths(each)]
    write_rows(out, _rows(source, name, paths, shape, built), ascii_only=False)
    built.digests += [(out, _digest(out))]
    return built


def _refuse_options(name: str, source: Source, shape: Shape) -> None:
    for option, is_set in (("whole", shape.whole), ("passages", shape.passages is not None)):
        if is_set and option not in source.options:
            has = " and ".join(f"--{each}" for each in source.options) or "no such option"
            raise InputError(f"{name} has no --{option}, it has {has}; leave it out")


def _rows(source: Source, name: str, paths: Sequence[Path], shape: Shape, built: Built) -> Iterator[dict[str, Any]]:
    passes = Checked()
    for path in paths:
        built.digests.append((path, _digest(path)))
        for made in passes(_read(source, path, shape, built), str(path)):
            question = made.question
            built.questions += 1
            built.unanswerable += not question.answerable
            built.documents += len(question.documents)
            yield row_from_question(question) | {"source": name, "license": source.licence} | dict(made.fields)
    if not built.questions:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in built.left_out.items()) or "the files hold none"
        raise InputError(f"no question of {name} is left ({reasons})")


def _read(source: Source, path: Path, shape: Shape, built: Built) -> Iterator[Made]:
    """What the set's converter makes of a file; InputError where a part of it is not what the form has there."""
    try:
        yield from source.read(path, shape, lambda reason: built.left_out.update([reason]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CtxpruneError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: a part is not as in {' or '.join(source.files)} ({what}); download it again"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
