"""Probes, keys, limits, logs, metrics, settings, and leaving in good order."""

import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
import zlib

import httpx2
import pytest
import uvicorn
from fixtures_server import DOCUMENTS, PATIENT, QUERY, Held, MemoryLog, no_signals, running, sidecar, until
from pydantic import ValidationError
from starlette.testclient import TestClient

from ctxprune.errors import InputError
from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server import app as app_module
from ctxprune.integrations.server.app import settings_from_environment
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.observe import json_log, opentelemetry_tracing
from ctxprune.integrations.server.service import decoded

BODY = {"query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def client():
    with sidecar(api_keys=["first", "second"], cors_origins=["https://app.example"], max_body_bytes=2000) as client:
        yield client


def test_keys(client):
    for headers in ({}, {"authorization": "Bearer third"}, {"authorization": "Basic first"}, {"x-api-key": "fir"}):
        response = client.post("/v1/compress", json=BODY, headers=headers)
        assert (response.status_code, response.json()["error_type"]) == (401, "Unauthorized")
    for headers in ({"authorization": "Bearer first"}, {"x-api-key": "second"}):
        assert client.post("/v1/compress", json=BODY, headers=headers).status_code == 200
    assert client.post("/v1/chat/completions", json={}).json()["error"]["type"] == "authentication_error"
    assert client.get("/livez").status_code == client.get("/metrics").status_code == 200


def test_request_ids_come_back_and_are_made_up_when_unusable(client):
    assert client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/livez", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert made != "a b" and len(made) == 32


def test_bodies_that_do_not_say_their_length_are_bounded_too():
    with running(create_app(Settings(max_body_bytes=2000))) as url:
        chunks = (b"x" * 500 for _ in range(10))
        response = httpx2.post(
            f"{url}/v1/compress", content=chunks, headers={"content-type": "application/json"}, timeout=60
        )
        assert response.status_code == 413


def test_who_leaves_is_no_longer_worked_for():
    app = create_app(Settings(**PATIENT), log=MemoryLog())
    engine = app.state.service.engine
    with running(app) as url:
        until(lambda: engine.ready)
        held = Held.of(engine)
        documents = [f"Document {at}. " + "It says a lot. " * 400 for at in range(40)]
        body = json.dumps({"query": QUERY, "documents": documents}).encode()
        head = f"POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as caller:
            caller.sendall(f"{head}\r\n\r\n".encode() + body)
            assert held.begun.wait(300)
        until(lambda: engine.requests == 0 and engine.tokens == 0)
        held.gate.set()
    assert held.calls <= held.runtime.threads, "what waited behind the first sequences need not be read"
    assert not len(engine.runner.reader.cache)


def test_cors_is_off_unless_asked_for(client):
    preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
    allowed = client.options("/v1/compress", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in client.get("/livez", headers={"origin": "https://evil.example"}).headers
    with TestClient(create_app(Settings())) as plain:
        assert plain.options("/v1/compress", headers=preflight).status_code == 405


def test_all_bodies_together_are_bounded():
    with sidecar(max_bodies_bytes=5000) as client:
        response = client.post("/v1/compress", json=BODY | {"documents": ["x" * 3000]})
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert client.post("/v1/compress", json=BODY).status_code == 200
        assert "ctxprune_bodies_bytes 0.0" in client.get("/metrics").text


def test_a_body_that_does_not_come_is_not_waited_for():
    app = create_app(Settings(body_seconds=0.2), log=MemoryLog())
    with running(app) as url, socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as slow:
        slow.sendall(b"POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        answer = b""
        while part := slow.recv(4096):  # ends when the server closes the connection
            answer += part
    assert answer.startswith(b"HTTP/1.1 408") and b"Timeout" in answer


def test_callers_cannot_make_up_labels(client):
    client.request("PURGE", "/made-up", headers={"x-api-key": "first"})
    text = client.get("/metrics").text
    assert "PURGE" not in text and "made-up" not in text and 'method="other",route="other"' in text


def test_unknown_routes_and_methods_have_the_same_shape(client):
    key = {"x-api-key": "first"}
    for response in (client.get("/nope", headers=key), client.get("/v1/compress", headers=key)):
        assert response.json().keys() == {"error", "error_type"}
    assert client.get("/v1/compress", headers=key).headers["allow"] == "POST"


def test_metrics_count(client):
    key = {"x-api-key": "first"}
    client.post("/v1/compress", json=BODY | {"query": "Is this counted?"}, headers=key)
    client.post("/v1/compress", json=BODY | {"query": "Is this counted?"}, headers=key)
    text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['ctxprune_requests_total{method="POST",route="/v1/compress",status="200"}']) >= 2
    assert float(values['ctxprune_cache_lookups_total{outcome="hit"}']) >= 2
    assert float(values['ctxprune_tokens_total{stage="before"}']) > float(
        values['ctxprune_tokens_total{stage="after"}']
    )
    assert float(values["ctxprune_batch_tokens_count"]) >= 1 and float(values["ctxprune_queue_tokens"]) == 0


@pytest.mark.parametrize("log_text", [False, True])
def test_the_log_has_text_only_when_asked(log_text):
    with sidecar(log_text=log_text) as client:
        client.post("/v1/compress", json=BODY, headers={"x-request-id": "r1"})
        (values,) = [values for event, values in client.log.events if values.get("path") == "/v1/compress"]
    assert (values["request_id"], values["status"], values["documents"]) == ("r1", 200, 2)
    assert ("granite" in repr(values)) == log_text


def test_spans_tell_of_requests_without_their_text():
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    app = create_app(Settings(**PATIENT, log_text=True), log=MemoryLog(), tracing=opentelemetry_tracing(provider))
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        client.post("/v1/compress", json=BODY, headers={"traceparent": parent})
        client.post("/v1/compress", json={})
    good, bad = memory.get_finished_spans()
    assert good.name == "POST /v1/compress" and f"{good.context.trace_id:032x}" == parent.split("-")[1]
    assert good.attributes["http.response.status_code"] == 200 and good.attributes["ctxprune.documents"] == 2
    assert "granite" not in repr(dict(good.attributes))
    assert bad.attributes["http.response.status_code"] == 422


def test_log_lines_are_json(capsys):
    json_log().info("request", status=200)
    row = json.loads(capsys.readouterr().err)
    assert (row["event"], row["status"], row["level"]) == ("request", 200, "info")


def test_an_unexpected_error_says_nothing_of_itself():
    with sidecar() as client:
        client.service.engine.compress = lambda *_, **__: 1 / 0
        response = client.post("/v1/compress", json=BODY)
        assert (response.status_code, response.json()["error_type"]) == (500, "Internal")
        assert "division" not in response.text
        assert any(event == "unexpected error" for event, _ in client.log.events)


def test_readiness_says_why_not(tmp_path):
    with TestClient(create_app(Settings(model=str(tmp_path / "none")))) as broken:
        until(lambda: "failed" in broken.get("/readyz").json()["status"])
        assert broken.get("/livez").status_code == 503  # nothing will mend it but another start
        response = broken.post("/v1/compress", json=BODY)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert str(tmp_path) not in response.text + broken.get("/readyz").text
    with sidecar() as client:
        client.service.draining = True
        assert client.get("/readyz").json() == {"status": "draining"}
        assert client.post("/v1/compress", json=BODY).status_code == 200


def test_settings_come_from_arguments_and_environment(monkeypatch):
    monkeypatch.setenv("CTXPRUNE_API_KEYS", '["k"]')
    monkeypatch.setenv("CTXPRUNE_MAX_REQUESTS", "3")
    settings = Settings()
    assert (settings.api_keys[0].get_secret_value(), settings.max_requests) == ("k", 3)
    assert "'k'" not in repr(settings)
    for wrong in ({"max_requests": 0}, {"default_compressor": "x"}, {"api_keys": [""]}, {"upstream_url": "file:///x"}):
        with pytest.raises(ValidationError):
            Settings(**wrong)


SERVE = """
from ctxprune.integrations.server import Settings
from ctxprune.integrations.server.app import serve
serve(port={port}, settings=Settings(drain_seconds=600.0))
"""


@pytest.mark.slow
def test_sigterm_makes_it_unready_then_drains(unused_port):
    server = subprocess.Popen([sys.executable, "-c", SERVE.format(port=unused_port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{unused_port}"

    def status(path="/readyz"):
        try:
            return httpx2.get(url + path, timeout=60).status_code
        except httpx2.TransportError:
            return 0

    try:
        until(lambda: status() == 200)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(httpx2.post(f"{url}/v1/compress", json=BODY, timeout=120)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: status() == 503)
        assert httpx2.post(f"{url}/v1/compress", json=BODY, timeout=120).status_code == 200
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 4
        assert server.poll() is None
        os.kill(server.pid, signal.SIGTERM)  # the second ends the drain
        assert server.wait(120) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("key", ["secret\n", "two words", "schl\u00fcssel"])
@pytest.mark.parametrize("setting", ["upstream_api_key", "anthropic_api_key", "api_keys"])
def test_a_key_that_no_header_can_hold_stops_the_server(setting, key):
    value = [key] if setting == "api_keys" else key
    with pytest.raises(InputError, match=f"{setting} must be printable ASCII") as caught:
        settings_from_environment(**{setting: value})
    assert key.strip() not in str(caught.value)


def test_variables_of_others_are_left_alone(monkeypatch):
    from ctxprune.integrations.server.app import settings_from_environment

    monkeypatch.setenv("CTXPRUNE_API_KEYS", '["k"]')
    for name in ("API_KEY", "SERVICE_HOST", "PORT", "PORT_8080_TCP_ADDR", "LIGHT_SERVICE_PORT_HTTP"):
        monkeypatch.setenv(f"CTXPRUNE_{name}", "10.0.0.1")
    assert len(settings_from_environment().api_keys) == 1


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"CTXPRUNE_MODEL": "/no/such/folder"}, "the server cannot start: "),
        ([], {"CTXPRUNE_API_KEYS": "abc"}, "error: CTXPRUNE_API_KEYS must be JSON"),
        ([], {"CTXPRUNE_MAX_BODY_BYTES": "-1"}, "CTXPRUNE_MAX_BODY_BYTES: Input should be greater than 0"),
        ([], {"CTXPRUNE_UPSTREAM_URL": "localhost"}, "CTXPRUNE_UPSTREAM_URL: "),
        ([], {"CTXPRUNE_DEFAULT_COMPRESSOR": "x"}, "default_compressor 'x' must be one of"),
        (
            [],
            {"CTXPRUNE_API_KEY": "k"},
            "CTXPRUNE_API_KEY is no setting of the server; did you mean CTXPRUNE_API_KEYS?",
        ),
        ([], {"CTXPRUNE_FLAVOUR": "k"}, "CTXPRUNE_FLAVOUR is no setting of the server; unset it"),
        (["--port", "99999"], {}, "less than or equal to 65535"),
    ],
)
def test_serve_ends_with_a_line_when_it_cannot_start(arguments, variables, said):
    main = "import sys; from ctxprune.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | variables)
    assert done.returncode != 0 and said in done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr and "'abc'" not in done.stderr


def raw_exchange(url, request):
    """All that the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer


def test_two_ways_to_tell_a_bodys_end_are_refused_and_the_connection_closed():
    with running(create_app(Settings(), log=MemoryLog())) as url:
        head = b"POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        both = b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        smuggled = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
        answer = raw_exchange(url, head + both + b"0\r\n\r\n" + smuggled)
        assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1
        # uvicorn's other parser, which is used where it is installed, refuses such a request in its own words
        assert b"Content-Length and Transfer-Encoding" in answer or b"Invalid HTTP request" in answer


def test_an_idle_connection_is_the_clients_to_close(monkeypatch):
    """Both sides closing after the same time would drop the requests that were sent at that moment."""
    served = []
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "filters", [])
    monkeypatch.setattr(app_module.DrainingServer, "run", lambda server: served.append(server.config))
    app_module.serve(settings=Settings())
    assert served[0].timeout_keep_alive > httpx2.Limits().keepalive_expiry


def test_answers_are_sent_at_once_on_sockets_of_every_make():
    server = uvicorn.Server(uvicorn.Config(create_app(Settings(), log=MemoryLog()), log_level="critical"))
    server.capture_signals = no_signals
    with socket.create_server(("127.0.0.1", 0)) as listening:  # as `uvicorn --workers` makes it
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        with httpx2.Client(trust_env=False, timeout=60) as http:
            http.get(f"http://127.0.0.1:{listening.getsockname()[1]}/livez")
            (connection,) = server.server_state.connections
            taken = connection.transport.get_extra_info("socket")
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.should_exit = True
        thread.join(30)


PLAIN = json.dumps(BODY).encode()
BARE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(PLAIN), 200),
        ("X-GZIP", gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), 200),
        ("deflate", zlib.compress(PLAIN), 200),
        ("deflate", BARE.compress(PLAIN) + BARE.flush(), 200),
        ("identity", PLAIN, 200),
        ("gzip", PLAIN, 400),
        ("gzip", gzip.compress(PLAIN)[:-12], 400),
        ("deflate", gzip.compress(PLAIN), 400),
        ("gzip", gzip.compress(b" " * 50_000_000), 413),
        ("deflate", zlib.compress(PLAIN + b" " * 2000), 413),
        ("br", PLAIN, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(PLAIN)), 415),
    ],
)
def test_compressed_bodies(client, coding, body, status):
    headers = {"content-encoding": coding, "content-type": "application/json", "x-api-key": "first"}
    response = client.post("/v1/compress", content=body[:2000] if status != 413 else body, headers=headers)
    # a bomb as packed as this one is larger than the limit itself
    assert response.status_code == status
    if status == 415:
        assert "gzip, deflate" in response.json()["error"] and response.headers["accept-encoding"] == "gzip, deflate"


def test_a_bomb_is_never_unpacked_beyond_the_limit():
    bomb = gzip.compress(gzip.compress(b" " * 200_000_000))
    tracemalloc.start()
    with pytest.raises(ApiError, match="larger than 100000 bytes"):
        decoded(gzip.decompress(bomb), "gzip", limit=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
