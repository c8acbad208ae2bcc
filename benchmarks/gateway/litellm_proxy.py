"""A real LiteLLM proxy with each of its three guardrails before the sidecar, and a stub of a model behind it.

    python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]>=1.110'
    python -m benchmarks.gateway.litellm_proxy --litellm /tmp/litellm/bin/litellm

Prints one line a check, and ends with 1 when any of them failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx2

from benchmarks.server.processes import free_port, ready, served

KEY = "sk-" + secrets.token_hex(24)
OURS = secrets.token_hex(16)
FACT = "The observatory on Mount Sorrel was opened to visitors in 1934 by the harbour master."
NOISE = " ".join(
    f"Cabin {number} beside the path has a stove, two beds and a window, and is let from May to October."
    for number in range(40)
)
RESULT = f"{NOISE} {FACT} {NOISE}"
QUESTION = "When was the observatory on Mount Sorrel opened to visitors?"
CALL = {
    "id": "call_obs",
    "type": "function",
    "function": {"name": "search", "arguments": json.dumps({"q": "observatory Mount Sorrel opened visitors"})},
}
AGENT: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer from what the tools say."},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_obs", "content": RESULT},
]
NEXT = [*AGENT, {"role": "assistant", "content": "In 1934."}, {"role": "user", "content": "And the cabins?"}]


class Model(BaseHTTPRequestHandler):
    """Answers chats, and asks for an original once where it is offered a tool for it and `asks` is set."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, Any]]] = []
    asks: ClassVar[bool] = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(body)
        message: dict[str, Any] = {"role": "assistant", "content": "In 1934."}
        tools = [tool["function"]["name"] for tool in body.get("tools", ()) if "retrieve" in tool["function"]["name"]]
        found = re.search(r"hash=([0-9a-f]{24})", json.dumps(body["messages"]))
        has_asked = any("call_back" in json.dumps(message) for message in body["messages"])
        if self.asks and tools and found and not has_asked:
            call = {"name": tools[0], "arguments": json.dumps({"hash": found[1]})}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [CALL | {"id": "call_back", "function": call}],
            }
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        row = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        answer = json.dumps(row).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the checks say what was seen."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", required=True, help="the command of a LiteLLM with its proxy")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds until both servers must be up")
    arguments = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory() as folder,
        _model() as model,
        served(Path(folder) / "sidecar.log", [OURS], patience=arguments.patience) as (process, port),
        _litellm(arguments, Path(folder), model=model, sidecar=f"http://127.0.0.1:{port}") as url,
    ):
        failed = [name for name, passed in _checks(url, f"http://127.0.0.1:{port}", process) if not _said(name, passed)]
    print(f"{len(failed)} checks failed" if failed else "all checks passed")
    return int(bool(failed))


def _checks(url: str, sidecar: str, process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bool]]:
    (first,) = _sent(url, "generic", AGENT)
    yield "generic: the tool result is shorter, the fact is in it", _is_pruned(first[3]["content"])
    (bypassed,) = _sent(url, "generic", AGENT, {"x-ctxprune-bypass": "true"})
    yield "generic: a bypass header leaves all as it came", bypassed[3]["content"] == RESULT
    yield "generic: all other rows as LiteLLM sends them without us", _rest(first) == _rest(bypassed)
    (later,) = _sent(url, "generic", NEXT)
    yield "generic: the same bytes at the next turn", later[:4] == first
    (first, *_) = _sent(url, "compresr", AGENT)
    yield "compresr: the tool result is shorter, the fact is in it", _is_pruned(first[3]["content"])
    Model.asks = True
    back = _sent(url, "compresr", AGENT)
    yield "compresr: the model gets the original back", len(back) == 2 and back[1][-1]["content"] == RESULT
    Model.asks = False
    (first,) = _sent(url, "headroom", NEXT)
    yield "headroom: the older tool result is shorter, the fact is in it", _is_pruned(first[3]["content"])
    (bypassed,) = _sent(url, "headroom", NEXT, {"x-headroom-bypass": "true"})
    yield "headroom: all other rows as LiteLLM sends them without us", _rest(first) == _rest(bypassed)
    Model.asks = True
    back = _sent(url, "headroom", NEXT)
    yield "headroom: the model gets the original back", len(back) == 2 and back[1][-1]["content"] == RESULT
    Model.asks = False
    totals = httpx2.get(f"{sidecar}/v1/stats", headers={"x-api-key": OURS}).json()["totals"]
    yield (
        "the books: conversations, tokens saved, answers seen",
        all(totals[name] > 0 for name in ("requests", "tokens_saved", "prefix_tokens", "output_tokens")),
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    (open_,) = _sent(url, "generic", AGENT)
    yield "generic: LiteLLM's fail_open when the sidecar is gone", open_[3]["content"] == RESULT
    yield "headroom: LiteLLM's fail_closed when the sidecar is gone", _sent(url, "headroom", NEXT) == []


def _said(name: str, passed: bool) -> bool:
    print(f"{'ok  ' if passed else 'FAIL'} {name}", flush=True)
    if not passed:
        print(json.dumps(Model.seen)[-3000:], flush=True)
    return passed


def _is_pruned(text: str) -> bool:
    return FACT in text and len(text) < len(RESULT) / 4


def _rest(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [{**message, "content": ""} if message["role"] == "tool" else dict(message) for message in messages]


def _sent(url: str, guardrail: str, messages: Sequence[Any], headers: Mapping[str, str] | None = None) -> list[Any]:
    """The messages of each request that reached the model; none when LiteLLM refused."""
    Model.seen.clear()
    body = {"model": "m", "messages": list(messages), "guardrails": [guardrail]}
    sent = {"authorization": f"Bearer {KEY}"} | dict(headers or {})
    httpx2.post(f"{url}/v1/chat/completions", json=body, headers=sent, timeout=120)
    return [seen["messages"] for seen in Model.seen]


@contextmanager
def _model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@contextmanager
def _litellm(arguments: argparse.Namespace, folder: Path, *, model: str, sidecar: str) -> Iterator[str]:
    config, port = folder / "config.yaml", free_port()
    shared = {"mode": "pre_call", "api_base": sidecar, "api_key": OURS}
    generic = shared | {"mode": ["pre_call", "post_call"], "unreachable_fallback": "fail_open"}
    guardrails = {
        "generic": generic | {"guardrail": "generic_guardrail_api"},
        "compresr": shared | {"guardrail": "compresr"},
        "headroom": shared | {"guardrail": "headroom"},
    }
    upstream = {"model": "openai/m", "api_base": model, "api_key": "none"}
    rows = {
        "model_list": [{"model_name": "m", "litellm_params": upstream}],
        "guardrails": [{"guardrail_name": name, "litellm_params": row} for name, row in guardrails.items()],
        "general_settings": {"master_key": KEY},
    }
    config.write_text(json.dumps(rows))  # JSON is YAML
    command = [arguments.litellm, "--config", str(config), "--port", str(port)]
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    url = f"http://127.0.0.1:{port}"
    log = folder / "litellm.log"
    with ready(command, environment, f"{url}/health/liveliness", log=log, patience=arguments.patience):
        yield url


if __name__ == "__main__":
    raise SystemExit(main())
