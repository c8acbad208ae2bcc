"""One question and its documents give one result, whichever door they come in by."""

import json
from dataclasses import asdict
from functools import cache

import httpx2
import pytest
from fixtures_mapping import joined, write_jsonl
from fixtures_server import PATIENT, MemoryLog, running, until
from langchain_core.documents import Document as LangChainDocument
from typer.testing import CliRunner

from ctxprune import CompressionResult, Context, Document, Pipeline, Policy, load, prune
from ctxprune.cli.app import app as command_line
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.data import sample_corpus, sample_questions
from ctxprune.eval.config import config_from
from ctxprune.eval.run.folder import Store, to_json
from ctxprune.eval.run.runner import Run
from ctxprune.integrations.client import Client
from ctxprune.integrations.langchain import CtxPruneCompressor
from ctxprune.integrations.mapping import Work, map_file
from ctxprune.integrations.server import Settings, create_app
from ctxprune.retrievers import BM25Retriever

#: Each names a limit or a rule of another kind; what is not named is as every door has it.
SETTINGS = {
    "defaults": {},
    "threshold": {"threshold": 0.3},
    "nothing passes": {"threshold": 1.0},
    "budget": {"budget": 60},
    "operating point": {"operating_point": "aggressive"},
    "protect": {"threshold": 0.6, "protect": [r"\d{4}"]},
    "language": {"threshold": 0.2, "language": "fr"},
    "ranks only": {"compressor": "bm25-sentences", "budget": 70},
    "words": {"compressor": "llmlingua2", "threshold": 0.4},
    "words in a budget": {"compressor": "llmlingua2", "budget": 80},
    "lead": {"compressor": "lead", "budget": 45},
}
QUESTIONS = (3, 60)


def asked():
    """(question, its documents): what a search of the sample corpus finds."""
    search = BM25Retriever(sample_corpus())
    for place in QUESTIONS:
        question = sample_questions()[place].question
        (found,) = search.retrieve([question], k=2)
        yield question, [Document(each.text, id=each.id, title=each.title) for each in found]


ASKED = list(asked())


def by_python(settings):
    return _by_python(json.dumps(settings))


@cache
def _by_python(described):
    settings = json.loads(described)
    limits = {name: settings[name] for name in ("threshold", "budget", "operating_point") if name in settings}
    pipeline = Pipeline(loaded({name: value for name, value in settings.items() if name not in limits}))
    return [pipeline.run(Context.of(*one, id=f"q{at}"), **limits).to_dict() for at, one in enumerate(ASKED)]


def loaded(settings):
    """The compressor with every option as `load` takes it."""
    return _loaded(json.dumps(settings))


@cache
def _loaded(described):
    settings = json.loads(described)
    options = {name: value for name, value in settings.items() if name not in ("compressor", "protect")}
    if "protect" in settings:
        options["policy"] = Policy(protect=tuple(settings["protect"]))
    return load(settings.get("compressor", "provence"), **options)


def rows(tmp_path):
    return write_jsonl(
        tmp_path / "in.jsonl",
        [
            {
                "id": f"q{at}",
                "question": question,
                "documents": [{"id": each.id, "title": each.title, "text": each.text} for each in documents],
            }
            for at, (question, documents) in enumerate(ASKED)
        ],
    )


def same(row, expected, *, without=()):
    """Whether a row says what the library's does, beside what its door adds; seconds are of the machine."""
    assert {**{name: row.get(name) for name in expected}, "seconds": 0} == {
        **{name: None if name in without else value for name, value in expected.items()},
        "seconds": 0,
    }


@pytest.fixture(params=SETTINGS, ids=lambda name: name.replace(" ", "-"))
def settings(request):
    return SETTINGS[request.param]


@pytest.fixture(scope="module")
def url():
    server = create_app(Settings(**PATIENT), log=MemoryLog())
    with running(server) as url:
        until(lambda: server.state.service.ready)
        yield url


def test_the_settings_differ():
    texts = ["".join(row["text"] for row in by_python(each)) for each in SETTINGS.values()]
    assert len(set(texts)) > 9
    assert "" in texts


def test_one_call(settings):
    limits = {name: value for name, value in settings.items() if name not in ("compressor", "protect")}
    if "protect" in settings:
        limits["policy"] = Policy(protect=tuple(settings["protect"]))
    for (question, documents), expected in zip(ASKED, by_python(settings), strict=True):
        row = prune(question, documents, compressor=settings.get("compressor", "provence"), **limits).to_dict()
        same(row, expected, without=("id",))


def test_a_row_is_read_again(settings):
    for (_, documents), row in zip(ASKED, by_python(settings), strict=True):
        again = CompressionResult.from_dict(json.loads(json.dumps(row)), documents)
        assert again.to_dict() == row
        assert again.to_html()


def test_an_option_of_the_compressor_is_one_of_the_call(settings):
    pipeline = Pipeline(loaded(settings))
    results = pipeline.run([Context.of(*one, id=f"q{at}") for at, one in enumerate(ASKED)])
    for result, expected in zip(results, by_python(settings), strict=True):
        same(result.to_dict(), expected)


