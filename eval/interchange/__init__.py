"""Lay contexts that another tool compressed over our questions, so that both are scored alike.

A compressed text is looked for word for word in the documents that it was made from; what is not there is a summary.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.interchange.rows import Compressed, KeptDocument, read_compressed
from ctxprune.eval.run.contexts import keeping
from ctxprune.prompt import readable_text
from ctxprune.text import split_sentences
from ctxprune.types import Context, Document, Extract, Piece, Summary

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


__all__ = ["Compressed", "CompressedSet", "KeptDocument", "Match", "context_from", "match", "read_compressed"]


@dataclass(frozen=True, slots=True)
class Match:
    """contexts, rows: by question id. missing: ids of questions without a row. extra: places of rows of no question."""

    contexts: Mapping[str, Context]
    rows: Mapping[str, Compressed]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def report(self) -> str:
        """What did not match, with counts and up to three examples; "" when everything did."""
        notes = []
        if self.missing:
            notes.append(f"{len(self.missing)} questions without a compressed context ({_examples(self.missing)})")
        if self.extra:
            notes.append(f"{len(self.extra)} compressed contexts of no question ({_examples(self.extra)})")
        return "; ".join(notes)


class CompressedSet:
    """Rows by id, and by question text for those without one and for ids of another numbering.

    Raises InputError when two rows have the same id, or the same question and no id.
    """

    def __init__(self, rows: Iterable[Compressed]) -> None:
        self.rows: list[Compressed] = []
        self._by_id: dict[str, Compressed] = {}
        self._by_text: dict[str, Compressed] = {}  # rows without an id
        self._also_by_text: dict[str, Compressed | None] = {}  # rows with one; None: several share the text
        self._users: dict[int, str] = {}  # identity of a row -> id of the question that it serves
        for row in rows:
            self._add(row)

    def find(self, question: Question) -> Compressed | None:
        """The row of this question, None when there is none.

        Raises InputError when the ids are equal and the questions are not, or when one row would serve two questions.
        """
        row = self._by_id.get(question.id)
        if row and row.question is not None and _plain(row.question) != _plain(question.text):
            raise InputError(
                f"{row.place}: id {row.id!r} is of the question {row.question!r:.80} there and of "
                f"{question.text!r:.80} in the set; leave ids of another numbering out to match by question"
            )
        text = _plain(question.text)
        row = row or self._by_text.get(text) or self._also_by_text.get(text)
        if row and (user := self._users.setdefault(id(row), question.id)) != question.id:
            raise InputError(
                f"{row.place}: its question is that of {user!r} and of {question.id!r} in the set; "
                "give the rows the ids of the set"
            )
        return row

    def unused(self) -> tuple[str, ...]:
        """Places of the rows that no question has asked for so far."""
        return tuple(row.place for row in self.rows if id(row) not in self._users)

    def _add(self, row: Compressed) -> None:
        text = _plain(row.question or "")
        first = self._by_text.setdefault(text, row) if row.id is None else self._by_id.setdefault(row.id, row)
        if first is not row:
            name = f"the question {row.question!r:.80}" if row.id is None else f"id {row.id!r}"
            raise InputError(f"{row.place}: {name} is there twice, first at {first.place}; keep one row a question")
        if row.id is not None and row.question is not None:
            self._also_by_text[text] = None if text in self._also_by_text else row
        self.rows.append(row)


def match(compressed: Iterable[Compressed], questions: Iterable[Question]) -> Match:
    """Every question's context from its row (see `context_from`), and what is left over on either side.

    Raises InputError for two rows of one question, two questions of one id, and where `context_from` does.
    """
    found = CompressedSet(compressed)
    contexts: dict[str, Context] = {}
    rows: dict[str, Compressed] = {}
    missing: list[str] = []
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise InputError(f"the question set has the id {question.id!r} twice; ids must be distinct")
        seen.add(question.id)
        row = found.find(question)
        if row is None:
            missing.append(question.id)
        else:
            contexts[question.id], rows[question.id] = context_from(row, question), row
    return Match(contexts, rows, tuple(missing), found.unused())


def context_from(row: Compressed, question: Question) -> Context:
    """The row's context over the question's documents: extracts where the text is theirs, else summaries.

    Texts are placed by `ctxprune.eval.alignment.align`. Raises InputError when offsets do not fit the documents.
    """
    documents = [labelled.document for labelled in question.documents]
    if not any(isinstance(piece, KeptDocument) for piece in row.pieces):
        texts = [piece for piece in row.pieces if isinstance(piece, str)]
        return align(question.text, texts, documents, id=question.id)
    pieces: list[Piece] = []
    for piece in row.pieces:
        if isinstance(piece, str):
            pieces.append(Summary(piece, tuple(documents)))
        else:
            pieces.append(_extract(piece, row, question))
    present = {piece.index for piece in pieces if isinstance(piece, Extract)}
    pieces += [keeping(document, (), index=at) for at, document in enumerate(documents) if at not in present]
    return _laid_out(Context(question.text, tuple(pieces), id=question.id), row)


def _extract(kept: KeptDocument, row: Compressed, question: Question) -> Extract:
    """The document with the row's offsets, checked against the row's text."""
    documents = [labelled.document for labelled in question.documents]
    same_id = [at for at, document in enumerate(documents) if kept.id and document.id == kept.id]
    at = same_id[0] if len(same_id) == 1 else kept.index
    complaint = f"{row.place}: field 'documents[{kept.index}]'"
    if not 0 <= at < len(documents) or any(end > len(documents[at].text) for _, end in kept.kept):
        raise InputError(
            f"{complaint} does not fit the documents of question {question.id!r}; use the set it was made of"
        )
    extract = replace(keeping(documents[at], kept.kept, index=at), score=kept.score)
    if extract.text.split() != kept.text.split():
        raise InputError(
            f"{complaint}: its offsets give {extract.text!r:.60} in question {question.id!r}, its text is "
            f"{kept.text!r:.60}; use the set it was made of"
        )
    return extract


def _laid_out(context: Context, row: Compressed) -> Context:
    """The context with the titles and the order (as it came, or best document first) that give the row's whole text."""
    ranked = sorted(context.pieces, key=lambda piece: -_score(piece))
    for pieces in (context.pieces, tuple(ranked)):
        for titled in (True, False):
            shown = tuple(replace(each, titled=titled) if isinstance(each, Extract) else each for each in pieces)
            laid = replace(context, pieces=shown)
            if row.rendered is None or readable_text(laid) == row.rendered:
                return laid
    return context.warn("the file's own layout of titles and documents is not known; it is scored in document order")


def _score(piece: Piece) -> float:
    return piece.score if isinstance(piece, Extract) and piece.score is not None else -math.inf


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
