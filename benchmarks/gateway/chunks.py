"""Ten chunks of 400 words and one question: our seconds beside those of Headroom, in the same run.

    python -m venv /tmp/headroom && /tmp/headroom/bin/pip install headroom-ai
    python -m benchmarks.gateway.chunks --headroom /tmp/headroom/bin/python

Both get the same conversations: ten tool results made of the bundled sample corpus, one of which answers the question.
Ours is asked over HTTP; Headroom's `compress` is called in its own process, without HTTP. Its model (Kompress) is not
in its package: what that does without it is what is measured here, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.server.processes import served
from ctxprune.files import read_rows

SAMPLE = Path(str(files("ctxprune.bundled") / "sample"))
CHUNKS, WORDS = 10, 400
KEY = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Task:
    """messages: a question, calls of a tool and their ten results. evidence: sentences that answer it."""

    messages: list[dict[str, Any]]
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """seconds: from question to answer. kept: whether a sentence that answers is still there; words: that are left."""

    seconds: float
    kept: bool
    words: int


def tasks(number: int, *, seed: int = 0) -> list[Task]:
    """One task a question: chunks of other documents around that of the question."""
    generator = random.Random(seed)
    documents = {row["id"]: row["text"] for _, row in read_rows(SAMPLE / "corpus.jsonl")}
    questions = [row for _, row in read_rows(SAMPLE / "questions.jsonl") if row["answerable"]]
    return [_task(row, documents, generator) for row in generator.sample(questions, number)]


def _task(row: dict[str, Any], documents: dict[str, str], generator: random.Random) -> Task:
    others = [text for name, text in documents.items() if name != row["document_id"]]
    generator.shuffle(others)
    words = " ".join(others).split()
    chunks = [" ".join(words[WORDS * place : WORDS * (place + 1)]) for place in range(CHUNKS)]
    own = documents[row["document_id"]].split()
    filler = max(WORDS - len(own), 0)
    chunks[generator.randrange(CHUNKS)] = " ".join([*own[:WORDS], *words[-filler:]] if filler else own[:WORDS])
    calls = [{"id": f"call_{place}", "type": "function", "function": _SEARCH} for place in range(CHUNKS)]
    results = [{"role": "tool", "tool_call_id": f"call_{place}", "content": text} for place, text in enumerate(chunks)]
    asked = {"role": "user", "content": row["question"]}
    evidence = tuple(" ".join(sentence.split()) for sentence in row["evidence"])
    return Task([asked, {"role": "assistant", "content": None, "tool_calls": calls}, *results], evidence)


_SEARCH = {"name": "search", "arguments": "{}"}


def ours(url: str, task: Task) -> Reply:
    body = {"input_type": "request", "structured_messages": task.messages, "model": "m"}
    began = time.perf_counter()
    answer = httpx2.post(f"{url}/beta/litellm_basic_guardrail_api", json=body, headers={"x-api-key": KEY}, timeout=300)
    seconds = time.perf_counter() - began
    if answer.headers["x-ctxprune-status"] == "degraded":
        raise SystemExit(f"the sidecar was too slow: {answer.headers['x-ctxprune-reason']}; use a quieter machine")
    return _reply(answer.json().get("structured_messages", task.messages), task, seconds)


class Headroom:
    """Headroom's `compress` in a process of its own interpreter; one line of JSON a call."""

    def __init__(self, python: str, clients: int) -> None:
        self._process = subprocess.Popen(
            [python, "-c", _WORKER, str(clients)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def replies(self, batch: Sequence[Task]) -> list[Reply]:
        """All of them at once, in as many threads as there are clients."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([task.messages for task in batch]) + "\n")
        self._process.stdin.flush()
        rows = json.loads(self._process.stdout.readline())
        return [_reply(row["messages"], task, row["seconds"]) for row, task in zip(rows, batch, strict=True)]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


_WORKER = """
import json, os, sys, time
from concurrent.futures import ThreadPoolExecutor
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from headroom import compress
def one(messages):
    began = time.perf_counter()
    result = compress(messages, model="gpt-4o", protect_recent=0)
    return {"seconds": time.perf_counter() - began, "messages": result.messages}
with ThreadPoolExecutor(int(sys.argv[1])) as threads:
    for line in sys.stdin:
        print(json.dumps(list(threads.map(one, json.loads(line)))), file=answers, flush=True)
"""


def _reply(messages: Sequence[Any], task: Task, seconds: float) -> Reply:
    text = "\n".join(str(message.get("content")) for message in messages if message["role"] == "tool")
    plain = " ".join(text.split())
    return Reply(seconds, any(sentence in plain for sentence in task.evidence), len(text.split()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headroom", help="a Python with headroom-ai; without it only ours is measured")
    parser.add_argument("--tasks", type=int, default=8, help="questions for one client; 16 for 16 clients")
    parser.add_argument("--patience", type=float, default=300.0)
    arguments = parser.parse_args(argv)
    print("| | clients | p50 s | longest s | words left of 4,000 | evidence kept |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for clients, number in ((1, arguments.tasks), (16, 16)):
        asked = tasks(number, seed=clients)
        with (
            TemporaryDirectory() as folder,
            served(Path(folder) / "log", [KEY], patience=arguments.patience, deadline_seconds=120) as (_, port),
        ):
            url = f"http://127.0.0.1:{port}"
            ours(url, tasks(1, seed=99)[0])  # both are warm before the clock counts
            _row("ctxprune", clients, _at_once(lambda task, url=url: ours(url, task), asked, clients))
        if arguments.headroom:
            theirs = Headroom(arguments.headroom, clients)
            theirs.replies(tasks(1, seed=99))
            batches = [[task] for task in asked] if clients == 1 else [asked]
            _row(
                "headroom-ai without its model",
                clients,
                [reply for batch in batches for reply in theirs.replies(batch)],
            )
            theirs.close()
    return 0


def _at_once(work: Callable[[Task], Reply], asked: Sequence[Task], clients: int) -> list[Reply]:
    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(work, asked))


def _row(name: str, clients: int, replies: Sequence[Reply]) -> None:
    seconds = [reply.seconds for reply in replies]
    words = statistics.mean(reply.words for reply in replies)
    kept = sum(reply.kept for reply in replies) / len(replies)
    figures = f"{statistics.median(seconds):.2f} | {max(seconds):.2f} | {words:.0f} | {kept:.2f}"
    print(f"| {name} | {clients} | {figures} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
