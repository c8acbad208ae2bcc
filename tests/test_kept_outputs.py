"""`load(..., cache=)`: what a pruner has read once it does not read again, and the scores are the same bit for bit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from ctxprune import Context, Pipeline, load
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.readings import MemoryCache
from ctxprune.errors import InputError, UnknownOptionError

CONTEXT = Context("When was it lit?", ["The lamp was lit in 1874. Gulls nest there.", "Boats pass. " * 200])
OTHER = Context("Who nests there?", ["The lamp was lit in 1874. Gulls nest there."])


def pruner_of(compressor: Any) -> PrunerModel:
    model = getattr(compressor, "model", None) or getattr(compressor, "scorer", None)
    return model if isinstance(model, PrunerModel) else model.model


class Counting:
    """The runtime behind a cache, and how many sequences it was given."""

    def __init__(self, runtime: Any) -> None:
        self.runtime, self.read = runtime, 0

    def forward(self, sequences: Any) -> Any:
        self.read += len(sequences)
        return self.runtime.forward(sequences)


def counted(compressor: Any) -> Counting:
    kept: Any = pruner_of(compressor).runtime
    kept.runtime = Counting(kept.runtime)
    return kept.runtime


@pytest.mark.parametrize("name", ["provence", "dslr", "rerank-truncate"])
def test_nothing_is_read_twice_and_nothing_changes(name: str) -> None:
    cached, plain = load(name, cache="memory"), load(name)
    counting = counted(cached)
    for contexts in ([CONTEXT], [CONTEXT, OTHER], [OTHER, CONTEXT]):
        expected = Pipeline(plain).run(contexts, budget=20)
        got = Pipeline(cached).run(contexts, budget=20)
        assert [{**each.to_dict(), "seconds": 0} for each in got] == [
            {**each.to_dict(), "seconds": 0} for each in expected
        ]
    before = counting.read
    Pipeline(cached).run([CONTEXT, OTHER], budget=20)
    assert counting.read == before > 0


def test_a_file_serves_another_compressor(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite"
    first = Pipeline(load("provence", cache=path)).run(CONTEXT).to_dict()
    second = load("provence", cache=str(path))
    counting = counted(second)
    again = Pipeline(second).run(CONTEXT).to_dict()
    assert counting.read == 0
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_decide_alike(copied: Any) -> None:
    compressor = load("provence", cache="memory")
    assert Pipeline(copied(compressor)).run(OTHER).text == Pipeline(compressor).run(OTHER).text


def test_a_damaged_entry_is_read_anew() -> None:
    cache = MemoryCache()
    compressor = load("provence", cache=cache)
    expected = Pipeline(compressor).run(OTHER).to_dict()["documents"]
    cache.put(dict.fromkeys(list(cache._kept._entries), b"not an archive"))
    assert Pipeline(compressor).run(OTHER).to_dict()["documents"] == expected


@pytest.mark.parametrize("name", ["lead", "random", "bm25-sentences", "content-words"])
def test_where_there_is_nothing_to_keep(name: str) -> None:
    with pytest.raises(UnknownOptionError, match="'cache'"):
        load(name, cache="memory")


def test_none_is_no_cache() -> None:
    assert load("recomp-extractive", cache=None).sentences.cache is None  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="leave cache out"):
        load("rerank-truncate", scorer="retriever", cache="memory")
