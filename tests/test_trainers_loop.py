"""The training loop that three trainers share: its arithmetic, its traces with a seed, and what it resumes from."""

from __future__ import annotations

import gzip
import json
import math
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from fixtures_llama import save_llama
from fixtures_trainers import SENTENCES, labelled_question, save_bert

from ctxprune.errors import InputError
from ctxprune.text import split_words
from ctxprune.trainers.llmlingua2 import train as llmlingua2
from ctxprune.trainers.llmlingua2.targets import WordTargets, write_targets
from ctxprune.trainers.provence import train as provence
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.loop import BatchLoss, Run, add_run_arguments, balanced, batches, padded, schedule
from ctxprune.trainers.xrag import train as xrag


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True)
class Point:
    ids: np.ndarray[Any, Any]
    target: float


def points(count: int = 40) -> list[Point]:
    rng = np.random.default_rng(1)
    return [Point(rng.integers(0, 5, size=1 + place % 7), float(place % 3)) for place in range(count)]


def tiny_module() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.EmbeddingBag(5, 4), torch.nn.Linear(4, 1))


def arguments(*given: str) -> Namespace:
    parser = ArgumentParser()
    add_run_arguments(parser, lr=0.05, max_length=8)
    return parser.parse_args(["--cpu", "--precision", "no", "--batch-size", "4", "--evaluate-every", "3", *given])


def point_loss(module: Any, batch: Sequence[Point]) -> torch.Tensor:
    rows = [module(torch.tensor(point.ids)[None])[0, 0] for point in batch]
    return (torch.stack(rows) - torch.tensor([point.target for point in batch])).square().mean()


def run_points(options: Namespace, checkpoint: Path) -> tuple[Run, list[float]]:
    plan = schedule(options, lambda rng: batches(points(), options.batch_size, rng))
    run = Run(tiny_module(), options, steps=math.ceil(len(plan) / options.accumulate))
    run.resume(checkpoint)
    losses: list[float] = []

    def loss(batch: Sequence[Point]) -> BatchLoss:
        total = point_loss(run.module, batch)
        losses.append(float(total.detach()))
        return BatchLoss(total, {"loss": losses[-1], "never": math.nan})

    run.train(plan, loss, dict, checkpoint, newest=0.25)
    return run, losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_the_mean_gradient_clipped_at_the_rate_of_the_schedule(tmp_path: Path, accumulate: int) -> None:
    options = arguments("--epochs", "2", "--accumulate", str(accumulate), "--max-steps", "8")
    run, losses = run_points(options, tmp_path / "training.pt")
    rng = random.Random(options.seed)
    plan = [batch for _ in range(2) for batch in batches(points(), 4, rng)][: 8 * accumulate]
    module, expected = tiny_module(), []
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.01)
    for step in range(8):
        done = step / 8
        rising = (done + 1e-3) / 0.05 if done < 0.05 else 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))
        optimizer.param_groups[0]["lr"] = 0.05 * rising
        for batch in plan[step * accumulate : (step + 1) * accumulate]:
            loss = point_loss(module, batch)
            expected.append(float(loss.detach()))
            (loss / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert losses == pytest.approx(expected, rel=1e-4)
    assert [row["step"] for row in run.history] == [3, 6, 8]
    means = expected[0]
    for value in expected[1:]:
        means = 0.75 * means + 0.25 * value
    assert run.history[-1]["loss"] == pytest.approx(means, rel=1e-4)
    assert "never" not in run.history[-1]


def test_a_run_without_figures_has_no_history_and_is_saved_all_the_same(tmp_path: Path) -> None:
    options = arguments("--max-steps", "3")
    plan = schedule(options, lambda rng: batches(points(), 4, rng))
    run = Run(tiny_module(), options, steps=3)
    run.train(plan, lambda batch: BatchLoss(point_loss(run.module, batch), {}), lambda means: {}, tmp_path / "t.pt")
    assert run.history == [] and torch.load(tmp_path / "t.pt", weights_only=True)["step"] == 3


def test_a_stopped_run_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    """The first half is written as the checkpoints of earlier versions are: these five entries."""
    options = arguments("--max-steps", "8")
    whole, losses = run_points(options, tmp_path / "whole.pt")
    half, _ = run_points(arguments("--max-steps", "8"), tmp_path / "half.pt")
    del half
    plan = schedule(options, lambda rng: batches(points(), 4, rng))
    first = Run(tiny_module(), options, steps=8)
    first.train(plan[:4], lambda batch: BatchLoss(point_loss(first.module, batch), {}), dict, tmp_path / "unused.pt")
    state = {"model": first.module.state_dict(), "optimizer": first.optimizer.state_dict()}
    torch.save({**state, "step": 4, "seconds": 1.5, "history": [{"step": 3}]}, tmp_path / "stopped.pt")
    resumed, rest = run_points(options, tmp_path / "stopped.pt")
    assert rest == losses[4:]
    assert resumed.seconds >= 1.5 and [row["step"] for row in resumed.history] == [3, 6, 8]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], value)


