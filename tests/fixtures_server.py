"""A sidecar in this process, and a real HTTP upstream on a loopback port that records what it is sent."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import uvicorn
from starlette.testclient import TestClient

from ctxprune.integrations.server import Settings, create_app

QUERY = "When was the Harrow Bridge opened?"
BRIDGE = "The bridge is of granite. It was opened in 1911. Parking is free on Sundays."
FERRY = "The ferry runs every hour. Bicycles travel free. The crew is friendly."
DOCUMENTS = [{"id": "b7", "title": "Harrow Bridge", "text": BRIDGE}, FERRY]
#: A busy machine is no bug: answers must not depend on how long the model took.
PATIENT = {"deadline_seconds": 600, "body_seconds": 600}


class MemoryLog:
    """Keeps events; see ctxprune.integrations.server.observe.Log."""

    def __init__(self):
        self.events = []

    def _note(self, event, **values):
        self.events.append((event, values))

    info = warning = exception = _note


class Held:
    """The real encoder behind a gate. begun: set when it is called; calls: how often it was."""

    def __init__(self, runtime):
        self.runtime, self.device, self.dtype, self.calls = runtime, runtime.device, runtime.dtype, 0
        self.begun, self.gate = threading.Event(), threading.Event()

    @classmethod
    def of(cls, engine):
        """Put in place of the encoder of a ready engine."""
        shared = engine.runner.reader.runtime
        shared.runtime = held = cls(shared.runtime)
        return held

    def forward(self, sequences):
        self.calls += 1
        self.begun.set()
        assert self.gate.wait(300)
        return self.runtime.forward(sequences)


@contextmanager
def sidecar(**settings):
    """A ready client of an application; `client.service` and `client.log` are its insides."""
    log = MemoryLog()
    app = create_app(Settings(**PATIENT | settings), log=log)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.service, client.log = app.state.service, log
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


def until(condition, seconds=300.0):
    """Wait for something that another thread brings about; the limit is there to end a test that hangs."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


@contextmanager
def running(app):
    """The base URL of an ASGI application on a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="auto"))
    server.capture_signals = no_signals
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def listening_at(upstream):
    """The upstream, served, with the base URL that a sidecar is given as its `url`."""
    with running(upstream) as url:
        upstream.url = f"{url}/v1"
        yield upstream


@contextmanager
def no_signals():
    """Handlers can be set in the main thread alone."""
    yield


class Upstream:
    """Answers chats like a language model's API. seen: (path, headers, body) of every request."""

    events = tuple(
        f'data: {{"choices":[{{"delta":{{"content":"{word}"}},"index":0}}]}}\n\n' for word in ("In", " 1911")
    )

    def __init__(self):
        self.closed = threading.Event()
        self.reset()

    def reset(self):
        self.seen = []
        self.closed.clear()
        self.mode = "answer"

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["path"], headers, body))
        await getattr(self, self.mode)(scope, receive, send, body)

    async def answer(self, scope, receive, send, body):
        if body and json.loads(body).get("stream"):
            await self._start(send, 200, [(b"content-type", b"text/event-stream"), (b"x-request-id", b"up-1")])
            for event in (*self.events, "data: [DONE]\n\n"):
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["path"].startswith("/v1/models"):
            await self._json(send, {"object": "list", "data": [{"id": "m", "object": "model"}]})
            return
        message = {"role": "assistant", "content": "In 1911."}
        await self._json(
            send,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            },
        )

    async def trickle(self, scope, receive, send, body):
        await self._start(send, 200, [(b"content-type", b"text/event-stream")])
        leaving = asyncio.ensure_future(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
            await asyncio.sleep(0.01)
        self.closed.set()

    async def refuse(self, scope, receive, send, body):
        await self._json(send, {"error": {"message": "quota", "type": "x", "code": "y"}}, status=429)

    async def boast(self, scope, receive, send, body):
        headers = [(b"access-control-allow-origin", b"*"), (b"date", b"today"), (b"x-kept", b"1")]
        headers += [(b"x-ctxprune-status", b"compressed"), (b"X-CtxPrune-Made-Up", b"1")]
        await self._start(send, 200, headers)
        await send({"type": "http.response.body", "body": b"{}"})

    async def break_off(self, scope, receive, send, body):
        await self._start(send, 200, [(b"content-length", b"1000")])
        await send({"type": "http.response.body", "body": b"data: ", "more_body": True})

    async def _json(self, send, value, status=200):
        await self._start(send, status, [(b"content-type", b"application/json")])
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    @staticmethod
    async def _start(send, status, headers):
        await send({"type": "http.response.start", "status": status, "headers": headers})
