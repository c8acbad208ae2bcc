"""Cut the lines into parts, the unit of checkpoints, and a part into batches; both depend on the lines alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ctxprune.integrations.mapping.lines import Line


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive lines that become one file of the output."""

    index: int
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        return f"part-{self.index:05d}"

    @property
    def digest(self) -> str:
        """Of the lines and what names them: a part made from other lines is made again."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines:
            for field in (line.id, line.text):
                content = field.encode("utf-8", "surrogatepass")
                digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


def parts(lines: Iterable[Line], *, part_tokens: int) -> Iterator[Part]:
    """Parts of at most `part_tokens` estimated tokens, or of one line that has more."""
    return (Part(index, tuple(group)) for index, group in enumerate(_groups(lines, part_tokens)))


def batches(part: Part, *, batch_tokens: int) -> list[range]:
    """The places of a part's lines, in batches of at most `batch_tokens` estimated tokens or of one line."""
    spans, begin = [], 0
    for group in _groups(part.lines, batch_tokens):
        spans.append(range(begin, begin + len(group)))
        begin += len(group)
    return spans


def _groups(lines: Iterable[Line], limit: int) -> Iterator[list[Line]]:
    group: list[Line] = []
    total = 0
    for line in lines:
        tokens = line.tokens
        if group and total + tokens > limit:
            yield group
            group, total = [], 0
        group.append(line)
        total += tokens
    if group:
        yield group
