"""How much memory the largest requests take that the sidecar lets in: a new server for each kind, all at once.

python -m benchmarks.server.memory --out runs/memory
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.server.processes import peak_mb, served

KEYS = "one-" + "o" * 20, "other-" + "x" * 20
QUERY = "When was the mill built?"
#: An answer that has not come by then counts as none.
ANSWER_SECONDS = 240.0
#: An upstream that takes no connection: what is measured ends there.
NOWHERE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True, slots=True)
class Load:
    """Requests sent at the same time, of two callers in turn: path and body of each."""

    requests: Sequence[tuple[str, bytes]]


def loads() -> Mapping[str, Load]:
    """The kinds, by what is large about them."""
    ends = {"query": QUERY, "documents": [". " * 450_000], "compressor": "lead", "rate": 0.5}
    shorter = ends | {"documents": [". " * 32_000]}
    prose = "The mill by the river was built of brick and stone in the year after the flood had come. "
    wide = "\N{WATER WAVE}"  # one such letter makes Python keep four bytes for every letter of the text
    emoji = {"query": QUERY, "documents": [wide + "x" * 3_900_000], "compressor": "lead", "rate": 0.5}
    small = {"query": QUERY, "documents": ["."] * 1000, "compressor": "lead", "budget": 10}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 19_000_000}}
    chat = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": QUERY}, image]}]}
    kinds = {
        "a body of 0.9 MB of sentence ends": _load("/v1/compress", ends, 1),
        "two of them at once": _load("/v1/compress", ends, 2),
        "the most sentence ends that are let in, twice": _load("/v1/compress", shorter, 2),
        "the same as a page of HTML": _load("/v1/compress", shorter | {"return_html": True}, 2),
        "prose up to the limit of tokens, twice": _load(
            "/v1/compress", {"query": QUERY, "documents": [prose * 5_000], "compressor": "lead", "rate": 0.5}, 2
        ),
        "64 bodies of 4 MB that take four bytes a letter": _load("/v1/compress", emoji, 64),
        "64 bodies of many small values": _load(
            "/v1/rerank", {"query": QUERY, "documents": [], "x": [{"": 0}] * 60_000}, 64
        ),
        "200 requests of 1000 documents of one letter": _load("/v1/compress", small, 200),
        "14 chats of 19 MB with an image": _load("/v1/chat/completions", chat, 14),
    }
    return kinds | {"all of these at once": Load([one for load in kinds.values() for one in load.requests])}


def _load(path: str, body: Mapping[str, Any], copies: int) -> Load:
    return Load([(path, json.dumps(body, ensure_ascii=False).encode())] * copies)


async def _sent(port: int, load: Load) -> Counter[str]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS) as http:

        async def one(at: int) -> str:
            path, body = load.requests[at]
            headers = {"content-type": "application/json", "x-api-key": KEYS[at % 2]}
            try:
                return str((await http.post(path, content=body, headers=headers)).status_code)
            except httpx2.HTTPError as error:
                return type(error).__name__

        return Counter(await asyncio.gather(*map(one, range(len(load.requests)))))


def measured(out: Path, only: str) -> list[dict[str, Any]]:
    rows = []
    for name, load in loads().items():
        if only not in name:
            continue
        with served(out / "server.log", KEYS, upstream_url=NOWHERE) as (process, port):
            idle = peak_mb(process.pid)
            answers = asyncio.run(_sent(port, load))
            rows.append(
                {
                    "load": name,
                    "largest_body_mb": round(max(len(body) for _, body in load.requests) / 1e6, 2),
                    "answers": dict(sorted(answers.items())),
                    "idle_mb": round(idle),
                    "peak_mb": round(peak_mb(process.pid)),
                }
            )
        sys.stderr.write(json.dumps(rows[-1]) + "\n")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    report = json.dumps(measured(options.out, options.only), indent=1) + "\n"
    (options.out / "memory.json").write_text(report, encoding="utf-8")
    sys.stdout.write(report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
