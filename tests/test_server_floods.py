"""Too much of one thing, from callers and from the upstream: refused or passed on, and the next request is served."""

import json
import socket
import threading
from contextlib import contextmanager

import httpx2
import pytest
from fixtures_server import PATIENT, MemoryLog, Upstream, running, sidecar

from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.proxy.marks import find_blocks

STREAMS = {
    "half events": [b"data: {\"choices\":[{\"del", b"ta\":{}}\n", b"event: ", b"\n\ndata: [DO"],
    "wrong UTF-8": [b"data: \xff\xfe\xc3\n\n", b"data: \xed\xa0\x80\xf8\n\n", b"\xe2\x82"],
    "a line without end": [b"data: "] + [b"q" * 100_000] * 100,
    "comments only": [b": still here\n"] * 3000,
    "deep JSON": [b"data: " + b"[" * 200_000 + b"]" * 200_000 + b"\n\n"],
    "no breaks, then odd ones": [b"\r" * 999, b"\r\n\n\r", b"\x00\x1e\x85\n\n", b"retry: 99999999999999999999\n\n"],
    "nothing": [],
}  # fmt: skip
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
ASKS = {"model": "m", "messages": [], "input": [], "prompt": "Why?", "stream": True}


class Garbage(Upstream):
    """Sends `pieces` as a stream of events."""

    pieces = ()

    async def answer(self, scope, receive, send, body):
        await self._start(send, 200, [(b"content-type", b"text/event-stream")])
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def through():
    """An upstream that sends garbage, and the address of a server in front of it; nothing unexpected may be logged."""
    upstream, log = Garbage(), MemoryLog()
    with running(upstream) as url, running(create_app(Settings(**PATIENT, upstream_url=f"{url}/v1"), log=log)) as own:
        yield upstream, own
    assert not [event for event, _ in log.events if event == "unexpected error"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)
def test_garbage_in_a_stream_is_passed_on_to_the_byte(through, path, pieces):
    upstream, own = through
    upstream.pieces = pieces
    answer = httpx2.post(own + path, json=ASKS, timeout=300)
    assert answer.status_code == 200 and answer.content == b"".join(pieces)


