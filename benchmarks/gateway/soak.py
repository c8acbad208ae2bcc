"""Mixed traffic with faults on the wires of gateways and proxies: every answer is checked, and the memory is watched.

    python -m benchmarks.gateway.soak --minutes 30 --out runs/gateway-soak

One sidecar with small caches, so that they are full within minutes, and an upstream that echoes what comes. What goes
upstream, and what gateways get back, must be the bytes that the library's own answer gives, at later turns too;
nothing may come twice; SIGTERM comes in the middle of it. Ends with 1 when anything was otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.server.processes import COUNTED, sidecar, upstream
from benchmarks.server.soak import MAX_BODY_BYTES, NO_JSON, WRONG, Faults, Tally, Visit, until_terminated
from ctxprune import Context, Pipeline, Policy, load
from ctxprune.files import read_rows
from ctxprune.integrations.originals import marked, marked_hash
from ctxprune.prompt import NO_CONTEXT, piece_text
from ctxprune.tools import prune_tool_output

SAMPLE = Path(str(files("ctxprune.bundled") / "sample"))
CLIENTS = 8
#: Small enough that each is full after some minutes; what grows then is a leak.
CACHE_BYTES = 4_000_000
#: From this length on the memory of a run says something: its last third may be so much above the one before it.
JUDGED_MINUTES, GROWTH_MB, GROWTH_SHARE = 10.0, 20.0, 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """A question and a text, and what the library leaves of it: of marked context, of what a tool returned, and of
    that where something must stay."""

    question: str
    text: str
    marked: str
    tool: str
    kept: str


def samples() -> list[Sample]:
    """One for each document of the sample corpus, as the library answers it."""
    texts = {row["id"]: row["text"] for _, row in read_rows(SAMPLE / "corpus.jsonl")}
    asked = {row["document_id"]: row["question"] for _, row in read_rows(SAMPLE / "questions.jsonl")}
    pairs = [(asked[name], text) for name, text in texts.items() if name in asked]
    compressor, careful = load("provence"), load("provence", policy=Policy(on_empty="keep_top1"))
    results = Pipeline([compressor]).run([Context.of(question, [text]) for question, text in pairs])
    return [
        Sample(
            question,
            text,
            "".join(map(piece_text, result.after.pieces)) or NO_CONTEXT,
            prune_tool_output(text, question, compressor=compressor).text,
            prune_tool_output(text, question, compressor=careful).text,
        )
        for (question, text), result in zip(pairs, results, strict=True)
    ]


Body = dict[str, Any]


def chat(text: str, question: str, mode: str, name: str) -> Body:
    """OpenAI's chat with marked context. mode: what the upstream does. name: of the conversation."""
    user = {"role": "user", "content": f"<context>{text}</context>\n{question}"}
    return {"model": mode, "messages": [{"role": "system", "content": name}, user]}


