"""Ray: the bytes of the local engine, dead actors survived, Ray Data sets compressed, the sidecar served."""

import gc
import json
import signal
import socket
import sys
import urllib.request
import warnings

import pytest
from fixtures_mapping import InlineCrew, files, question_rows, write_jsonl

from ctxprune.errors import CtxpruneError, InputError
from ctxprune.integrations.mapping import Work, map_file
from ctxprune.integrations.mapping import run as driver

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, at import
    ray = pytest.importorskip("ray")
    from ctxprune.integrations.ray import CompressBatch, compress_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
WORK = Work(compressor="bm25-sentences", budget=20, part_tokens=400, batch_tokens=120)
DOCUMENTS = ["The bridge is of granite. It was opened in 1911.", "The ferry runs every hour."]


@pytest.fixture(scope="module")
def cluster():
    """One Ray for the file: it takes many seconds to start."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    gc.collect()  # its processes complain when they are collected: here, where warnings are let pass


@pytest.fixture
def expected(tmp_path, monkeypatch):
    """Input, and the files that the local engine makes of it."""
    source = write_jsonl(tmp_path / "questions.jsonl", question_rows(40))
    with monkeypatch.context() as patched:
        patched.setattr(driver, "LocalCrew", InlineCrew)
        map_file(source, tmp_path / "local", WORK)
    return source, files(tmp_path / "local")


def test_a_batch_gets_a_column_of_results():
    import pyarrow as pa

    rows = [{"id": "a", "question": "When was the bridge opened?", "documents": DOCUMENTS}]
    compress = CompressBatch(compressor="bm25-sentences", budget=8)
    [row] = compress(pa.Table.from_pylist(rows)).to_pylist()
    assert row["id"] == "a"
    result = json.loads(row["ctxprune"])
    assert result["tokens_after"] <= 8 < result["tokens_before"]
    with pytest.raises(InputError, match=r"row 0 of a batch.*'documents' must be a list"):
        compress(pa.Table.from_pylist([{"question": "q", "documents": "d"}]))


def test_data_set_arguments_are_checked():
    for work, sizes in ((Work(task="embed"), {}), (WORK, {"workers": 0}), (WORK, {"batch_rows": 0})):
        with pytest.raises(InputError):
            compress_dataset(None, work, **sizes)


@pytest.mark.slow
def test_ray_writes_what_the_local_engine_does(cluster, expected, tmp_path):
    source, local = expected
    summary = map_file(source, tmp_path / "ray", WORK, engine="ray", workers=2)
    assert summary.deaths == 0
    assert files(tmp_path / "ray") == local
    assert map_file(source, tmp_path / "ray", WORK).made == 0  # either engine goes on with the other's run


@pytest.mark.slow
def test_a_killed_actor_loses_and_doubles_nothing(cluster, expected, tmp_path):
    psutil = pytest.importorskip("psutil")
    source, local = expected
    killed = []

    def kill_one(lines):
        for process in psutil.Process().children(recursive=True) if not killed else ():
            if "ray::PartWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

    summary = map_file(source, tmp_path / "ray", WORK, engine="ray", workers=2, on_part=kill_one)
    assert killed
    assert summary.deaths >= 1
    assert files(tmp_path / "ray") == local


@pytest.mark.slow
def test_a_model_that_does_not_load_is_no_death(cluster, expected, tmp_path):
    source, _ = expected
    with pytest.raises(CtxpruneError, match="needs a budget"):
        map_file(source, tmp_path / "ray", Work(compressor="lead"), engine="ray", workers=1)


@pytest.mark.slow
def test_a_data_set_is_compressed(cluster):
    rows = [{"id": str(n), "question": f"When was bridge {n} opened?", "documents": DOCUMENTS} for n in range(5)]
    found = compress_dataset(ray.data.from_items(rows), WORK).take_all()
    assert sorted(row["id"] for row in found) == [row["id"] for row in rows]
    assert all(json.loads(row["ctxprune"])["query"] == row["question"] for row in found)


@pytest.mark.slow
def test_the_sidecar_is_served(cluster):
    from ray import serve

    from ctxprune.integrations.ray import sidecar
    from ctxprune.integrations.server import Settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(max_requests=7)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        application = sidecar(settings, max_replicas=2, target_ongoing_requests=3.0)
        deployment = application._bound_deployment
        assert deployment.max_ongoing_requests == 7
        scaling = deployment._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 2, 3.0)
        serve.run(application, route_prefix="/")
        body = json.dumps({"query": "When was the bridge opened?", "documents": DOCUMENTS}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/compress", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert "1911" in json.load(answer)["text"]
    finally:
        serve.shutdown()


def test_the_package_says_what_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ctxprune.integrations.ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CtxpruneError, match=r"pip install 'ctxprune-rag\[ray\]'"):
        import ctxprune.integrations.ray  # noqa: F401
