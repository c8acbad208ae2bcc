"""Share the documents of a context out among as many prompts as their length needs, so that none is cut short."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final, Protocol

from ctxprune.compressors.base import Splitter, narrow, visible_units
from ctxprune.compressors.recomp.faithfulness import checked
from ctxprune.errors import GeneratorError, InputError
from ctxprune.generators.base import REFUSED, Generator, Reply, generated
from ctxprune.models.seq2seq import Seq2Seq, Written
from ctxprune.prompt import count_contexts, title_header, title_line
from ctxprune.select import Policy, select
from ctxprune.text import split_sentences, split_words
from ctxprune.text.markup import silent_units
from ctxprune.tokens import default_counter
from ctxprune.types import Context, Document, Extract, Piece, Span, Summary, TokenCounter, whole

#: What a chat model is to answer when nothing in the documents helps.
NOTHING: Final = "NOTHING RELEVANT"


def seq2seq_source(query: str, passages: Sequence[str]) -> str:
    """The input of the published RECOMP summarisers, its blanks included (Xu et al., ICLR 2024)."""
    joined = "\n".join(passages)
    return f"Question: {query}\n Document: {joined}\n Summary: "


def chat_prompt(query: str, passages: Sequence[str]) -> str:
    """One user turn that asks a chat model for a short summary with the question in view; `read_answer` reads it."""
    documents = "\n\n".join(passages)
    return (
        "Below are documents that a search returned for a question. In at most two sentences, state what they say that "
        "helps to answer it. Use only what the documents say, with their names and numbers as written, and add "
        f"nothing. If nothing in them helps, reply only {NOTHING}.\n\n"
        f"Question: {query}\n\nDocuments:\n{documents}\n\nSummary:"
    )


#: The model's own refusal, in whole replies only; "the documents do not say" is a summary.
_REFUSAL: Final = re.compile(
    r"(?:(?:i(?:['’]m| am) (?:very |so )?)?sorry|(?:my )?apologies|i apologi[sz]e|unfortunately)?"
    r"[,.;:]?\s*(?:but\s+)?"
    r"(?:as an ai\b[^.,]*[,.]?\s*)?"
    r"i(?: can(?:no|['’])t| can not|(?: a|['’])m (?:not able|unable)| won['’]t| will not| must decline)"
    r"(?: to)? (?:help|assist|comply|fulfil|do (?:that|this)|continue|engage|process|summari[sz]e)\b",
    re.IGNORECASE,
)


def refuses_summary(answer: str) -> bool:
    """Whether a chat model declines the request instead of summarising."""
    return _REFUSAL.match(answer.strip()) is not None


def read_answer(answer: str) -> str:
    """The summary in a chat model's answer: "" when it says that nothing helps."""
    answer = answer.strip()
    return "" if answer.strip(" .!\"'*()[]").upper() == NOTHING else answer


_ENDED = re.compile(r"[.!?…。！？।][\"'”’»)\]]*$")


