"""Embed every sentence of a corpus on several workers, with Ray or without, and search what came out.

    pip install 'ctxprune-rag[ray]'
    python examples/ray_corpus.py corpus.jsonl --engine ray --workers 8 --out vectors --question "..."

A line is {"id", "text", "title"?}; without a file, the sample corpus inside the package is taken. The same command
goes on with a stopped run, and `--engine local` gives the same files without Ray.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from ctxprune.integrations.mapping import Work, map_file
from ctxprune.models.sentence_encoders import load_embedder

SAMPLE = Path(str(files("ctxprune.bundled") / "sample" / "corpus.jsonl"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/vectors"))
    parser.add_argument("--question", default="When is a Flex ticket refunded?")
    arguments = parser.parse_args(argv)

    work = Work(task="embed")
    summary = map_file(arguments.corpus, arguments.out, work, engine=arguments.engine, workers=arguments.workers)
    print(f"{summary.lines} passages in {summary.parts} parts, {summary.found} of them from an earlier run")

    parts = sorted(arguments.out.glob("part-*.npy"))
    vectors = np.concatenate([np.load(part) for part in parts])
    names = []
    for part in parts:
        with part.with_suffix(".ids.jsonl").open(encoding="utf-8") as lines:
            names.extend(json.loads(line) for line in lines)
    [query] = load_embedder(work.encoder).embed([arguments.question])
    scores = vectors @ query
    for place in np.argsort(-scores)[:3]:
        name = names[place]
        print(f"{scores[place]:.2f} {name['id']} [{name['start']}:{name['end']}]")


if __name__ == "__main__":
    main()  # the workers are fresh processes, which import this file
