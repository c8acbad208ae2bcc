"""The vector store against crashes, damage and bad input: the old state stays readable, and every fault is named."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures_vectors import HashEmbedder, documents

from ctxprune.errors import CheckpointError, CtxpruneError, InputError
from ctxprune.types import Document
from ctxprune.vectors import VectorStore

SEGMENT_FILES = ("documents.jsonl", "ids.bin", "lines.bin", "shards.bin", "texts.bin", "vectors.bin")


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore.build(tmp_path / "store", HashEmbedder(), documents(10))


class Killed(BaseException):
    """As if the process were gone: nothing catches it."""


@pytest.mark.parametrize("last", ["segment-000002", "manifest.json"])
@pytest.mark.parametrize("error", [Killed, OSError])
def test_a_crash_before_the_new_manifest_leaves_the_old_state(store, monkeypatch, last, error):
    replace = os.replace

    def until(source, target):
        if Path(target).name == last:
            raise error("no space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", until)
        with pytest.raises((Killed, InputError)):
            store.append(documents(5, first=10))
    again = VectorStore.open(store.folder, embedder=HashEmbedder(), verify=True)
    assert len(again) == 10 and again.lookup(["passage number 12"]) == [None]
    assert again.append(documents(5, first=10)) == 5
    assert len(VectorStore.open(store.folder, verify=True)) == 15
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "manifest.json",
        "segment-000001",
        "segment-000002",
    ]


def test_a_crash_in_the_first_build_leaves_a_folder_to_build_in(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda source, target: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            VectorStore.build(tmp_path, HashEmbedder(), documents(3))
    with pytest.raises(CheckpointError, match="holds no vector store"):
        VectorStore.open(tmp_path)
    assert len(VectorStore.build(tmp_path, HashEmbedder(), documents(3))) == 3


def test_documents_that_end_midway_change_nothing(store):
    def failing():
        yield from documents(400, first=10)
        raise Killed

    with pytest.raises(Killed):
        store.append(failing())
    assert len(VectorStore.open(store.folder, verify=True)) == 10


@pytest.mark.parametrize("name", SEGMENT_FILES)
def test_a_truncated_or_missing_file_is_named_when_the_store_is_opened(store, name):
    path = store.folder / "segment-000001" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} has \d+ bytes in place of \d+"):
        VectorStore.open(store.folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        VectorStore.open(store.folder)


@pytest.mark.parametrize("name", SEGMENT_FILES)
def test_a_flipped_byte_is_found_by_verify(store, name):
    flip(store.folder / "segment-000001" / name, 33)
    damaged = VectorStore.open(store.folder)
    with pytest.raises(CheckpointError, match=f"{name} has changed since it was written"):
        damaged.verify()
    with pytest.raises(CheckpointError, match="restore it from a copy"):
        VectorStore.open(store.folder, verify=True)


def test_a_damaged_index_is_found_too(store):
    store.build_index("HNSW4")
    index = store.folder / "index-000001.faiss"
    flip(index, 200)
    with pytest.raises(CheckpointError, match=r"index-000001.faiss has changed"):
        VectorStore.open(store.folder, verify=True)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"index-000001.faiss is missing"):
        VectorStore.open(store.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-30], "cannot read"),
        (lambda text: text.replace('"dimension": 8', '"dimension": 4'), "has changed since it was written"),
        (lambda text: text.replace("ctxprune-vectors-1", "ctxprune-vectors-9"), "of format 'ctxprune-vectors-9'"),
        (lambda text: "[]", "cannot read"),
    ],
)
def test_a_changed_manifest_is_refused(store, change: Callable[[str], str], message):
    path = store.folder / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=message):
        VectorStore.open(store.folder)


def test_a_vector_that_is_no_number_is_not_handed_out(store):
    path = store.folder / "segment-000001" / "vectors.bin"
    content = np.frombuffer(path.read_bytes(), "<f4").copy()
    content[8 * 4] = np.nan
    path.write_bytes(content.tobytes())
    damaged = VectorStore.open(store.folder)
    assert damaged.lookup(["passage number 3"])[0] is not None
    with pytest.raises(CheckpointError, match="no finite vectors for document 4"):
        damaged.lookup(["passage number 4"])


class Broken(HashEmbedder):
    """Gives one wrong number or shape."""

    def __init__(self, wrong: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.wrong = wrong

    def embed(self, texts):
        return self.wrong(super().embed(texts))


def with_nan(vectors: np.ndarray) -> np.ndarray:
    vectors[2, 3] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (with_nan, r"the vector of document 'd12' \('passage number 12'\) holds NaN"),
        (lambda vectors: vectors[:, :5], r"vectors of shape \(5, 5\) for 5 texts"),
        (lambda vectors: vectors[:-1], r"vectors of shape \(4, 8\) for 5 texts"),
    ],
)
def test_wrong_vectors_are_refused_and_nothing_is_written(store, wrong, message):
    broken = VectorStore.open(store.folder, embedder=Broken(wrong))
    with pytest.raises(InputError, match=message):
        broken.append(documents(5, first=10))
    assert len(VectorStore.open(store.folder, verify=True)) == 10


def test_what_float16_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds NaN or infinity in float16"):
        VectorStore.build(tmp_path, Broken(lambda vectors: vectors * 1e6), documents(1), dtype="float16")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([Document("x", id="d3")], "the id 'd3' is in .* with another text"),
        ([Document("x", id="new"), Document("x", id="new")], "the id 'new' comes twice"),
        ([Document("ok"), Document(" \n", id="blank")], r"documents\[1\] with id 'blank' has no text"),
        (["text"], r"documents\[0\] must be a Document, got str"),
        ([Document("x", metadata={"set": {1}})], "cannot save document 0"),
    ],
)
def test_documents_that_are_refused(store, given, message):
    with pytest.raises(InputError, match=message):
        store.append(given)
    assert len(VectorStore.open(store.folder, verify=True)) == 10
    assert not list(store.folder.glob("*.part"))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda store: store.search(np.zeros((1, 5)), 1), r"queries must be \(n, 8\) for this store, got \(1, 5\)"),
        (lambda store: store.search(np.full((1, 8), np.nan), 1), "queries must be finite"),
        (lambda store: store.search(np.zeros((1, 8)), 0), "k must be at least 1"),
        (lambda store: store.document(10), "documents 0 to 9, got place 10"),
        (lambda store: store.lookup(["a"], ids=["a", "b"]), "got 2 ids and 1 texts"),
        (lambda store: store.build_index("NoSuchIndex"), "faiss cannot build the index 'NoSuchIndex' over 10 vectors"),
        (lambda store: VectorStore.build(store.folder, HashEmbedder(), documents(1)), "open it and append"),
        (lambda store: VectorStore.build(store.folder / "x", HashEmbedder(), []), "at least one document, got none"),
        (lambda store: VectorStore.build(store.folder.parent, HashEmbedder(), documents(1)), "no part of a vector"),
        (lambda store: VectorStore.build(store.folder, HashEmbedder(), [], dtype="int8"), "dtype must be one of"),
        (lambda store: VectorStore.open(store.folder, embedder=HashEmbedder("other")), "built with embedder 'hash'"),
    ],
)
def test_calls_that_are_refused(store, use, message):
    with pytest.raises(CtxpruneError, match=message):
        use(store)


def test_a_second_writer_is_turned_away(store):
    with (store.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"):
            store.append(documents(1, first=10))
    assert store.append(documents(1, first=10)) == 1


def test_a_manifest_cannot_point_outside_the_folder(store, tmp_path):
    from ctxprune.vectors.files import _checksum

    path = store.folder / "manifest.json"
    row = json.loads(path.read_text())
    row["segments"][0]["name"] = "../elsewhere"
    content = {name: value for name, value in row.items() if name not in ("format", "checksum")}
    path.write_text(json.dumps({**row, "checksum": _checksum(content)}))
    with pytest.raises(CheckpointError, match="no file of a vector store"):
        VectorStore.open(store.folder)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