class Summarizer(Protocol):
    """Prompts in, summaries out. titles: whether passages carry their document's title."""

    @property
    def titles(self) -> bool: ...

    def prompt(self, query: str, passages: Sequence[str]) -> str: ...

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Input tokens of each prompt, as `source_tokens` limits them."""
        ...

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        """One summary a prompt, in order; "" where nothing helps."""
        ...

    def close(self) -> None:
        """Give back connections, if it has any."""
        ...


class Seq2SeqSummarizer:
    """A T5 with the published RECOMP input. titles: off, as that input has passages only."""

    def __init__(self, model: Seq2Seq, *, titles: bool = False) -> None:
        self.titles = titles
        self._model = model

    def prompt(self, query: str, passages: Sequence[str]) -> str:
        return seq2seq_source(query, passages)

    def count(self, prompts: Sequence[str]) -> list[int]:
        return self._model.count(prompts)

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        return self._model.generate(prompts, max_new_tokens=max_new_tokens)

    def close(self) -> None:
        """Nothing is held open."""


class GeneratorSummarizer:
    """A generator asked in its own turn, on disk or at an endpoint.

    counter: measures prompts and answers (default: the bundled tokenizer's estimate). Of a generator that does not say
    whether it ended by itself, an answer near the limit without a mark at its end counts as cut off.
    """

    #: Share of the limit from which on an answer may have been cut off, where tokens are only estimated.
    near_limit: ClassVar[float] = 0.8

    def __init__(self, generator: Generator, *, counter: TokenCounter | None = None, titles: bool = True) -> None:
        self.titles = titles
        self._generator = generator
        self._counter = counter or default_counter()

    def prompt(self, query: str, passages: Sequence[str]) -> str:
        return chat_prompt(query, passages)

    def count(self, prompts: Sequence[str]) -> list[int]:
        return self._counter.count(prompts)

    def summarize(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        """Raises GeneratorError for a reply that is no summary: empty, refused, only reasoning, cut off within its
        first sentence. "" comes only of a model that says that nothing helps."""
        replies = generated(self._generator, prompts, max_new_tokens=max_new_tokens)
        return [self._written(reply, max_new_tokens) for reply in replies]

    def _written(self, reply: Reply, limit: int) -> Written:
        if reply.cut and len(split_sentences(reply.text)) > 1:
            return Written(reply.text, complete=False)
        text = reply.usable(self._generator.name)
        if refuses_summary(text):
            raise GeneratorError(f"{self._generator.name} gave no summary: {REFUSED}: {text:.200}")
        answer = read_answer(text)
        if reply.cut is not None:
            return Written(answer, complete=not reply.cut)
        near = self._counter.count([answer])[0] >= self.near_limit * limit
        return Written(answer, complete=not near or bool(_ENDED.search(answer)))

    def close(self) -> None:
        """Close the generator where it can be closed."""
        if close := getattr(self._generator, "close", None):
            close()


#: What one prompt shows: extracts in order, each with what is kept of it here.
Window = tuple[Extract, ...]

#: Tokens for documents below which a prompt is not worth asking.
MIN_ROOM = 8


def windowed(
    query: str,
    extracts: Sequence[Extract],
    *,
    summarizer: Summarizer,
    source_tokens: int,
    language: str | None = None,
) -> list[Window]:
    """Windows whose prompts take at most `source_tokens` tokens, together showing all that is kept, once.

    Documents stay whole where they fit; a longer one is split at sentences, a longer sentence at white space.
    language: see `split_sentences`.
    Raises InputError when the question leaves less than MIN_ROOM tokens.
    """
    if not extracts:
        return []
    [asked] = summarizer.count([summarizer.prompt(query, [])])
    room = source_tokens - asked
    while room >= MIN_ROOM:
        windows = _packed(extracts, room, summarizer, language)
        prompts = [prompt_of(query, window, summarizer) for window in windows]
        excess = max(summarizer.count(prompts)) - source_tokens
        if excess <= 0:
            return windows
        room -= excess  # tokens of parts do not quite add up to the tokens of the whole
    raise InputError(
        f"the question takes {asked} of {source_tokens} source tokens, which leaves too few for documents; "
        "shorten it or raise source_tokens"
    )


def prompt_of(query: str, window: Window, summarizer: Summarizer) -> str:
    return summarizer.prompt(query, [_passage(extract, summarizer) for extract in window])


def _passage(extract: Extract, summarizer: Summarizer) -> str:
    return (title_header(extract) if summarizer.titles else "") + extract.text


def _packed(extracts: Sequence[Extract], room: int, summarizer: Summarizer, language: str | None) -> list[Window]:
    parts: list[Extract] = []
    for extract, cost in zip(
        extracts, _costs([_passage(each, summarizer) for each in extracts], summarizer), strict=True
    ):
        parts += [extract] if cost <= room else _split(extract, room, summarizer, language)
    costs = _costs([_passage(part, summarizer) for part in parts], summarizer)
    return [tuple(parts[run]) for run in _runs(costs, room)]


def _split(extract: Extract, room: int, summarizer: Summarizer, language: str | None) -> list[Extract]:
    """The extract in parts of about `room` tokens, each with the rest of its units marked as removed."""
    [header] = summarizer.count([title_line(extract)]) if summarizer.titles else [0]
    room = max(room - header, 1)
    units, costs = _sentences(extract, room, summarizer, language)
    marked = narrow(extract, units)
    parts = []
    for run in _runs(costs, room):
        mine = set(units[run])
        kept = tuple(kept and unit in mine for unit, kept in zip(marked.units, marked.kept, strict=True))
        parts.append(replace(marked, kept=kept))
    return parts


def _sentences(
    extract: Extract, room: int, summarizer: Summarizer, language: str | None
) -> tuple[list[Span], list[int]]:
    """(kept sentences of at most `room` tokens where they can be cut so short, tokens of each)."""
    text, longest = extract.source.text, 2000
    while True:
        units = visible_units(extract, partial(split_sentences, language=language, max_characters=longest))
        silent = silent_units(text, units)  # an image in base64 would take whole windows and says nothing
        units = [unit for unit, quiet in zip(units, silent, strict=True) if not quiet] or units[:1]
        costs = _costs([text[unit.start : unit.end] for unit in units], summarizer)
        if longest == 1 or max(costs) <= room:
            return units, costs
        longest //= 2


def _costs(passages: Sequence[str], summarizer: Summarizer) -> list[int]:
    """Tokens of each passage and the line break before it."""
    return [tokens + 1 for tokens in summarizer.count(passages)]


def _runs(costs: Sequence[int], room: int) -> list[slice]:
    """Consecutive stretches, each as long as `room` allows and of one item at least."""
    runs, start, spent = [], 0, 0
    for place, cost in enumerate(costs):
        if place > start and spent + cost > room:
            runs.append(slice(start, place))
            start, spent = place, 0
        spent += cost
    return [*runs, slice(start, len(costs))]


_FROM_THE_FRONT = Policy(fill="stop")


def within_budget(
    context: Context,
    written: Sequence[Piece],
    *,
    budget: int,
    counter: TokenCounter,
    language: str | None = None,
) -> Context:
    """The context in at most `budget` tokens: every piece of `written` keeps its beginning, all about the same number
    of sentences; with a warning when anything had to go.

    written: the pieces that may be shortened, summaries and extracts. language: see `split_sentences`. Where not one
    sentence fits, words are kept.
    """
    if count_contexts([context], counter)[0] <= budget:
        return context
    mine = {id(piece) for piece in written}
    shortened = _selected(context, mine, partial(split_sentences, language=language), budget, counter)
    if not any(map(_has_text, shortened.pieces)):
        shortened = _selected(context, mine, split_words, budget, counter)
    return shortened.warn(f"the summary was shortened to the budget of {budget} tokens")


def _selected(context: Context, mine: set[int], split: Splitter, budget: int, counter: TokenCounter) -> Context:
    """Let `select` choose, which for this sees each summary as a document of its own."""
    pieces = tuple(_ranked(piece, split) if id(piece) in mine else piece for piece in context.pieces)
    chosen = select(
        replace(context, pieces=pieces), threshold=None, budget=budget, counter=counter, policy=_FROM_THE_FRONT
    )
    return replace(chosen, pieces=tuple(map(_restored, context.pieces, chosen.pieces)))


def _ranked(piece: Piece, split: Splitter) -> Piece:
    """The n-th unit of a piece scores -n, so that all pieces give up their ends first."""
    extract = whole(Document(piece.text), index=piece.index) if isinstance(piece, Summary) else piece
    assert isinstance(extract, Extract)
    units = visible_units(extract, split)
    return narrow(extract, [replace(unit, score=-float(place)) for place, unit in enumerate(units)])


def _restored(before: Piece, after: Piece) -> Piece:
    if isinstance(before, Summary) and isinstance(after, Extract):
        return before if after.text == before.text else checked(replace(before, text=after.text))
    return after


def _has_text(piece: Piece) -> bool:
    return isinstance(piece, Extract | Summary) and bool(piece.text)
