"""`ctxprune compress`: one question over documents, or a file of questions that bring theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ctxprune.cli.options import Compression, read_contexts, read_documents
from ctxprune.cli.output import (
    View,
    notes,
    notes_of,
    print_json,
    print_text,
    reading_progress,
    show_progress,
    show_result,
    write_html,
)
from ctxprune.errors import InputError
from ctxprune.files import open_text
from ctxprune.pipeline import Pipeline
from ctxprune.result import CompressionResult
from ctxprune.types import Context


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
        needs_query = any(getattr(compressor, "needs_query", True) for compressor in self.pipeline.compressors)
        try:
            yield from read_contexts(self.path, needs_query=needs_query)
        except InputError as error:
            self.error = error


def _lines(path: Path) -> int:
    with open_text(path) as lines:
        return sum(1 for line in lines if line.strip())
