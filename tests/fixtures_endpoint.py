"""A chat endpoint on this machine that speaks as OpenAI's do, and says what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Endpoint:
    """A chat endpoint on this machine. reply: request number, body -> (status, headers, body)."""

    reply: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], str]]
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    base_url: str = ""


def echo(body: dict[str, Any]) -> str:
    return json.dumps({"choices": [{"message": {"content": f" {body['messages'][-1]['content'].upper()} "}}]})


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], str]]) -> Endpoint:
        endpoint = Endpoint(reply)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with endpoint.lock:
                    endpoint.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                    number = len(endpoint.seen)
                    endpoint.in_flight += 1
                    endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                status, headers, text = endpoint.reply(number, body)
                with endpoint.lock:
                    endpoint.in_flight -= 1
                content = text.encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that timed out has hung up

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        endpoint.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        return endpoint

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
