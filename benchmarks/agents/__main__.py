"""An agent's forty turns through each wire: `python -m benchmarks.agents --out DIR`."""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.agents.transcript import Turn, transcript
from benchmarks.server.processes import sidecar
from ctxprune import __version__
from ctxprune.integrations.server.proxy.wires import anthropic_results, chat_results
from ctxprune.integrations.tool_calls import responses_results
from ctxprune.tokens import default_counter
from ctxprune.tools import ToolOutputs

_ANSWER = json.dumps({"id": "1", "choices": [], "content": [], "output": []}).encode()
#: Requests straight to the upstream that the proxy's are compared with.
_STRAIGHT = 20
#: The last request once more, when nothing in it is new.
_AGAIN = 20
_HEAD = (
    "| wire | tokens of results | left | saved a turn, median | same prefix, least | valid | answers kept "
    "| added, p50 / p95 | nothing new, p50 / p95 |"
)


@dataclass(slots=True)
class Wire:
    """What came of one wire. kept: results with their answer in them. valid: of those whose form can be checked."""

    name: str
    results: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    by_shape: dict[str, list[int]] = field(default_factory=dict)
    kept: int = 0
    lost: list[str] = field(default_factory=list)
    valid: int = 0
    checked: int = 0
    saved_per_turn: list[int] = field(default_factory=list)
    prefix: list[float] = field(default_factory=list)
    overhead_ms: list[float] = field(default_factory=list)
    again_ms: list[float] = field(default_factory=list)

    def take(self, turn: Turn, pruned: str) -> None:
        """Note what is left of a turn's result."""
        before, after = default_counter().count([turn.result, pruned])
        self.results += 1
        self.tokens_before += before
        self.tokens_after += after
        shape = self.by_shape.setdefault(turn.shape, [0, 0])
        shape[0] += before
        shape[1] += after
        self.saved_per_turn.append(before - after)
        if turn.answer in pruned:
            self.kept += 1
        else:
            self.lost.append(f"{turn.shape}: {turn.question}")
        if (check := _CHECKS.get(turn.shape)) is not None:
            self.checked += 1
            self.valid += _passes(check, pruned)


def _passes(check: Callable[[str], Any], text: str) -> bool:
    try:
        check(text)
    except (ValueError, SyntaxError):
        return False
    return True


def _same_width(text: str) -> None:
    if len({line.count(",") for line in text.splitlines()}) > 1:
        raise ValueError("rows of different width")


def _json_lines(text: str) -> None:
    for line in text.splitlines():
        json.loads(line)


