"""Requests broken at the level of bytes, on every route: each is answered or closed, never with a fault of ours."""

import json
import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from fixtures_server import BRIDGE, PATIENT, QUERY, MemoryLog, Upstream, no_signals, running, sidecar, until
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.callers import bounded_protocol

TEXTS = ["The mill stands by the river. It was built in 1874.", "Bread — «frais» 🥖 — is sold on Fridays."]
OPTIONS = {"compressor": "lead", "rate": 0.5, "protect": ["18\\d\\d", "«.*?»"], "language": "en", "min_keep": 1}
DOCUMENT = {"text": TEXTS[0], "id": "a", "title": "Mill", "metadata": {"page": 3, "tags": ["x", None]}}
CHAT = [
    {"role": "system", "content": f"<context>{BRIDGE}</context>"},
    {
        "role": "user",
        "content": [{"type": "text", "text": QUERY}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    },
]
#: A sound request of each route that takes a body.
SOUND = {
    "/v1/compress": {"query": QUERY, "documents": [DOCUMENT, TEXTS[1]], **OPTIONS},
    "/v1/compress/batch": {"requests": [{"query": QUERY, "documents": TEXTS, **OPTIONS}] * 2},
    "/v1/estimate": {"query": QUERY, "documents": TEXTS, **OPTIONS},
    "/v1/rerank": {"query": QUERY, "documents": TEXTS, "top_n": 1, "return_documents": True, "model": "x"},
    "/v2/rerank": {"query": QUERY, "documents": [{"text": text} for text in TEXTS], "max_tokens_per_doc": 9},
    "/rerank": {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True},
    "/v1/chat/completions": {"model": "m", "messages": CHAT, "stream": True, "ctxprune": {"threshold": 0.1}},
    "/v1/completions": {"model": "m", "prompt": f"<context>{BRIDGE}</context> {QUERY}", "n": 1e3},
}
#: What is put into a body: marks of JSON, halves of letters, numbers at the edge, our own marks.
PIECES = [
    b'"', b"\\", b"\\u", b"\\ud800", b"\\udfff\\ud83d", b"\x00", b"\xff", b"\xc3", b"\xf0\x9f", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-", b"1e999", b"-0.0", b"9" * 400,
    b"1" * 5000, b"NaN", b"\n\n", b"<context>", b"</context>", b'"ctxprune":false,', b'"query":', b'"documents":[],',
    b"[[[[" * 20, b"\xe2\x80\xa8",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "cut", "double", "flip"]), st.floats(0, 1), st.sampled_from(PIECES)
    ),
    min_size=1,
    max_size=4,
)


def edited(body, edits):
    for kind, where, piece in edits:
        at = int(where * len(body))
        before, after = body[:at], body[at:]
        if kind == "insert":
            body = before + piece + after
        elif kind == "replace":
            body = before + piece + after[len(piece) :]
        elif kind == "cut":
            body = before + after[1 + len(piece) * 7 :]
        elif kind == "double":
            body = before + after[: 10 * len(piece)] + after
        elif after:
            body = before + bytes([after[0] ^ (1 << len(piece) % 8)]) + after[1:]
    return body


@pytest.fixture(scope="module")
def client():
    with running(Upstream()) as url, sidecar(upstream_url=f"{url}/v1", max_body_bytes=100_000) as client:
        yield client


def check(answer, client):
    """Ours are JSON in our shape; nothing is our fault."""
    assert answer.status_code < 500, (answer.status_code, answer.text)
    assert not [event for event in client.log.events if event[0] == "unexpected error"]
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error if isinstance(error, str) else error["message"]
        assert len(answer.content) < 5000


@pytest.mark.parametrize("path", SOUND)
def test_the_sound_requests_are_sound(client, path):
    assert client.post(path, json=SOUND[path]).status_code == 200


@pytest.mark.parametrize("path", SOUND)
def test_a_byte_order_mark_stands_before_the_body(client, path):
    body = b"\xef\xbb\xbf" + json.dumps(SOUND[path]).encode()
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    check(answer, client)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", SOUND)
@given(edits=EDITS, ascii=st.booleans())
@settings(max_examples=40, deadline=None)
def test_broken_bodies_are_answered(client, path, edits, ascii):
    body = edited(json.dumps(SOUND[path], ensure_ascii=ascii).encode(), edits)
    check(client.post(path, content=body, headers={"content-type": "application/json"}), client)


