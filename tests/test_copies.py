"""Compressors and adapters are copied, pickled and sent to worker processes, and a changed copy does what it shows."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from ctxprune import Context, load
from ctxprune.compressors.readings import MemoryCache, SqliteCache
from ctxprune.documents import text_of
from ctxprune.errors import CtxpruneError, InputError, MissingExtraError, MissingPackageError
from ctxprune.generators import load_generator
from ctxprune.integrations.client import Client, NoAnswerError
from ctxprune.integrations.langchain import CtxPruneCompressor, CtxPruneRetriever
from ctxprune.integrations.tool_results import ToolResults
from ctxprune.types import Compressor

QUESTION = "When was the lighthouse lit?"
TEXT = "The lighthouse stands on a cape. It was lit in 1874. Gulls nest on its roof."
NAMES = ["lead", "bm25-sentences", "provence", "llmlingua2", "recomp-extractive", "rerank-truncate"]


def compressed(compressor: Compressor) -> str:
    [result] = compressor.compress([Context.of(QUESTION, [TEXT])], budget=12)
    return result.pieces[0].text


def unpickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [unpickled, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_a_compressor_decides_alike(name: str, copied: Callable[[Any], Any]) -> None:
    compressor = load(name)
    assert compressed(copied(compressor)) == compressed(compressor)


def test_a_pickle_names_a_bundled_model_and_does_not_hold_it() -> None:
    content = pickle.dumps(load("provence").model.runtime)  # type: ignore[attr-defined]
    assert len(content) < 1000
    assert (
        str(Path.home()).encode() not in content and b"/site-packages/" not in content and b"/ctxprune/" not in content
    )


def test_a_worker_process_gets_compressor_and_adapter() -> None:
    compressor = load("provence")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(compressed, compressor).result() == compressed(compressor)


def test_a_closed_runtime_is_not_copied() -> None:
    runtime = copy.deepcopy(load("provence").model.runtime)  # type: ignore[attr-defined]
    runtime.close()
    with pytest.raises(InputError, match="closed and cannot be copied"):
        copy.copy(runtime)


def test_caches_are_copied_by_what_they_are(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "cache") as cache:
        cache.put({b"k": b"v"})
        with unpickled(cache) as again:
            assert again.get([b"k"]) == [b"v"]
    memory = MemoryCache(max_bytes=7)
    memory.put({b"k": b"v"})
    assert (len(copy.deepcopy(memory)), copy.deepcopy(memory).max_bytes) == (0, 7)


UPDATES: list[dict[str, Any]] = [
    {"threshold": 0.9},
    {"budget": 6},
    {"compressor": "lead", "threshold": None, "budget": 6},
    {"compressor": "lead", "threshold": None, "budget": 6, "tokenizer": "words"},
    {"top_n": 1},
    {"drop_empty": True, "threshold": 0.999},
]


@pytest.mark.parametrize("update", UPDATES)
def test_a_copy_with_other_options_prunes_as_one_built_with_them(update: dict[str, Any]) -> None:
    documents = [LangChainDocument(TEXT), LangChainDocument("The ferry sails daily.")]
    first = CtxPruneCompressor(threshold=0.01)
    expected = CtxPruneCompressor(**{"threshold": 0.01, **update}).compress_documents(documents, QUESTION)
    for changed in (first.model_copy(update=update), first.__replace__(**update), first.copy(update=update)):
        assert changed.compress_documents(documents, QUESTION) == expected
        assert all(getattr(changed, name) == value for name, value in update.items())
    assert copy.deepcopy(first.model_copy(update=update)).compress_documents(documents, QUESTION) == expected


def test_a_copy_refuses_what_cannot_be() -> None:
    first = CtxPruneCompressor(compressor="lead", budget=5)
    for update in ({"budget": -1}, {"top_n": 0}, {"colour": "red"}, {"on_error": "shrug"}, {"compressor": "xrag"}):
        with pytest.raises((CtxpruneError, ValidationError)):
            first.model_copy(update=update)
    with pytest.raises(ValidationError):
        first.budget = 7  # type: ignore[misc]
    with pytest.raises(InputError, match="pass update="):
        first.copy(exclude={"budget"})


class Fixed(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[LangChainDocument]:
        return [LangChainDocument(TEXT), LangChainDocument("The ferry sails daily.")]


def test_a_copy_of_the_retriever_has_its_compressor_checked_too() -> None:
    retriever = CtxPruneRetriever(retriever=Fixed(), compressor=CtxPruneCompressor(compressor="lead", budget=20))
    assert len(retriever.model_copy(update={"k": 1}).invoke(QUESTION)) == 1
    assert retriever.model_copy(update={"compressor": "provence"}).compressor.compressor == "provence"
    with pytest.raises((CtxpruneError, ValidationError)):
        retriever.model_copy(update={"k": 0})


def test_missing_values_are_no_text() -> None:
    pandas = pytest.importorskip("pandas")
    missing = [None, float("nan"), np.float64("nan"), np.float32("nan"), np.datetime64("NaT"), pandas.NA, pandas.NaT]
    assert [text_of(value) for value in missing] == [""] * len(missing)
    assert [text_of(value) for value in ("nan", 0, False, 1.5, "")] == ["nan", "0", "False", "1.5", ""]
    assert text_of(np.array([1.0, np.nan])).startswith("[")


def test_what_asks_over_the_network_is_copied_without_its_connections() -> None:
    address = "http://127.0.0.1:9/v1"
    generator = load_generator("m", base_url=address)
    for each in (load("recomp-abstractive", model="m", base_url=address), generator, Client(address, api_key="k")):
        with each:  # type: ignore[attr-defined]
            assert type(unpickled(each)) is type(copy.deepcopy(each)) is type(each)
    with pytest.raises(NoAnswerError, match=address):
        unpickled(Client(address, retries=0)).info()


def test_pruned_tool_results_are_forgotten_in_another_process_alone() -> None:
    results = ToolResults("bm25-sentences", budget=80, min_tokens=1, originals=True)
    long = TEXT + " Fishermen mend their nets by the harbour wall." * 40
    pruned = results.prune(long, QUESTION)
    assert pruned is not None and copy.deepcopy(results) is results
    there = unpickled(results)
    assert "no original" in there.original(pruned.report["hash"])
    again = there.prune(long, QUESTION)
    assert again is not None and again.report["kept_spans"] == pruned.report["kept_spans"]


def _fails(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [MissingExtraError("Ray", "ray"), MissingPackageError("training", "torch")])
def test_the_error_of_a_worker_process_arrives(error: Exception) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        failed = pool.submit(_fails, error).exception()
    assert (type(failed), str(failed)) == (type(error), str(error))


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` gives in a forked child; fails where the child says nothing for long."""
    mine, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(work()))
    child.start()
    try:
        assert mine.poll(30), "the child hangs"
        return mine.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_cache_in_a_forked_child(tmp_path: Path) -> None:
    on_disk, in_memory = SqliteCache(tmp_path / "a.db"), MemoryCache()
    for cache, lock in ((on_disk, on_disk._lock), (in_memory, in_memory._kept._lock)):
        cache.put({b"k": b"parent"})
        with lock:  # as a thread of the parent may hold it at that moment
            assert in_a_fork(lambda: cache.get([b"k"])) == [b"parent"]  # noqa: B023
    with SqliteCache(tmp_path / "b.db") as cache:
        in_a_fork(lambda: cache.put({b"c": b"child"}))
        assert in_a_fork(lambda: id(cache._connection)) != id(cache._connection)
        assert cache.get([b"c"]) == [b"child"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own() -> None:
    client, generator = Client("http://127.0.0.1:9"), load_generator("m", base_url="http://127.0.0.1:9/v1")
    assert client._http is client._http
    assert in_a_fork(lambda: id(client._http)) != id(client._http)
    transport = generator._transport  # type: ignore[attr-defined]
    assert transport._client() is transport._client()
    assert in_a_fork(lambda: id(transport._client())) != id(transport._client())
    client.close()
    generator.close()  # type: ignore[attr-defined]
