"""A language can be named wherever documents go in, and a wrong one is refused in the same words."""

import json

import pytest
from fixtures_mapping import joined, write_jsonl
from fixtures_server import sidecar
from typer.testing import CliRunner

from ctxprune import Context, Pipeline, load
from ctxprune.cli.app import app
from ctxprune.compressors.recomp.abstractive import RecompAbstractive
from ctxprune.errors import InputError
from ctxprune.eval.config import config_from
from ctxprune.integrations.adapter import Adapter
from ctxprune.integrations.langchain import CtxPruneCompressor
from ctxprune.integrations.mapping import Work, map_file
from ctxprune.text import split_sentences
from ctxprune.types import Document

# Too short to guess; "gem." (gemäß) is an abbreviation in German only.
PLAN, QUERY = "Rathaus Ulm, Saal gem. Plan.", "Saal Rathaus?"
SENTENCE_COMPRESSORS = (
    "provence",
    "bm25-sentences",
    "recomp-extractive",
    "dslr",
    "embedding-sentences",
    "random",
)


def units(document: dict) -> int:
    return len(document["kept_spans"]) + len(document["removed_spans"])


def test_the_sample_depends_on_the_language() -> None:
    assert [len(split_sentences(PLAN, language=each)) for each in (None, "de", "de-AT", "en")] == [2, 1, 1, 2]


@pytest.mark.parametrize("name", SENTENCE_COMPRESSORS)
def test_every_sentence_compressor_takes_a_language(name: str) -> None:
    for language, expected in (("de", 1), ("de-CH", 1), ("en", 2), (None, 2)):
        (result,) = Pipeline([load(name, language=language, budget=100)]).run([Context.of(QUERY, [PLAN])])
        assert units(result.to_dict()["documents"][0]) == expected
    with pytest.raises(InputError, match="language must be an ISO 639 code"):
        load(name, language="german")


@pytest.mark.parametrize("name", ["lead", "rerank-truncate", "llmlingua2", "content-words", "random-words"])
def test_a_compressor_of_words_takes_one_too(name: str) -> None:
    assert load(name, language="pt_BR").language == "pt"


def test_a_compressor_that_reads_no_language_refuses_it() -> None:
    with pytest.raises(InputError, match="'xrag' splits no text and takes no language; leave it out"):
        load("xrag", language="de")
    with pytest.raises(TypeError, match="languages"):
        load("bm25-sentences", languages="de")


def test_summaries_take_a_language() -> None:
    assert RecompAbstractive(None, language="de-DE").language == "de"  # type: ignore[arg-type]  # never asked


def test_the_command_line(tmp_path) -> None:
    file = tmp_path / "plan.txt"
    file.write_text(PLAN)
    for command in (["compress", str(file)], ["run", "--corpus", str(file), "-k", "1"]):
        found = []
        for language in ([], ["--language", "de"]):
            done = CliRunner().invoke(
                app, [*command, "-q", QUERY, "-c", "bm25-sentences", "--budget", "60", "--json", *language]
            )
            assert done.exit_code == 0, done.output
            found.append(units(json.loads(done.stdout)["documents"][0]))
        assert found == [2, 1]
    done = CliRunner().invoke(app, ["compress", str(file), "-q", QUERY, "--language", "german"])
    assert isinstance(done.exception, InputError)
    assert "known: am, ar" in str(done.exception)


def test_the_server() -> None:
    body = {"query": QUERY, "documents": [PLAN]}
    with sidecar() as client:
        found = [
            client.post("/v1/compress", json=body | options).json()["documents"][0]["sentences"]
            for options in ({}, {"language": "de"}, {"language": "de-AT"}, {"language": "en"})
        ]
        assert found == [2, 1, 1, 2]
        wrong = client.post("/v1/compress", json=body | {"language": "german"})
        assert wrong.status_code == 422
        assert "language must be an ISO 639 code" in wrong.json()["error"]
        pruned = [
            client.post("/v1/rerank", json=body | {"pruned_text": True, "language": language})
            for language in ("de", "en", "german")
        ]
        assert [each.status_code for each in pruned] == [200, 200, 422]


def test_map(tmp_path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "1", "question": QUERY, "documents": [PLAN]}])
    for language, expected in ((None, 2), ("de", 1)):
        out = tmp_path / f"out-{language}"
        map_file(source, out, Work(compressor="bm25-sentences", budget=60, language=language))
        assert units(json.loads(joined(out))["documents"][0]) == expected


def test_the_adapters() -> None:
    for language, expected in ((None, 2), ("de", 1)):
        adapter = Adapter("bm25-sentences", budget=10, language=language)
        (one,) = adapter.compress(QUERY, [Document(PLAN)])
        assert adapter.compressor.language == language
        assert len(one.report["kept_spans"]) < expected or expected == 1
    assert CtxPruneCompressor(compressor="bm25-sentences", budget=9, language="de")._adapter.compressor.language == "de"
    with pytest.raises(InputError, match="language must be"):
        Adapter("bm25-sentences", budget=4, language="german")
    with pytest.raises(InputError, match="language goes with a compressor's name, got the loaded 'lead'"):
        Adapter(load("lead", budget=4), language="de")


def test_the_settings_of_a_benchmark() -> None:
    settings = {"data": [{"path": "q.jsonl"}], "compressors": ["provence"], "language": "de-DE"}
    assert config_from(settings, source="here").language == "de"
    with pytest.raises(InputError, match="here: language: language must be an ISO 639 code"):
        config_from(settings | {"language": "german"}, source="here")