@pytest.mark.parametrize("path", SOUND)
@pytest.mark.parametrize(
    "wrong", [None, [], {}, "", 0, True, -1, 1e300, 2**70, ["x"], {"": {}}, [[[]]], "\ud800", [None] * 40]
)
def test_values_of_another_kind_are_answered(client, path, wrong):
    sound = SOUND[path]
    bodies = [wrong, *(sound | {name: wrong} for name in [*sound, "ctxprune", "Query", ""])]
    for entry in (DOCUMENT, *CHAT):
        for name in entry:
            bodies.append(sound | {("messages" if "messages" in sound else "documents"): [entry | {name: wrong}]})
    for body in bodies:
        content = json.dumps(body).encode()
        check(client.post(path, content=content, headers={"content-type": "application/json"}), client)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"]),
    path=st.sampled_from(
        [*SOUND, "/v1/models", "/info", "/v1/compressors", "/livez", "/playground", "/openapi.json", ""]
    )
    | st.text(st.characters(max_codepoint=0x2FF), max_size=12).map(lambda text: "/v1/models/" + text),
    tail=st.sampled_from(["", "/", "//", "/..", "/%2e%2e/", "?", "?a=1&a=2", "%00", "/%ff", "/x" * 50, ";a", "\\..\\"]),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "content-type",
                "content-encoding",
                "x-ctxprune-timeout",
                "x-request-id",
                "accept",
                "authorization",
                "cookie",
                "host",
                "origin",
                "range",
                "expect",
                "te",
                "upgrade",
                "x-forwarded-for",
                "x-ctxprune-status",
                "connection",
            ]
        ),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
        | st.sampled_from(
            ["gzip", "deflate, gzip", "1e999", "-1", "nan", "0x10", "Bearer " + "k" * 5000, "bytes=0-", "websocket"]
        ),
        max_size=4,
    ),
)
@settings(max_examples=150, deadline=None)
def test_odd_paths_methods_and_headers_are_answered(client, method, path, tail, headers):
    try:
        request = client.build_request(method, path + tail, headers=headers, content=b"{}")
    except Exception as error:  # the client itself sends no such thing
        assert type(error).__name__ in ("InvalidURL", "ValueError"), error
        return
    answer = client.send(request)
    assert answer.status_code < 500, (answer.status_code, answer.text)


@contextmanager
def served(log, **options):
    """The whole application on a socket, as `ctxprune serve` has it; the port."""
    app = create_app(Settings(**PATIENT | options), log=log)
    config = uvicorn.Config(
        app, port=0, log_level="critical", ws="none", http=bounded_protocol(most=200, header_seconds=2.0)
    )
    server = uvicorn.Server(config)
    server.capture_signals = no_signals
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started and app.state.service.ready)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def port():
    log = MemoryLog()
    with served(log, body_seconds=3.0, max_body_bytes=100_000) as port:
        yield port
    assert not [event for event in log.events if event[0] == "unexpected error"]