_CHECKS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "json lines": _json_lines,
    "code": ast.parse,
    "csv": _same_width,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write DIR/agents.json and DIR/agents.md. Returns 1 when a result is no longer valid."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument("--turns", type=int, default=40, help="only the first so many (default: 40)")
    options = parser.parse_args(argv)
    turns = transcript()[: options.turns]
    wires = [_over_http(name, *parts, turns) for name, parts in _WIRES.items()]
    wires.append(_over_mcp(turns))
    options.out.mkdir(parents=True, exist_ok=True)
    rows = {"machine": _machine(), "wires": [asdict(wire) for wire in wires]}
    (options.out / "agents.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (options.out / "agents.md").write_text(report(wires), encoding="utf-8")
    sys.stderr.write(f"wrote {options.out / 'agents.md'}\n")
    return int(any(wire.valid < wire.checked for wire in wires))


def _chat(turns: Sequence[Turn]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You help the shop's staff."}]
    for at, turn in enumerate(turns):
        call = {
            "id": f"c{at}",
            "type": "function",
            "function": {"name": turn.tool, "arguments": json.dumps(turn.arguments)},
        }
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{at}", "content": turn.result},
            {"role": "assistant", "content": f"Done with {at}."},
        ]
    return {"model": "m", "messages": messages[:-1]}


def _anthropic(turns: Sequence[Turn]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for at, turn in enumerate(turns):
        call = {"type": "tool_use", "id": f"c{at}", "name": turn.tool, "input": turn.arguments}
        result = {"type": "tool_result", "tool_use_id": f"c{at}", "content": [{"type": "text", "text": turn.result}]}
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": f"Done with {at}."},
        ]
    return {"model": "m", "max_tokens": 100, "system": "You help the shop's staff.", "messages": messages[:-1]}


def _responses(turns: Sequence[Turn]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for at, turn in enumerate(turns):
        items += [
            {"role": "user", "content": turn.question},
            {"type": "function_call", "call_id": f"c{at}", "name": turn.tool, "arguments": json.dumps(turn.arguments)},
            {"type": "function_call_output", "call_id": f"c{at}", "output": turn.result},
            {"role": "assistant", "content": f"Done with {at}."},
        ]
    return {"model": "m", "instructions": "You help the shop's staff.", "input": items[:-1]}


_WIRES: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (_chat, chat_results),
    "/v1/messages": (_anthropic, anthropic_results),
    "/v1/responses": (_responses, responses_results),
}


def _over_http(path: str, make: Any, find: Any, turns: Sequence[Turn]) -> Wire:
    """One server of its own; the request of each turn holds the whole conversation before it."""
    wire, seen = Wire(path), list[bytes]()
    sys.stderr.write(f"{path} ...\n")
    settings = {"tool_message_tokens": 50, "deadline_seconds": 600}
    with _upstream(seen) as url, sidecar(upstream_url=f"{url}/v1", **settings) as running, httpx2.Client() as client:
        bodies = [json.dumps(make(turns[: at + 1])).encode() for at in range(len(turns))]
        straight = statistics.median(
            _timed(client, f"{url}{path}", bodies[at % len(bodies)]) for at in range(_STRAIGHT)
        )
        seen.clear()
        for body in bodies:
            wire.overhead_ms.append(1000 * (_timed(client, f"{running.url}{path}", body) - straight))
        again = [_timed(client, f"{running.url}{path}", bodies[-1]) for _ in range(_AGAIN)]
        wire.again_ms = [1000 * (seconds - straight) for seconds in again]
    for earlier, later in pairwise(seen[: len(bodies)]):
        # the list closes where the earlier request ends, so its last brackets cannot be the same
        wire.prefix.append(_shared(earlier, later) / (len(earlier) - len(_closing(earlier))))
    pruned = find(json.loads(seen[len(bodies) - 1]))
    for turn, result in zip(turns, pruned, strict=True):
        wire.take(turn, result.text)
    return wire


def _closing(body: bytes) -> bytes:
    return body[len(body.rstrip(b"]}")) :]


def _shared(earlier: bytes, later: bytes) -> int:
    body = earlier[: len(earlier) - len(_closing(earlier))]
    if later.startswith(body):
        return len(body)
    return next(at for at, (one, other) in enumerate(zip(body, later, strict=False)) if one != other)


def _timed(client: httpx2.Client, url: str, body: bytes) -> float:
    began = time.perf_counter()
    client.post(url, content=body, headers={"content-type": "application/json"}, timeout=900).raise_for_status()
    return time.perf_counter() - began


@contextmanager
def _upstream(seen: list[bytes]) -> Iterator[str]:
    """Answers at once, and keeps the bodies that it is sent."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(_ANSWER)))
            self.end_headers()
            self.wfile.write(_ANSWER)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()


def _over_mcp(turns: Sequence[Turn]) -> Wire:
    """A server with one tool, and ours in front of it, in this process."""
    from mcp import Client
    from mcp.server.mcpserver import MCPServer

    from ctxprune.integrations.mcp.server import QUESTION, Pruning, Wrapping, wrapped

    wire, server = Wire("MCP --wrap"), MCPServer("transcript")
    sys.stderr.write("MCP ...\n")

    @server.tool(structured_output=False)
    def result(turn: int) -> str:
        """What the tool of a turn gave."""
        return turns[turn].result

    async def work() -> None:
        pruning = Pruning(ToolOutputs("provence"))
        async with (
            Client(server) as plain,
            wrapped(server, pruning, Wrapping(min_tokens=50)) as proxy,
            Client(proxy) as client,
        ):
            for at, turn in enumerate(turns):
                began = time.perf_counter()
                await plain.call_tool("result", {"turn": at})
                middle = time.perf_counter()
                answer = await client.call_tool("result", {"turn": at, QUESTION: turn.question})
                wire.overhead_ms.append(1000 * (time.perf_counter() - middle - (middle - began)))
                wire.take(turn, answer.content[0].text)

    asyncio.run(work())
    return wire


def report(wires: Sequence[Wire]) -> str:
    """The figures as Markdown."""
    lines = [_HEAD, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for wire in wires:
        added, again = (_spread(times) for times in (wire.overhead_ms, wire.again_ms))
        left = wire.tokens_after / wire.tokens_before
        prefix = f"{min(wire.prefix):.2%}" if wire.prefix else "-"
        lines.append(
            f"| `{wire.name}` | {wire.tokens_before:,} | {wire.tokens_after:,} ({left:.0%}) "
            f"| {statistics.median(wire.saved_per_turn):,.0f} | {prefix} | {wire.valid} of {wire.checked} "
            f"| {wire.kept} of {wire.results} | {added} | {again} |"
        )
    shapes = ["", "| shape | tokens before | after | left |", "| --- | ---: | ---: | ---: |"]
    for shape, (before, after) in wires[0].by_shape.items():
        shapes.append(f"| {shape} | {before:,} | {after:,} | {after / before:.0%} |")
    lost = [f"- `{wire.name}` lost {each}" for wire in wires for each in wire.lost]
    return "\n".join([*lines, *shapes, "", *lost, "", _machine(), ""])


def _spread(milliseconds: Sequence[float]) -> str:
    if not milliseconds:
        return "-"
    ordered = sorted(milliseconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    return f"{p50:,.0f} / {p95:,.0f} ms"


def _machine() -> str:
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return f"ctxprune {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores{load}"


if __name__ == "__main__":
    sys.exit(main())