def test_command_line(settings, tmp_path):
    options = []
    for name, value in settings.items():
        for each in value if isinstance(value, list) else [value]:
            options += [f"--{name.replace('_', '-')}", str(each)]
    done = CliRunner().invoke(command_line, ["compress", "--batch", str(rows(tmp_path)), *options])
    assert done.exit_code == 0, done.output
    for line, expected in zip(done.stdout.splitlines(), by_python(settings), strict=True):
        same(json.loads(line), expected)


def test_server(settings, url):
    for (question, documents), expected in zip(ASKED, by_python(settings), strict=True):
        sent = [{"id": each.id, "title": each.title, "text": each.text} for each in documents]
        body = {"query": question, "documents": sent, **settings}
        answer = httpx2.post(f"{url}/v1/compress", json=body, timeout=300).json()
        for row in answer["documents"]:
            assert row.pop("sentences") == len(row["kept_spans"]) + len(row["removed_spans"])
        same(answer, expected, without=("id",))


def test_client(settings, url):
    with Client(url, timeout=300) as client:
        for (question, documents), expected in zip(ASKED, by_python(settings), strict=True):
            found = client.compress(question, documents, **settings)
            assert (found.text, found.status, found.compressor) == (
                expected["text"],
                expected["status"],
                expected["compressor"],
            )
            assert (found.tokens_before, found.tokens_after) == (expected["tokens_before"], expected["tokens_after"])
            assert (found.budget, found.over_budget) == (expected.get("budget"), expected.get("over_budget"))
            assert (found.reason, list(found.warnings)) == (expected.get("reason"), expected.get("warnings", []))
            for ours, theirs in zip(found.documents, expected["documents"], strict=True):
                assert (ours.index, ours.id, ours.title, ours.text) == tuple(
                    theirs[name] for name in ("index", "id", "title", "text")
                )
                assert [asdict(each) for each in ours.kept_spans] == theirs["kept_spans"]
                assert [asdict(each) for each in ours.removed_spans] == theirs["removed_spans"]


def test_map(settings, tmp_path):
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    map_file(rows(tmp_path), tmp_path / "out", Work(**options))
    for line, expected in zip(joined(tmp_path / "out").splitlines(), by_python(settings), strict=True):
        same(json.loads(line), expected)


def test_langchain(settings):
    compressor = CtxPruneCompressor(compressor=loaded(settings))
    for (question, documents), expected in zip(ASKED, by_python(settings), strict=True):
        given = [LangChainDocument(page_content=d.text, id=d.id, metadata={"title": d.title}) for d in documents]
        for document, row in zip(compressor.compress_documents(given, question), expected["documents"], strict=True):
            report = document.metadata["ctxprune"]
            assert (document.page_content, document.id, report["index"]) == (row["text"], row["id"], row["index"])
            assert report["kept_spans"] == row["kept_spans"]
            assert document.metadata.get("relevance_score", row["score"]) == row["score"]
            assert report["tokenizer"] == expected["tokenizer"]
            assert report.get("over_budget") == expected.get("over_budget")
            assert report.get("warnings") == expected.get("warnings")
            assert report["status"] == expected["status"] or row["text"] == documents[row["index"]].text


def written(row):
    """As a benchmark writes it, which leaves out digits that differ from machine to machine."""
    return json.loads(to_json(row))


def measured(tmp_path, tested, baselines):
    """The rows that a benchmark writes of everything but the full context, by arm."""
    described = {"data": [{"path": str(rows(tmp_path))}], "compressors": [tested], "baselines": baselines}
    out = tmp_path / "run"
    out.mkdir()
    with Store(tmp_path / "cache") as store:
        Run(config_from(described, source="here"), store).results(out)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return [row for row in samples if row["arm"] != "full"]


def test_benchmark(settings, tmp_path):
    options = {name: value for name, value in settings.items() if name == "language"}
    if "protect" in settings:
        options["policy"] = {"protect": settings["protect"]}
    limits = {f"{name}s": [settings[name]] for name in ("threshold", "budget", "operating_point") if name in settings}
    tested = {"name": settings.get("compressor", "provence"), "options": options, **limits}
    for row, expected in zip(measured(tmp_path, tested, []), by_python(settings), strict=True):
        same(row, written(expected))


def test_a_benchmark_reads_a_document_once(tmp_path, monkeypatch):
    """The baseline that reranks by the tested model takes its relevance, and chooses as if it had read for itself."""
    read = []
    known = PrunerModel.read

    def counted(self, passages):
        read.extend(passages)
        return known(self, passages)

    monkeypatch.setattr(PrunerModel, "read", counted)
    samples = measured(tmp_path, {"name": "provence", "thresholds": [0.05, 0.3]}, ["rerank-truncate"])
    assert len(read) == sum(len(documents) for _, documents in ASKED)
    tested, reranked = (
        [row for row in samples if row["compressor"] == name] for name in ("provence", "rerank-truncate")
    )
    assert len(tested) == len(reranked) == 2 * len(ASKED)
    pipeline = Pipeline(load("rerank-truncate"))
    for mine, row in zip(tested, reranked, strict=True):
        assert mine["metrics"]["compress_seconds"] > 0 < row["metrics"]["compress_seconds"]
        if budget := mine["tokens_after"]:
            found = written(pipeline.run(Context.of(*ASKED[int(row["id"][1:])]), budget=budget).to_dict())
            texts = [[(each["text"], each["score"]) for each in one["documents"]] for one in (row, found)]
            assert (texts[0], row["text"]) == (texts[1], found["text"])  # rows have runs of words as one span