def exchanged(port, sent, *, leaves=False):
    """All that comes back until the server closes; TimeoutError when it does not. leaves: close our side when all is
    sent, which is to hang up."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        came = b""
        try:
            connection.sendall(sent)
            if leaves:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                came += piece
        except ConnectionError:
            pass  # closed before all was read
        return came


BODY = json.dumps({"query": QUERY, "documents": TEXTS, "compressor": "lead", "rate": 0.5}).encode()
HEAD = b"POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WHOLE = HEAD + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(BODY) + BODY


def chunked(*chunks):
    return HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + b"".join(chunks)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (WHOLE, {200}),
        (WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"), {200}),
        (WHOLE.replace(b"HTTP/1.1", b"HTTP/0.9"), {200, 400, 505}),
        (WHOLE.replace(b"HTTP/1.1", b"HTTP/2.0"), {200, 400, 505}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 505}),
        (WHOLE.replace(b"host: x\r\n", b""), {400}),
        (WHOLE.replace(b"host: x", b"host: x\r\nhost: y"), {400}),
        (WHOLE.replace(b"host: x", b"host: \xc3\xa9\xe6\xb0\xb4"), {200, 400}),
        (WHOLE.replace(b"host: x", b"host: a@b:99999/../\t"), {200, 400}),
        (WHOLE.replace(b"content-length: %d" % len(BODY), b"content-length: -1"), {400}),
        (WHOLE.replace(b"content-length: %d" % len(BODY), b"content-length: 5, 6"), {400}),
        (WHOLE.replace(b"content-length: %d" % len(BODY), b"content-length: " + b"9" * 30), {400, 413}),
        (WHOLE.replace(b"content-length", b"content-length: 3\r\ncontent-length"), {400}),
        (WHOLE.replace(b"content-length", b"transfer-encoding: chunked\r\ncontent-length"), {400}),
        (WHOLE.replace(b"content-length", b"transfer-encoding: gzip, chunked\r\nx"), {400, 501}),
        (WHOLE.replace(b"application/json", b"application/json\r\ncontent-type: text/plain"), {200, 415}),
        (WHOLE.replace(b"host: x", b"host: x\r\nx-ctxprune-timeout: 5\r\nx-ctxprune-timeout: nan"), {200, 422}),
        (WHOLE.replace(b"host: x", b"host: x\r\nupgrade: websocket\r\nsec-websocket-key: eA=="), {200, 400, 426}),
        (WHOLE.replace(b"host: x", b"host: x\r\nupgrade: h2c\r\nhttp2-settings: AAAA"), {200, 400}),
        (WHOLE.replace(b"host: x", b"host: x\r\nx-folded: a\r\n b"), {200, 400}),
        (WHOLE.replace(b"host: x", b"host: x\r\nx bad: 1"), {400}),
        (WHOLE.replace(b"host: x", b"host: x\r\nx: \x00"), {400}),
        (
            WHOLE.replace(b"host: x", b"host: x\r\n" + b"".join(b"x-%d: y\r\n" % at for at in range(20_000)) + b"z: 1"),
            {400, 431},
        ),
        (WHOLE.replace(b"host: x", b"host: x\r\nx-long: " + b"y" * 200_000), {400, 431}),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404, 414}),
        (b"GET http://elsewhere/livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", {200, 400, 404}),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", {404}),
        (b"GET /playground/..%2f..%2fapp.py HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", {404}),
        (b"GET /playground/%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", {404}),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404, 405}),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", {400, 404, 405}),
        (chunked(*(chunk(bytes([byte])) for byte in BODY), b"0\r\n\r\n"), {200}),
        (chunked(chunk(BODY), b"0\r\nx-trailer: 1\r\n\r\n"), {200}),
        (chunked(chunk(BODY).replace(b"\r\n", b";name=" + b"v" * 50 + b"\r\n", 1), b"0\r\n\r\n"), {200, 400}),
        (chunked(b"zz\r\n"), {400}),
        (chunked(b"f" * 30 + b"\r\n"), {400, 413}),
        (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), {400}),
        (chunked(*[chunk(b" " * 1000)] * 200, b"0\r\n\r\n"), {413}),
        (chunked(chunk(BODY), b"0\r\n" + b"".join(b"t-%d: y\r\n" % at for at in range(20_000)) + b"\r\n"), {200, 400}),
    ],
)
def test_broken_http_is_answered_or_closed(port, sent, statuses):
    came = exchanged(port, sent)
    assert came == b"" or int(came.split(b" ", 2)[1]) in statuses, came[:300]
    assert exchanged(port, WHOLE).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_one_by_one_and_a_broken_one_ends_them(port):
    kept = WHOLE.replace(b"connection: close\r\n", b"")
    assert exchanged(port, kept * 5 + WHOLE).count(b"HTTP/1.1 200 OK") == 6
    came = exchanged(port, kept * 2 + b"\x00\xff nonsense\r\n\r\n" + kept)
    assert came.count(b"HTTP/1.1 200 OK") <= 2 and b"HTTP/1.1 500" not in came


@given(edits=EDITS)
@settings(max_examples=60, deadline=None)
def test_requests_broken_anywhere_are_answered_or_closed(port, edits):
    came = exchanged(port, edited(WHOLE, edits), leaves=True)
    assert b"HTTP/1.1 500" not in came
    assert came == b"" or came.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
