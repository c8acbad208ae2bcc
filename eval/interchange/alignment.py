"""Find where a compressed text stands word for word in the documents that it was made from."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ctxprune.eval.run.contexts import keeping
from ctxprune.prompt import readable_text
from ctxprune.text import split_sentences
from ctxprune.types import Context, Document, Piece, Summary

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
#: Every place where any splitter might end a sentence; ours may see one sentence where the text's maker saw two.
_ANY_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+")

_WORD = re.compile(r"\S+")
#: Shorter runs of words stand in many places, and a text glued from them is not what a document says.
_RUN_WORDS = 4

#: (document, start, end)
Place = tuple[int, int, int]


def align(query: str, texts: Sequence[str], documents: Sequence[Document], *, id: str = "") -> Context:
    """The context that `texts` make: extracts where they are verbatim in `documents`, else summaries over all of these.

    A text is looked for whole, then by paragraphs, lines, sentences and runs of at least four words, from left to
    right; it becomes an extract only if all of it is found, on word boundaries and each place used once, so no part of
    it is lost. A first line that is a document's title counts as that title. Untouched documents are extracts with
    nothing kept, unless a summary stands for them. A warning says so when extracts cannot hold the texts' order.
    """
    search = _Search(documents)
    order: list[int | Summary] = []
    for text in filter(str.strip, texts):
        hits = search.add(text)
        order += [Summary(text, tuple(documents))] if hits is None else [document for document, _, _ in hits]
    summarised = any(isinstance(entry, Summary) for entry in order)
    rest = [] if summarised else range(len(documents))
    pieces = tuple(
        entry if isinstance(entry, Summary) else search.extract(entry) for entry in _distinct([*order, *rest])
    )
    context = Context(query, pieces, id=id)
    if _bare(readable_text(context)) == _bare("".join(texts)):
        return context
    return context.warn("the kept passages are put into the order of their documents, and titles shown once")


def _distinct(order: Sequence[int | Summary]) -> list[int | Summary]:
    """Documents at their first place only; a summary may come again."""
    return [entry for place, entry in enumerate(order) if isinstance(entry, Summary) or entry not in order[:place]]


def _bare(text: str) -> str:
    return "".join(text.split())


@dataclass(slots=True)
class _Search:
    """Places found so far, each taken once; the next is looked for behind the last one, in the same document first."""

    documents: Sequence[Document]
    found: list[Place] = field(default_factory=list)
    titled: set[int] = field(default_factory=set)

    def add(self, text: str) -> list[Place] | None:
        """The places of all of `text`; None, and nothing taken, when a part of it is in no document."""
        before = len(self.found)
        titled = set(self.titled)
        if self._add(text, _LEVELS):
            return self.found[before:]
        del self.found[before:]
        self.titled = titled
        return None

    def extract(self, document: int) -> Piece:
        spans = tuple((start, end) for place, start, end in self.found if place == document)
        return keeping(self.documents[document], spans, index=document, titled=document in self.titled)

    def _add(self, text: str, levels: Sequence[Callable[[str], Sequence[str]]]) -> bool:
        text = text.strip()
        if not text:
            return True
        if place := self._find(text):
            self.found.append(place)
            return True
        if self._add_titled(text):
            return True
        if levels:
            return all(self._add(part, levels[1:]) for part in levels[0](text))
        return self._add_runs(text)

    def _add_runs(self, text: str) -> bool:
        """Take a text as the longest runs of words that are found, e.g. two sentences without a full stop between."""
        while text:
            ends = [match.end() for match in _WORD.finditer(text)][_RUN_WORDS - 1 :]
            longest = bisect_left(ends, True, key=lambda end: self._find(text[:end]) is None) - 1
            place = self._find(text[: ends[longest]]) if longest >= 0 else None
            if place is None:
                return False
            self.found.append(place)
            text = text[ends[longest] :].strip()
        return True

    def _add_titled(self, text: str) -> bool:
        """Take a text whose first line is a document's title and whose rest stands in that document."""
        title, _, rest = text.partition("\n")
        for index, document in enumerate(self.documents):
            if rest.strip() and title.strip() == document.title.strip():
                alone = _Search([document], [(0, start, end) for place, start, end in self.found if place == index])
                taken = len(alone.found)
                if alone._add(rest, _LEVELS):
                    self.found += [(index, start, end) for _, start, end in alone.found[taken:]]
                    self.titled.add(index)
                    return True
        return False

    def _find(self, text: str) -> Place | None:
        current = self.found[-1][0] if self.found else 0
        order = sorted(range(len(self.documents)), key=lambda index: (index != current, index))
        for from_start in (False, True):
            for index in order:
                taken = [(start, end) for place, start, end in self.found if place == index]
                first = 0 if from_start or not taken else taken[-1][1]
                for start in _occurrences(self.documents[index].text, text, first):
                    end = start + len(text)
                    if all(end <= low or high <= start for low, high in taken):
                        return index, start, end
        return None


def _occurrences(text: str, needle: str, first: int) -> Iterator[int]:
    """Where `needle` stands in `text` from `first` on, not within a word."""
    start = text.find(needle, first)
    while start >= 0:
        if not (_fused(text, start) or _fused(text, start + len(needle))):
            yield start
        start = text.find(needle, start + 1)


def _fused(text: str, place: int) -> bool:
    """Whether a cut at `place` goes through an alphabetic word; in scripts without spaces none can be told."""
    around = text[place - 1 : place + 1] if place else ""
    return len(around) == 2 and around.isascii() and around.isalnum()


def _paragraphs(text: str) -> list[str]:
    return _BLANK_LINE.split(text)


def _sentences(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text)]


_LEVELS: tuple[Callable[[str], Sequence[str]], ...] = (_paragraphs, str.splitlines, _sentences, _ANY_END.split)
