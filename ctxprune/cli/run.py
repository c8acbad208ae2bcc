"""What the commands that read documents do: `compress`, `run` and `index`.

`compress` prunes for one question or a file of them. `run` goes the whole way around that: it retrieves, prunes,
renders the prompt, answers, and says what became of the answer. `index` makes ahead of time what is known of documents
before any question, so that no query waits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.cli.options import Asked, Compression, read_contexts, read_documents
from ctxprune.cli.output import (
    Detail,
    Line,
    View,
    notes,
    notes_of,
    plural,
    print_json,
    print_text,
    reading_progress,
    result_lines,
    show,
    show_progress,
    show_result,
    tokens,
    write_html,
)
from ctxprune.cli.stdin import STANDARD_INPUT
from ctxprune.data.questions import locate_answers
from ctxprune.errors import GeneratorError, InputError
from ctxprune.files import batched, open_text
from ctxprune.pipeline import Pipeline
from ctxprune.prompt import readable_text, render_prompt
from ctxprune.result import CompressionResult
from ctxprune.types import Context, Document, about_of

if TYPE_CHECKING:
    from ctxprune.generators import Generator, Reply
    from ctxprune.retrievers import Retriever
    from ctxprune.vectors import VectorStore


def compress_one(question: str, paths: Sequence[Path], compression: Compression, view: View) -> None:
    tell = notes(quiet=view.quiet)
    context = Context.of(question, read_documents(paths, tell=tell))
    pipeline = compression.pipeline()
    with reading_progress(quiet=view.quiet):
        result = pipeline.run(context)
    if view.html is not None:
        write_html(view.html, [result], tell=tell)
    if view.as_json:
        print_json(result.to_dict(), indent=2)
    elif view.text:
        print_text(result.text)
        for note in notes_of(result):
            tell(f"note: {note}")
    else:
        show_result(result, view.detail)


def compress_batch(path: Path, compression: Compression, *, quiet: bool) -> None:
    """One JSON result a line, in order. A line that cannot be used ends it, after the results of those before."""
    stream = Readable(path, compression.pipeline())
    with closing(show_progress(stream.results(), total=lambda: _lines(path), quiet=quiet)) as results:
        for result in results:
            print_json(result.to_dict())
    if stream.error is not None:
        raise stream.error


class Readable:
    """The contexts of a file up to the first line that cannot be used, whose error is then in `error`.

    Raised at once it would take the results of its batch neighbours with it.
    """

    def __init__(self, path: Path, pipeline: Pipeline) -> None:
        self.path = path
        self.pipeline = pipeline
        self.error: InputError | None = None

    def results(self) -> Iterator[CompressionResult]:
        return self.pipeline.iter_run(self._contexts())

    def _contexts(self) -> Iterator[Context]:
        needs_query = any(about_of(compressor).needs_query for compressor in self.pipeline.compressors)
        try:
            yield from read_contexts(self.path, needs_query=needs_query)
        except InputError as error:
            self.error = error


def _lines(path: Path) -> int | None:
    """None for standard input, which is read once."""
    if path == STANDARD_INPUT:
        return None
    with open_text(path) as lines:
        return sum(1 for line in lines if line.strip())


#: Questions retrieved and answered together; the first results are shown after so many.
CHUNK = 8
#: Limit of an answer, in the generator's tokens.
ANSWER_TOKENS = 64


class Fate(StrEnum):
    """What became of a known answer; the value is how it is told."""

    KEPT = "kept"
    LOST = "lost"
    NOT_RETRIEVED = "not retrieved"
    EMPTIED = "emptied"
    NOT_EMPTIED = "not emptied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question's way through the pipeline; reply: the generator's, None without one."""

    asked: Asked
    result: CompressionResult
    reply: Reply | None

    @property
    def fate(self) -> Fate:
        """Whether an accepted answer still stands in the kept text; unanswerable questions ought to keep none."""
        if self.asked.answerable is False:
            return Fate.NOT_EMPTIED if self.result.text.strip() else Fate.EMPTIED
        if not self.asked.answers:
            return Fate.UNKNOWN
        if locate_answers(self.result.text, self.asked.answers):
            return Fate.KEPT
        retrieved = locate_answers(readable_text(self.result.before), self.asked.answers)
        return Fate.LOST if retrieved else Fate.NOT_RETRIEVED

    def to_dict(self) -> dict[str, Any]:
        """The result's shape and: fate, accepted answers, prompt, the generator's answer, or None and its failure."""
        row = self.result.to_dict() | {"fate": str(self.fate), "prompt": render_prompt(self.result.after)}
        if self.asked.answers:
            row["answers"] = list(self.asked.answers)
        if self.reply is None:
            return row
        return row | (
            {"answer": None, "failure": self.reply.fault} if self.reply.fault else {"answer": self.reply.text}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """depth: documents a question."""

    retriever: Retriever
    pipeline: Pipeline
    generator: Generator | None
    depth: int
    show_prompt: bool

    def report(self, questions: Sequence[Asked], view: View) -> None:
        """Print what comes of each question as it comes, then (but in JSON) the figures over all.

        Raises GeneratorError at the end when a reply was no answer. The generator's connections are closed.
        """
        try:
            self._report(questions, view)
        finally:
            if close := getattr(self.generator, "close", None):
                close()

    def _report(self, questions: Sequence[Asked], view: View) -> None:
        outcomes = []
        for place, outcome in enumerate(self.outcomes(questions, quiet=view.quiet), 1):
            outcomes.append(outcome)
            if view.as_json:
                print_json(outcome.to_dict())
            elif view.text:
                print_text(outcome.result.text)
            else:
                show(self._lines(outcome, place, len(questions), view.detail))
        if view.html is not None:
            write_html(view.html, [outcome.result for outcome in outcomes], tell=notes(quiet=view.quiet))
        if not view.as_json and not view.text:
            show(summary(outcomes))
        if failed := [outcome.reply for outcome in outcomes if outcome.reply is not None and outcome.reply.fault]:
            count = f"{len(failed)} of {plural(len(outcomes), 'question')}"
            raise GeneratorError(f"{count} got no answer: {failed[0].fault}")

    def outcomes(self, questions: Sequence[Asked], *, quiet: bool = True) -> Iterator[Outcome]:
        from ctxprune.retrievers import retrieve_contexts

        for first in range(0, len(questions), CHUNK):
            chunk = questions[first : first + CHUNK]
            contexts = retrieve_contexts(self.retriever, [asked.text for asked in chunk], self.depth)
            # one at a time, so that the seconds shown are those of the question
            with reading_progress(quiet=quiet):
                results = list(self.pipeline.iter_run(contexts, batch_size=1))
            for asked, result, answer in zip(chunk, results, self._answers(results), strict=True):
                yield Outcome(asked, result, answer)

    def _answers(self, results: Sequence[CompressionResult]) -> Sequence[Reply | None]:
        from ctxprune.generators import generated

        if self.generator is None:
            return [None] * len(results)
        return generated(
            self.generator, [render_prompt(result.after) for result in results], max_new_tokens=ANSWER_TOKENS
        )

    def _lines(self, outcome: Outcome, place: int, questions: int, detail: Detail) -> Iterator[Line]:
        yield Line(f"Question {place} of {questions}: {outcome.asked.text}", "head")
        yield from result_lines(outcome.result, detail, brief=True)
        if told := _told(outcome):
            yield Line(told)
        if self.show_prompt:
            yield Line("Prompt:", "head")
            yield Line(render_prompt(outcome.result.after), "plain", "  | ")
        if (reply := outcome.reply) is not None:
            yield Line(f"NO ANSWER: {reply.fault}" if reply.fault else f"Answer: {reply.text}", "head")
            if reply.cut and not reply.fault:
                yield Line(f"note: the answer stops at its limit of {ANSWER_TOKENS} tokens")
        yield Line("")


def summary(outcomes: Iterable[Outcome]) -> Iterator[Line]:
    """Tokens, seconds and answers over all questions."""
    outcomes = list(outcomes)
    results = [outcome.result for outcome in outcomes]
    before, after = sum(result.tokens_before for result in results), sum(result.tokens_after for result in results)
    seconds = sum(result.seconds.get("total", 0.0) for result in results)
    yield Line(f"{plural(len(outcomes), 'question')}: {tokens(before, after)}, pruned in {seconds:.3f} s", "head")
    count = {fate: sum(outcome.fate is fate for outcome in outcomes) for fate in Fate}
    if retrieved := count[Fate.KEPT] + count[Fate.LOST]:
        missing = f"; {count[Fate.NOT_RETRIEVED]} not retrieved" if count[Fate.NOT_RETRIEVED] else ""
        yield Line(f"answer still in the kept text: {count[Fate.KEPT]} of {retrieved} retrieved{missing}", "head")
    if unanswerable := count[Fate.EMPTIED] + count[Fate.NOT_EMPTIED]:
        yield Line(f"emptied because no document answers: {count[Fate.EMPTIED]} of {unanswerable}", "head")


def _told(outcome: Outcome) -> str:
    answer = " / ".join(outcome.asked.answers)
    return {
        Fate.KEPT: f"answer kept: {answer}",
        Fate.LOST: f"ANSWER LOST: {answer} is in the retrieved documents but not in the kept text",
        Fate.NOT_RETRIEVED: f"answer not retrieved: {answer} is in none of these documents",
        Fate.EMPTIED: "no document answers this question, and nothing was kept: right",
        Fate.NOT_EMPTIED: "no document answers this question, yet something was kept",
        Fate.UNKNOWN: "",
    }[outcome.fate]


#: Documents scored, and written, together.
_BATCH = 32
#: Documents after which a vector store is written: what an interruption loses at most.
_SEGMENT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOptions:
    """How `--vectors` embeds; None: as the store that is there, else the bundled encoder and one vector a document."""

    encoder: str | None = None
    shard_tokens: int | None = None
    pieces: str | None = None
    titles: bool | None = None


def documents_to_index(paths: Sequence[Path]) -> list[Document]:
    """Raises InputError when there is none."""
    documents = read_documents(paths)
    if not documents:
        raise InputError(f"no document in {', '.join(map(str, paths))}; give text, Markdown or .jsonl files")
    return documents


def index_scores(documents: Sequence[Document], scores: Path, *, model: str | None) -> None:
    """Score the words of every document whose scores the file lacks."""
    from ctxprune.compressors.llmlingua.compressor import LLMLingua2
    from ctxprune.compressors.llmlingua.model import BUNDLED, load_word_model

    compressor = LLMLingua2(load_word_model(model or BUNDLED), cache=scores)
    words = _in_batches(documents, lambda batch: compressor.index([document.text for document in batch]))
    sys.stderr.write(
        f"wrote the scores of {plural(len(documents), 'document')}, {plural(words, 'word')}, to {scores}\n"
    )


def index_sentences(documents: Sequence[Document], sentences: Path) -> None:
    """Embed the sentences of every document whose vectors the file lacks, with the default model."""
    from ctxprune.compressors.recomp.extractive import RecompExtractive

    count = _in_batches(documents, RecompExtractive(cache=sentences).index)
    done = f"{plural(count, 'sentence')} of {plural(len(documents), 'document')}"
    sys.stderr.write(f"wrote the vectors of {done} to {sentences}\n")


def index_vectors(documents: Sequence[Document], folder: Path, options: VectorOptions) -> None:
    """Embed every document that the store lacks; a new store is made where there is none.

    Run again after an interruption, it goes on. Raises InputError for options that differ from the store's, and for
    what `VectorStore.append` refuses.
    """
    from ctxprune.models.sentence_encoders import load_embedder
    from ctxprune.vectors import VectorStore
    from ctxprune.vectors.files import MANIFEST
    from ctxprune.vectors.pieces import checked_piece_kind

    store = _opened(folder, options) if (folder / MANIFEST).exists() else None
    before = 0 if store is None else len(store)
    stream = show_progress(documents, total=lambda: len(documents))
    for _ in range(0, len(documents), _SEGMENT):
        some = islice(stream, _SEGMENT)
        if store is None:
            embedder = load_embedder(options.encoder or "bundled")
            store = VectorStore.build(
                folder,
                embedder,
                some,
                shard_tokens=options.shard_tokens,
                pieces=checked_piece_kind(options.pieces or "tokens"),
                titles=bool(options.titles),
            )
        else:
            store.append(some)
    assert store is not None, "documents_to_index gives at least one"
    added = plural(len(store) - before, "document")
    sys.stderr.write(f"added {added} to {folder}, now {len(store)} with {plural(store.vectors, 'vector')}\n")


def _opened(folder: Path, options: VectorOptions) -> VectorStore:
    from ctxprune.models.sentence_encoders import load_embedder
    from ctxprune.vectors import VectorStore

    embedder = None if options.encoder is None else load_embedder(options.encoder)
    store = VectorStore.open(folder, embedder=embedder)
    for name in ("shard_tokens", "pieces", "titles"):
        built, asked = getattr(store, name), getattr(options, name)
        if asked not in (None, built):
            raise InputError(
                f"{folder} was built with {name} = {built}, now it is {asked}; leave the option out, or choose another "
                "folder"
            )
    return store


def _in_batches(documents: Sequence[Document], index: Callable[[Sequence[Document]], int]) -> int:
    """The sum of what `index` returns."""
    batches = show_progress(batched(documents, _BATCH), total=lambda: -(-len(documents) // _BATCH))
    return sum(index(batch) for batch in batches)