def messages(text: str, question: str, mode: str, name: str) -> Body:
    """Anthropic's messages with what a tool returned."""
    call = {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": text}]}
    turns = [("user", question), ("assistant", [call]), ("user", [result])]
    rows = [{"role": role, "content": content} for role, content in turns]
    return {"model": mode, "max_tokens": 9, "system": name, "messages": rows}


def responses(text: str, question: str, mode: str, name: str) -> Body:
    """OpenAI's responses with the output of a function."""
    call = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": text}
    return {"model": mode, "instructions": name, "input": [{"role": "user", "content": question}, call, output]}


#: Of those that go upstream: path, body, and which of a sample's texts goes in place of the whole.
PROXIED: dict[str, tuple[str, Callable[[str, str, str, str], Body], str]] = {
    "chat": ("/v1/chat/completions", chat, "marked"),
    "messages": ("/v1/messages", messages, "tool"),
    "responses": ("/v1/responses", responses, "tool"),
}
GUARDRAIL, COMPRESR, HEADROOM = (
    "/beta/litellm_basic_guardrail_api",
    "/api/compress/question-specific/",
    "/v1/compress",
)


def guardrail(text: str, question: str, name: str, **options: Any) -> Body:
    """LiteLLM's: the whole conversation, and our options."""
    function = {"name": "look_up", "arguments": "{}"}
    rows = [
        {"role": "system", "content": name},
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": text},
    ]
    own = {"additional_provider_specific_params": {"min_tokens": 0} | options}
    return {"input_type": "request", "texts": [], "structured_messages": rows, "model": "m"} | own


def compresr(text: str, question: str) -> Body:
    return {"context": text, "query": question}


def headroom(text: str, question: str) -> Body:
    """Rows as LiteLLM shows them: the newest of the user and the calls held back."""
    rows = [{"role": "user", "content": question}, {"role": "tool", "tool_call_id": "c", "content": text}]
    return {"messages": rows, "model": "m", "ctxprune": {"min_tokens": 0}}


@dataclass(frozen=True, slots=True)
class GatewayTraffic(Faults):
    """Beside the faults, sound requests on each wire. numbers: names of conversations, each used once."""

    samples: Sequence[Sample]
    numbers: count[int]

    def kinds(self) -> Sequence[Visit]:
        proxied = [partial(self.proxied, wire) for wire in PROXIED]
        own = (self.guardrail, self.originals, self.compresr, self.headroom)
        return (*proxied, self.later_turn, *own, *Faults.kinds(self))

    def sound(self) -> tuple[str, Body]:
        sample, name = self.choose.choice(self.samples), self._name()
        ours: list[tuple[str, Body]] = [
            (GUARDRAIL, guardrail(sample.text, sample.question, name)),
            (COMPRESR, compresr(sample.text, f"{sample.question} {name}")),
            (HEADROOM, headroom(sample.text, f"{sample.question} {name}")),
        ]
        return self.choose.choice([*ours, self.passed_on("slow")])

    def passed_on(self, mode: str) -> tuple[str, Body]:
        path, body_of, _ = PROXIED[self.choose.choice(list(PROXIED))]
        sample = self.choose.choice(self.samples)
        return path, body_of(sample.text, sample.question, mode, self._name())

    def broken(self) -> tuple[str, bytes]:
        proxied = [path for path, _, _ in PROXIED.values()]
        path = self.choose.choice([GUARDRAIL, COMPRESR, HEADROOM, *proxied])
        return path, self.choose.choice(NO_JSON if path in proxied else NO_JSON + WRONG)

    async def proxied(self, wire: str, http: httpx2.AsyncClient) -> None:
        """The upstream gets the caller's bytes, the library's text in place of the whole."""
        path, body_of, which = PROXIED[wire]
        sample, name = self.choose.choice(self.samples), self._name()
        sent = body_of(sample.text, sample.question, "echo", name)
        shortened = body_of(getattr(sample, which), sample.question, "echo", name)
        await self._echoed(http, wire, path, sent, [shortened, sent])

    async def later_turn(self, http: httpx2.AsyncClient) -> None:
        """A second turn, with the mark of a prompt cache or without: what went upstream goes with the same bytes."""
        sample, name = self.choose.choice(self.samples), self._name()
        wire = partial(messages, question=sample.question, mode="echo", name=name)
        first = await self._echoed(
            http, "messages, first turn", "/v1/messages", wire(sample.text), [wire(sample.tool), wire(sample.text)]
        )
        if first is None:
            return
        marked = self.choose.choice([{}, {"cache_control": {"type": "ephemeral"}}])
        last = {"role": "user", "content": [{"type": "text", "text": "And why?"} | marked]}
        top = {} if marked else self.choose.choice([{}, {"cache_control": {"type": "ephemeral"}}])
        rows = [{"role": "assistant", "content": "So it is."}, last]
        later = [body | {"messages": [*body["messages"], *rows]} | top for body in (wire(sample.text), first)]
        await self._echoed(http, "messages, later turn", "/v1/messages", later[0], later[1:])

    async def _echoed(
        self, http: httpx2.AsyncClient, kind: str, path: str, sent: Body, allowed: Sequence[Body]
    ) -> Body | None:
        """The body that the upstream got. allowed: the first is what it must be, the second what it may be when the
        answer says that nothing could be pruned."""
        response = await self._post(http, kind, path, json.dumps(sent).encode(), **{COUNTED: self._name()})
        if response is None or response.status_code != 200:
            self._expect(kind, response, {429})
            return None
        status = response.headers.get("x-ctxprune-status", "none")
        came = [
            body
            for body in (allowed if status == "degraded" else allowed[:1])
            if response.content == json.dumps(body).encode()
        ]
        self.tally.note(kind, status if came else f"other bytes ({status})", fine=bool(came))
        return came[0] if came else None

    async def guardrail(self, http: httpx2.AsyncClient) -> None:
        sample, name = self.choose.choice(self.samples), self._name()
        answer = await self._answered(http, "guardrail", GUARDRAIL, guardrail(sample.text, sample.question, name))
        if answer is not None:
            rows = guardrail(sample.kept, sample.question, name)["structured_messages"]
            self._compare("guardrail", answer, answer[1].get("structured_messages"), rows, sample)

    async def originals(self, http: httpx2.AsyncClient) -> None:
        """A text with a marker, and the original behind it."""
        sample, name = self.choose.choice(self.samples), self._name()
        body = guardrail(sample.text, sample.question, name, originals="marker")
        answer = await self._answered(http, "originals", GUARDRAIL, body)
        if answer is None or answer[1]["action"] == "NONE":
            return
        text = answer[1]["structured_messages"][3]["content"]
        found = marked_hash(text) or ""
        is_ours = bool(found) and text == marked(sample.kept, found)
        self.tally.note("originals", "marked" if is_ours else "another text", fine=is_ours)
        is_late = self.closing.is_set()
        try:
            got = await http.get(f"{self.url}/v1/retrieve/{found}")
        except httpx2.HTTPError as error:
            self.tally.note("retrieve", type(error).__name__, fine=is_late)
            return
        is_whole = got.status_code == 200 and got.json()["original_content"] == sample.text
        self.tally.note("retrieve", "the original" if is_whole else f"{got.status_code}, another", fine=is_whole)

    async def compresr(self, http: httpx2.AsyncClient) -> None:
        sample = self.choose.choice(self.samples)
        answer = await self._answered(http, "compresr", COMPRESR, compresr(sample.text, sample.question))
        if answer is not None:
            self._compare("compresr", answer, answer[1]["data"]["compressed_context"], sample.kept, sample)

    async def headroom(self, http: httpx2.AsyncClient) -> None:
        sample = self.choose.choice(self.samples)
        answer = await self._answered(http, "headroom", HEADROOM, headroom(sample.text, sample.question))
        if answer is not None:
            rows = headroom(sample.kept, sample.question)["messages"]
            self._compare("headroom", answer, answer[1]["messages"], rows, sample)

    async def _answered(
        self, http: httpx2.AsyncClient, kind: str, path: str, body: Body
    ) -> tuple[str, dict[str, Any]] | None:
        """Status of pruning and the answer; None where the server took no more."""
        response = await self._post(http, kind, path, json.dumps(body).encode())
        if response is None or response.status_code != 200:
            self._expect(kind, response, {429})
            return None
        return response.headers["x-ctxprune-status"], response.json()

    def _compare(self, kind: str, answer: tuple[str, Body], came: Any, expected: Any, sample: Sample) -> None:
        """What was not pruned is a failure of ours that the answer says, or a text that stays whole in the library."""
        is_same = (
            came == expected or answer[0] == "degraded" or (answer[0] != "compressed" and sample.kept == sample.text)
        )
        self.tally.note(kind, answer[0] if is_same else f"another text ({answer[0]})", fine=is_same)

    def _name(self) -> str:
        return f"conversation-{next(self.numbers)}"


def soak(minutes: float, *, clients: int = CLIENTS) -> dict[str, Any]:
    """The traffic on one server, ended by SIGTERM. See `Tally`."""
    tally, expected = Tally(), samples()
    with upstream() as endpoint, sidecar(**_settings(endpoint.url)) as server:
        traffic = GatewayTraffic(server.url, tally, asyncio.Event(), random.Random(5), expected, count())
        asyncio.run(until_terminated(server, minutes * 60, traffic, clients))
        server.process.join(120)
        tally.exit_codes.append(server.process.exitcode)
        told = httpx2.post(f"{endpoint.url}/v1/told", json={"model": "told"}, timeout=60).json()
    curve = [(seconds, megabytes) for _, seconds, megabytes in tally.rss_mb]
    return {
        "minutes": minutes,
        "requests": sum(tally.counts.values()),
        "passed_on_once": told["requests"],
        "counts": dict(sorted(tally.counts.items())),
        "wrong": [*tally.wrong, *_wrong_at_the_end(minutes, tally, told["twice"])],
        "exit_code": tally.exit_codes[0],
        "growth_mb": growth_mb([megabytes for _, megabytes in curve]),
        "rss_mb": curve,
    }


def _settings(upstream_url: str) -> dict[str, Any]:
    return {
        "upstream_url": f"{upstream_url}/v1",
        "tool_message_tokens": 0,
        "drain_seconds": 1.0,
        **dict.fromkeys(("max_body_bytes", "max_proxy_body_bytes"), MAX_BODY_BYTES),
        **dict.fromkeys(("cache_bytes", "proxy_memory_bytes", "originals_bytes"), CACHE_BYTES),
    }


def _wrong_at_the_end(minutes: float, tally: Tally, twice: Sequence[str]) -> list[str]:
    wrong = [f"came twice: {name}" for name in twice[:5]]
    wrong += [] if tally.exit_codes == [0] else [f"exit code {tally.exit_codes[0]}"]
    megabytes = [sample[2] for sample in tally.rss_mb]
    growth = growth_mb(megabytes)
    if minutes >= JUDGED_MINUTES and growth > max(GROWTH_MB, GROWTH_SHARE * megabytes[-1]):
        wrong.append(f"the memory grew by {growth:.0f} MB in the last third")
    return wrong


def growth_mb(megabytes: Sequence[float]) -> float:
    """The median of the last third of a curve above that of the third before it."""
    third = len(megabytes) // 3
    if not third:
        return 0.0
    return round(statistics.median(megabytes[-third:]) - statistics.median(megabytes[-2 * third : -third]), 1)


def report(row: dict[str, Any]) -> str:
    """The run as Markdown."""
    curve = row["rss_mb"][:: max(len(row["rss_mb"]) // 12, 1)]
    lines = [
        "# Gateways and proxies under traffic with faults",
        "",
        f"    python -m benchmarks.gateway.soak --minutes {row['minutes']:g} --out DIR",
        "",
        f"{row['requests']} requests, {row['passed_on_once']} of them checked on their way upstream. SIGTERM came in "
        f"the middle of it; exit code {row['exit_code']}. What should not happen: {'; '.join(row['wrong']) or 'none'}.",
        "",
        "| request and outcome | times |",
        "| --- | ---: |",
        *(f"| {name} | {number} |" for name, number in row["counts"].items()),
        "",
        "Memory, MB at seconds: " + ", ".join(f"{megabytes:g} at {seconds:g}" for seconds, megabytes in curve) + ".",
        f"The last third is {row['growth_mb']:+g} MB from the one before it; a cache holds {CACHE_BYTES / 1e6:g} MB.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write DIR/soak.json and DIR/soak.md. Returns 1 when something happened that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the traffic goes on (default: 1)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"at a time (default: {CLIENTS})")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    options = parser.parse_args(argv)
    row = soak(options.minutes, clients=options.clients)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    (options.out / "soak.md").write_text(report(row), encoding="utf-8")
    sys.stdout.write(report(row))
    return int(bool(row["wrong"]))


if __name__ == "__main__":
    raise SystemExit(main())
