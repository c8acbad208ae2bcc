"""Measure on your own questions how often the answer survives compression, beside baselines at equal tokens.

    pip install 'ctxprune-rag[bench]'
    python examples/evaluate_my_questions.py questions.jsonl --budget 150 --out runs/mine

A line is {"question", "answers": [...], "documents": ["...", {"title", "text"}, ...]}. With --generator
local:PATH or openai:MODEL it also measures the answers that a language model gives.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxprune.eval.config import config_from
from ctxprune.eval.run.runner import run


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("--compressors", nargs="+", default=["provence", "bm25-sentences"])
    parser.add_argument("--budget", type=int, default=150, help="tokens of the whole context")
    parser.add_argument("--generator", help="local:PATH_OR_ID or openai:MODEL")
    parser.add_argument("--base-url", help="of an openai generator")
    parser.add_argument("--out", type=Path, default=Path("runs/my-questions"))
    arguments = parser.parse_args(argv)

    settings: dict[str, Any] = {
        "data": [{"path": str(arguments.questions)}],
        "compressors": [{"name": name, "budgets": [arguments.budget]} for name in arguments.compressors],
    }
    if arguments.generator:
        kind, _, model = arguments.generator.partition(":")
        settings["generator"] = {"kind": kind, "model": model}
        settings["generator"] |= {"base_url": arguments.base_url} if arguments.base_url else {}
    run(config_from(settings, source="the arguments"), arguments.out, cache=arguments.out.with_suffix(".cache.sqlite"))
    print((arguments.out / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"more in {arguments.out / 'report.html'}")


if __name__ == "__main__":
    main()
