"""The kind of units can be named wherever documents go in, and a wrong one is refused in the same words."""

import json

import pytest
from fixtures_mapping import joined, write_jsonl
from fixtures_server import sidecar
from typer.testing import CliRunner

from ctxprune import Context, Pipeline, load
from ctxprune.calibration import identity
from ctxprune.cli.app import app
from ctxprune.errors import InputError
from ctxprune.integrations.adapter import Adapter
from ctxprune.integrations.langchain import CtxPruneCompressor
from ctxprune.integrations.mapping import Work, map_file
from ctxprune.text import split_sentences
from ctxprune.types import Document

# Three lines of two sentences each, in two paragraphs.
NOTES = (
    "The ferry sails at noon. It carries cars.\nTickets cost two crowns. Dogs are free.\n\nThe pier is long. It is old."
)
QUERY = "When does the ferry sail?"
COUNTS = {"auto": 6, "sentences": 6, "lines": 3, "records": 3, "paragraphs": 2}


def units(document: dict) -> int:
    return len(document["kept_spans"]) + len(document["removed_spans"])


@pytest.mark.parametrize("kind", COUNTS)
def test_the_sample_depends_on_the_kind(kind) -> None:
    assert len(split_sentences(NOTES, units=kind)) == COUNTS[kind]


@pytest.mark.parametrize(
    "name", ["provence", "bm25-sentences", "recomp-extractive", "dslr", "embedding-sentences", "random"]
)
def test_every_compressor_of_sentences_takes_a_kind(name) -> None:
    for kind in ("lines", "paragraphs"):
        (result,) = Pipeline([load(name, units=kind, budget=100)]).run([Context.of(QUERY, [NOTES])])
        assert units(result.to_dict()["documents"][0]) == COUNTS[kind]
    with pytest.raises(InputError, match="units must be one of auto, sentences"):
        load(name, units="words")


@pytest.mark.parametrize("name", ["lead", "rerank-truncate", "llmlingua2", "content-words", "xrag"])
def test_others_refuse_it(name) -> None:
    with pytest.raises(InputError, match=r"units.*leave"):
        load(name, units="lines")


def test_a_calibration_belongs_to_its_kind() -> None:
    kinds = [identity(load("bm25-sentences", units=kind)).get("units") for kind in ("auto", "lines")]
    assert kinds == [None, "lines"]


def test_the_command_line(tmp_path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(NOTES)
    options = ["-q", QUERY, "-c", "bm25-sentences", "--budget", "12", "--json"]
    done = CliRunner().invoke(app, ["compress", str(file), *options, "--units", "lines", "--elision", "[...]"])
    assert done.exit_code == 0, done.output
    assert units(json.loads(done.stdout)["documents"][0]) == COUNTS["lines"]
    refused = CliRunner().invoke(app, ["compress", str(file), "-q", QUERY, "-c", "llmlingua2", "--units", "lines"])
    assert isinstance(refused.exception, InputError)


def test_the_server() -> None:
    body = {"query": QUERY, "documents": [NOTES]}
    with sidecar() as client:
        for name in ("provence", "bm25-sentences", "embedding-sentences"):
            answers = [
                client.post("/v1/compress", json=body | {"compressor": name, "units": kind, "budget": 500}).json()
                for kind in COUNTS
            ]
            assert [answer["documents"][0]["sentences"] for answer in answers] == list(COUNTS.values())
        assert client.post("/v1/compress", json=body | {"units": "words"}).status_code == 422
        refused = client.post("/v1/compress", json=body | {"units": "lines", "compressor": "lead", "budget": 9})
        assert (refused.status_code, "leave units out" in refused.json()["error"]) == (422, True)


def test_a_gap_is_marked_everywhere_alike(tmp_path) -> None:
    options = {"compressor": "bm25-sentences", "budget": 24, "elision": "[...]"}
    query = "Where do cars sail, and is the pier old?"
    with sidecar() as client:
        served = client.post("/v1/compress", json=options | {"query": query, "documents": [NOTES]}).json()
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "1", "question": query, "documents": [NOTES]}])
    map_file(source, tmp_path / "out", Work(**options))
    mapped = json.loads(joined(tmp_path / "out"))
    assert "[...]" in served["text"]
    assert mapped["text"] == served["text"]


def test_map(tmp_path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "1", "question": QUERY, "documents": [NOTES]}])
    for kind in ("lines", "paragraphs"):
        map_file(source, tmp_path / kind, Work(compressor="bm25-sentences", budget=60, units=kind))
        assert units(json.loads(joined(tmp_path / kind))["documents"][0]) == COUNTS[kind]


def test_the_adapters() -> None:
    (one,) = Adapter("bm25-sentences", budget=12, units="lines").compress(QUERY, [Document(NOTES)])
    assert one.text == NOTES.split("\n")[0]
    assert CtxPruneCompressor(compressor="bm25-sentences", budget=9, units="lines")._adapter.compressor.units == "lines"
    with pytest.raises(InputError, match="units must be one of"):
        Adapter("bm25-sentences", budget=4, units="words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="units goes with a compressor's name, got the loaded 'lead'"):
        Adapter(load("lead", budget=4), units="lines")
