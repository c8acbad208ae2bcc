"""What every worker does with its peer: load, time each question, write a line for it, tell memory and versions.

Runs in the peer's own environment, so it imports nothing but the standard library. A worker calls `serve(load)`, where
`load(task)` returns a function of question, texts and budget (words) that gives the kept text, best part first.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

#: The exit code of a peer whose model is not to be had.
NO_MODEL = 3

Compress = Callable[[str, list[str], int], str]


class NoModelError(Exception):
    """There is no model that the peer could be run with; the message says why."""


def serve(load: Callable[[dict[str, Any]], Compress]) -> None:
    """Do the task named on the command line: TASK.json, and the .jsonl file for the answers."""
    task_file, out_file = sys.argv[1:3]
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    with Path(out_file).open("w", encoding="utf-8") as out:
        _measure(task, load, lambda row: print(json.dumps(row), file=out, flush=True))


def _measure(
    task: dict[str, Any], load: Callable[[dict[str, Any]], Compress], tell: Callable[[dict[str, Any]], None]
) -> None:
    started = time.perf_counter()
    try:
        compress = load(task)
    except NoModelError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_MODEL)
    tell({"loaded": time.perf_counter() - started, "versions": _versions(task["packages"])})
    first = task["questions"][0]
    compress(first["question"], first["texts"], task["budgets"][0])  # the first call of a process is slower
    for place, question in enumerate(task["questions"]):
        for budget in task["budgets"]:
            started = time.perf_counter()
            kept = compress(question["question"], list(question["texts"]), budget)
            seconds = time.perf_counter() - started
            tell({"question": place, "budget": budget, "seconds": seconds, "kept": kept})
    unit = 1 if sys.platform == "darwin" else 1024
    tell({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6})


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def words(text: str, budget: int) -> str:
    """The first `budget` words of a text."""
    return " ".join(text.split()[:budget])


def random_bert(task: dict[str, Any], folder: Path, *, head: str, labels: int) -> Path:
    """A BERT of the shape in the task with random weights, and its tokenizer, in `folder`; for speed alone.

    head: the class in transformers, such as BertForTokenClassification.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    shape = task["shape"]
    config = transformers.BertConfig(
        num_hidden_layers=shape["layers"], hidden_size=shape["width"], num_attention_heads=shape["heads"],
        intermediate_size=shape["inner"], vocab_size=shape["vocabulary"], num_labels=labels,
        max_position_embeddings=512,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    getattr(transformers, head)(config).save_pretrained(folder)
    special = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token", "pad_token", "unk_token")}
    special["mask_token"] = "[MASK]"
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=task["tokenizer"], model_max_length=512, **special)
    tokenizer.save_pretrained(folder)
    return folder