@pytest.mark.parametrize("content", [b"", b"no zip", "other model", "no optimizer"])
def test_a_foreign_checkpoint_is_a_clear_error(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "training.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        module = torch.nn.Linear(2, 2) if content == "other model" else tiny_module()
        torch.save({"model": module.state_dict()}, path)
    with pytest.raises(InputError, match=r"training.pt is no checkpoint of this training .* another --out"):
        Run(tiny_module(), arguments(), steps=3).resume(path)


def test_rows_are_filled_up_at_their_ends() -> None:
    table = padded([np.array([1, 2]), np.array([3])], -1)
    assert table.dtype == torch.int64 and table.tolist() == [[1, 2], [3, -1]]
    assert padded([np.array([0.5])], 0, np.float32).dtype == torch.float32


def test_a_draw_is_the_same_for_a_key_and_all_in_order_where_no_limit_bites() -> None:
    items = list(range(20))
    assert Source("a/b.jsonl").draw(iter(items), "k") == Source("b", 20).draw(items, "k") == items
    some = Source("a/b.jsonl", 5).draw(items, "k")
    assert some == Source("other", 5).draw(items, "k") == random.Random("k").sample(items, 5)
    assert Source("a/b.jsonl").key(7) == "7 b.jsonl" == Source("elsewhere/b.jsonl", 3, 2).key(7)
    assert sorted(drawn(items, 99, 1)) == items and drawn(items, 99, 1) == drawn(items, 20, 1) != items


#: The loss of the first five steps, as the loops were when each trainer had its own.
#: xRAG reads the bundled int8 encoder, whose sums saturate on processors without VNNI, so it has a second trace.
TRACES = {
    "provence": [[2.1417, 2.1492, 2.0058, 1.9241, 1.8679]],
    "llmlingua2": [[0.6968, 0.6919, 0.6797, 0.7144, 0.7103]],
    "xrag": [[5.4255, 6.5451, 3.5803, 5.9784, 6.6995], [5.4952, 6.4840, 3.8488, 5.5609, 6.4800]],
}


def provence_command(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = [labelled_question(number, rng.permutation(4)) for number in range(48)]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["--base", str(save_bert(folder / "base")), "--data", f"{folder / 'questions.jsonl'}:40:3"]
    return [*data, "--batch-tokens", "320", "--per-passage", "0", "--lr", "3e-3", "--max-length", "96"]


def llmlingua2_command(folder: Path) -> list[str]:
    rng = random.Random(3)
    texts = [" ".join(rng.choice(SENTENCES) for _ in range(rng.randrange(1, 6))) for _ in range(80)]
    targets = [WordTargets(text, tuple(float(len(text) % 2) for _ in split_words(text))) for text in texts]
    write_targets(folder / "targets.jsonl.gz", targets, teacher="us")
    data = ["--base", str(save_bert(folder / "base")), "--data", f"{folder / 'targets.jsonl.gz'}:60:2"]
    return [*data, "--batch-size", "8", "--lr", "3e-3", "--max-length", "64"]


def xrag_command(folder: Path) -> list[str]:
    nouns = ["cat", "mat", "river", "rock", "sea", "cell", "vote", "sun", "moon", "star"]
    rng = random.Random(1)
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        for number in range(60):
            noun, other = rng.sample(nouns, 2)
            gold = {"text": " ".join([noun] * 7 + [other, "."]), "is_gold": True}
            row = {"id": str(number), "question": "the cat sat on", "answers": [noun], "documents": [gold]}
            file.write(json.dumps(row) + "\n")
    template = "{% for message in messages %}user {{ message['content'] }} {% endfor %}"
    model = save_llama(folder / "llama", chat_template=template)
    data = ["--stage", "1", "--generator", str(model), "--data", f"{folder / 'train.jsonl.gz'}:50:2"]
    return [*data, "--dtype", "float32", "--batch-size", "10", "--lr", "1e-2"]


TRAINERS: dict[str, tuple[Callable[[list[str]], None], Callable[[Path], list[str]]]] = {
    "provence": (provence.main, provence_command),
    "llmlingua2": (llmlingua2.main, llmlingua2_command),
    "xrag": (xrag.main, xrag_command),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_the_first_steps_of_a_trainer_are_those_of_its_seed(name: str, tmp_path: Path, monkeypatch) -> None:
    trace: list[float] = []
    backward = torch.Tensor.backward

    def traced(loss: torch.Tensor, **further: Any) -> None:
        trace.append(float(loss.detach()))
        backward(loss, **further)

    monkeypatch.setattr(torch.Tensor, "backward", traced)
    main, command = TRAINERS[name]
    given = [*command(tmp_path), "--cpu", "--precision", "no", "--max-steps", "5"]
    main([*given, "--out", str(tmp_path / "run")])
    assert any(trace[-5:] == pytest.approx(known, abs=2e-3) for known in TRACES[name])
    main([*given, "--out", str(tmp_path / "another"), "--seed", "14"])
    assert all(trace[-5:] != pytest.approx(known, abs=2e-3) for known in TRACES[name])


@dataclass(frozen=True)
class Sized:
    """A family: more tokens than its longest member has."""

    ids: np.ndarray[Any, Any]
    tokens: int


@pytest.mark.parametrize("sizes", [[900, 100, 100, 100, 100, 100], [5], [7, 1, 7, 1, 7, 1, 7, 1], [3] * 9, [50, 49, 1]])
def test_processes_share_a_batch_by_its_tokens(sizes: list[int]) -> None:
    batch = [Sized(np.zeros(1), size) for size in sizes]
    parts = balanced(batch, 2)
    assert sorted(id(one) for part in parts for one in part) == sorted(map(id, batch))
    loads = [sum(one.tokens for one in part) for part in parts]
    assert max(loads) <= max(max(sizes), -(-sum(sizes) // 2) + max(sizes) // 2)
    assert max(loads) - min(loads) <= max(sizes)


def test_items_without_a_size_count_their_own_tokens() -> None:
    lengths = [8, 1, 1, 1, 1, 1, 1, 1, 1]
    parts = balanced([Point(np.zeros(length), 0.0) for length in lengths], 2)
    assert [sum(len(one.ids) for one in part) for part in parts] == [8, 8]
