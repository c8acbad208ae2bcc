"""Prune documents for a question in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from ctxprune.compressors import load
from ctxprune.documents import is_scored
from ctxprune.errors import InputError
from ctxprune.pipeline import Pipeline
from ctxprune.result import CompressionResult
from ctxprune.tokens import CounterLike
from ctxprune.types import Compressor, Context, Document

#: Loaded compressors that stay: a model is not read from the disk again for every call.
_KEPT_LOADED = 4


def prune(
    question: str,
    documents: object,
    *,
    budget: int | None = None,
    threshold: float | None = None,
    operating_point: str | None = None,
    compressor: str | Compressor = "provence",
    counter: CounterLike | None = None,
    **options: Any,
) -> CompressionResult:
    """The documents without what does not help to answer the question; `str(result)` is the text that is left.

    documents: one or many of strings, dicts, `Document`s, or documents of LangChain, LlamaIndex or Haystack (see
    `Document.of`). budget: tokens of the whole context at most. threshold: keep what scores at least this, 0 to 1;
    operating_point: "safe", "balanced" or "aggressive" in its place. With none of the three the compressor's default
    holds. compressor: a name, a checkpoint's folder or hub id, or what `load` gave. counter: counts the tokens: a name
    such as "gpt-4o", a `TokenCounter`, or a function of a text. options: what else `load` takes, such as language.
    The last few compressors stay loaded. Raises what `load` and `Pipeline.run` raise.
    """
    if not isinstance(compressor, str):
        if options:
            raise InputError(f"{', '.join(options)} goes with a compressor's name; pass it to ctxprune.load(...)")
        loaded = compressor
    else:
        loaded = _loaded(compressor, {} if counter is None else {"counter": counter}, options)
    pipeline = Pipeline(loaded, counter=counter)
    context = Context.of(question, _many(documents))
    return pipeline.run(context, budget=budget, threshold=threshold, operating_point=operating_point)


def _many(documents: object) -> Iterable[object]:
    """One document as a list of one; a (document, score) pair is one document."""
    if isinstance(documents, str | bytes | bytearray | Mapping | Document) or not isinstance(documents, Iterable):
        return [documents]
    if is_scored(documents):
        return [documents]
    # LangChain's documents are pydantic models, which are iterable
    return [documents] if hasattr(documents, "page_content") or hasattr(documents, "get_content") else documents


def _loaded(name: str, counting: dict[str, Any], options: dict[str, Any]) -> Compressor:
    try:
        return _kept(name, **counting, **options)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return load(name, **counting, **options)


@lru_cache(maxsize=_KEPT_LOADED)
def _kept(name: str, **options: Any) -> Compressor:
    return load(name, **options)