@contextmanager
def speaking(head, *, again=b""):
    """The address of an upstream that sends these bytes, then `again` for as long as it is listened to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=speak, args=[connection], daemon=True).start()

        def speak(connection):
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(head)
                    while again:
                        connection.sendall(again)
                        stopped.wait(0.02)
                        if stopped.is_set():
                            return
                except OSError:
                    return

        stopped, thread = threading.Event(), threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        stopped.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


OK = b"HTTP/1.1 200 OK\r\n"
MANY = b"".join(b"x-%d: y\r\n" % at for at in range(50_000))


@pytest.mark.parametrize(
    "head",
    [
        OK + MANY,
        OK + MANY + b"\r\n",
        OK + b"x-long: " + b"z" * 2_000_000 + b"\r\n\r\n",
        OK + b"set-cookie: a\r\n" * 40_000,
    ],
    ids=["no end", "many", "long", "cookies"],
)
def test_floods_of_the_upstreams_headers_are_refused(head):
    with speaking(head) as url, sidecar(upstream_url=url) as client:
        answer = client.post("/v1/messages", json=ASKS)
        assert answer.status_code == 502 and len(answer.content) < 1000
        assert client.get("/readyz").status_code == 200


def test_many_headers_within_the_limit_are_passed_on():
    head = OK + b"".join(b"x-h%d: v%d\r\n" % (at, at) for at in range(3000)) + b"content-length: 2\r\n\r\nok"
    with speaking(head) as url, sidecar(upstream_url=url) as client:
        answer = client.get("/v1/models")
        assert answer.content == b"ok" and answer.headers["x-h2999"] == "v2999"


@pytest.mark.parametrize("again", [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", b"x"], ids=["interim", "trickled"])
def test_a_head_that_never_ends_is_not_waited_for(again):
    head = b"" if again.startswith(b"HTTP") else OK + b"x-slow: "
    slow = {"upstream_read_seconds": 1.0, "upstream_connect_seconds": 1.0}
    with speaking(head, again=again) as url, sidecar(upstream_url=url, **slow) as client:
        answer = client.post("/v1/chat/completions", json=ASKS)
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "upstream_timeout"


@pytest.fixture(scope="module")
def client():
    upstream = Upstream()
    large = {"max_body_bytes": 8_000_000, "max_proxy_body_bytes": 8_000_000}
    with running(upstream) as url, sidecar(upstream_url=f"{url}/v1", tool_message_tokens=50, **large) as client:
        client.upstream = upstream
        yield client


PATTERNS = {
    "10,000": [f"word{at}" for at in range(10_000)],
    "10,000 that are none": [[at] for at in range(10_000)],
    "a million letters": ["k" * 1_000_000],
    "long, many": ["(?:ab|c)" * 5_000] * 32,
}


@pytest.mark.parametrize("protect", PATTERNS.values(), ids=PATTERNS)
def test_floods_of_patterns_are_refused_in_a_line(client, protect):
    own = {"query": "Why?", "documents": ["It rains. It pours."], "protect": protect}
    answers = [client.post(path, json=own) for path in ("/v1/compress", "/v1/estimate")]
    answers += [client.post("/v1/compress/batch", json={"requests": [own]})]
    answers += [client.post(path, json=ASKS | {"ctxprune": {"protect": protect}}) for path in ROUTES]
    assert [answer.status_code for answer in answers] == [422] * 7
    assert all("at most" in answer.text and len(answer.content) < 500 for answer in answers)


TEXTS = {
    "words": "\n\n".join(f"hop{at % 911}" for at in range(100_000)),
    "endless line": ("barley malt yeast water " * 210_000)[:5_000_000],
    "one word": "w" * 5_000_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_floods_of_text_are_refused_or_passed_on_whole(client, text):
    answer = client.post(
        "/v1/compress", json={"query": "Which?", "documents": [text], "compressor": "lead", "budget": 9}
    )
    assert answer.status_code == 413 and "the limit is" in answer.json()["error"] and len(answer.content) < 500
    asked, tool = {"role": "user", "content": "Which?"}, {"role": "tool", "tool_call_id": "1", "content": text}
    block = [{"type": "text", "text": f"<context>{text}</context> Which?"}]
    sent = [("/v1/chat/completions", [asked, tool]), ("/v1/messages", [{"role": "user", "content": block}])]
    for path, messages in sent:
        answer = client.post(path, json={"model": "m", "messages": messages})
        assert answer.headers["x-ctxprune-reason"] == "too_large"
        assert client.upstream.seen[-1][2] == answer.request.content


def test_floods_of_documents_are_refused_or_passed_on_whole(client):
    for path in ("/v1/compress", "/v1/rerank", "/v1/estimate"):
        answer = client.post(path, json={"query": "Which?", "documents": ["a"] * 100_000})
        assert answer.status_code == 413 and len(answer.content) < 500
    inner = "<document>It rains.</document>" * 50_000
    body = {"model": "m", "messages": [{"role": "user", "content": f"<context>{inner}</context> Which?"}]}
    answer = client.post("/v1/messages", json=body)
    assert answer.headers["x-ctxprune-reason"] == "too_many_documents"
    assert json.loads(client.upstream.seen[-1][2]) == body


def test_empty_lines_count_together():
    text = "<context>It rains.\n\n\n    It pours.\n\n\n\n```\n\n\n<context>\n\n```\n\nWe go.</context>"
    (block,) = find_blocks(text)
    assert text[slice(block.start, block.end)] == text
    flood = "\n" * 3_000_000
    assert [each.end for each in find_blocks(f"<context>It rains.{flood}We go.</context>")] == [3_000_034]
