"""`ctxprune index --vectors`: a store from the command line, made, appended to, and protected from other settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fixtures_vectors import HashEmbedder

from ctxprune.cli import main, run
from ctxprune.models.sentence_encoders import BundledEncoder
from ctxprune.vectors import VectorStore

TEXTS = ["The Harrow Bridge was opened in May 1911.", "Swallows nest under it.", "Rivers carry water to the sea."]


@pytest.fixture
def corpus(tmp_path):
    def write(count):
        rows = [{"id": f"r{n}", "text": text, "title": "T"} for n, text in enumerate(TEXTS[:count])]
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_a_store_is_made_then_appended_to(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "_SEGMENT", 1)  # a segment a document
    folder = tmp_path / "vectors"
    assert main(["index", corpus(2), "--vectors", str(folder), "--shard-tokens", "180", "--titles"]) == 0
    assert f"added 2 documents to {folder}, now 2 with 2 vectors" in capsys.readouterr().err
    assert main(["index", corpus(3), "--vectors", str(folder)]) == 0
    assert "added 1 document to" in capsys.readouterr().err
    store = VectorStore.open(folder, verify=True)
    texts = [f"T\n{text}" for text in TEXTS]
    np.testing.assert_array_equal(np.concatenate(store.lookup(texts)), BundledEncoder().embed(texts))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard-tokens", "90"], "was built with shard_tokens = None, now it is 90"),
        (["--pieces", "sentences"], "was built with pieces = tokens, now it is sentences"),
        (["--titles"], "was built with titles = False, now it is True"),
        (["--encoder", "other"], "was built with embedder 'all-MiniLM-L6-v2-int8' (384), not 'other' (8)"),
    ],
)
def test_other_settings_are_refused(corpus, tmp_path, capsys, monkeypatch, flags, message):
    folder = str(tmp_path / "vectors")
    assert main(["index", corpus(1), "--vectors", folder]) == 0
    monkeypatch.setattr("ctxprune.models.sentence_encoders.load_embedder", HashEmbedder)
    assert main(["index", corpus(2), "--vectors", folder, *flags]) == 1
    assert message in capsys.readouterr().err
    assert len(VectorStore.open(folder)) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "say what to make"),
        (["--scores", "s", "--encoder", "bundled"], "are for --vectors"),
        (["--vectors", "v", "--model", "m"], "--model is for --scores"),
    ],
)
def test_options_that_do_not_fit(corpus, capsys, flags, message):
    assert main(["index", corpus(1), *flags]) == 2
    assert message in capsys.readouterr().err
