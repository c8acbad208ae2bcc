"""The xRAG trainer end to end on a tiny model: both stages, resuming, and a frozen generator."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_llama import save_llama
from safetensors.torch import load_file

from ctxprune.compressors.xrag.bridge import load_bridge
from ctxprune.compressors.xrag.compressor import XRAG
from ctxprune.errors import CheckpointError, InputError
from ctxprune.generators import LocalGenerator
from ctxprune.models.sentence_encoders import load_embedder
from ctxprune.trainers.xrag import data
from ctxprune.trainers.xrag.data import embedded_texts
from ctxprune.trainers.xrag.train import checksum, main
from ctxprune.types import Context

TEMPLATE = "{% for message in messages %}user {{ message['content'] }} {% endfor %}"
NOUNS = ["cat", "mat", "river", "rock", "sea", "cell", "vote", "sun", "moon", "star"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), chat_template=TEMPLATE)


def write_questions(path: Path, count: int, seed: int) -> Path:
    """Passages of one word eight times over, and what they are about."""
    rng = random.Random(seed)
    with gzip.open(path, "wt") as file:
        for number in range(count):
            noun, other = rng.sample(NOUNS, 2)
            gold = {"text": " ".join([noun] * 7 + [other, "."]), "is_gold": True}
            row = {"id": str(number), "question": "the cat sat on", "answers": [noun], "documents": [gold]}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("questions")
    return write_questions(folder / "train.jsonl.gz", 60, 1), write_questions(folder / "held.jsonl.gz", 40, 2)


def command(generator: Path, files: tuple[Path, Path], out: Path, stage: int, *more: str) -> list[str]:
    return [
        "--stage", str(stage), "--generator", str(generator), "--generator-name", "tiny-llama", "--data", str(files[0]),
        "--validation", str(files[1]), "--out", str(out), "--cpu", "--precision", "no", "--dtype", "float32",
        "--batch-size", "10", "--evaluate-every", "30", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def first(generator: Path, files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    main(command(generator, files, out, 1, "--epochs", "12", "--lr", "1e-2"))
    return out


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())["evaluations"]


def test_stage_1_learns_to_tell_documents_by_their_tokens(first: Path) -> None:
    last = history(first)[-1]
    assert last["true"] < last["shuffled"] - 0.1 and last["true"] < last["constant"] - 0.1
    assert last["constant"] < last["none"]
    assert last["identified"] >= 4 / 32 and last["true_better"] > 0.8
    assert [entry["step"] for entry in history(first)] == [30, 60]


def test_the_saved_bridge_can_be_used(first: Path, generator: Path) -> None:
    bridge = load_bridge(first)
    assert (bridge.config.generator, bridge.config.encoder) == ("tiny-llama", "all-MiniLM-L6-v2-int8")
    vectors = load_embedder("bundled").embed(["sun sun sun sun", "rock rock rock rock"])
    soft = bridge.project(vectors)
    assert soft.shape == (2, 32) and bridge.constant is not None and bridge.constant.shape == (32,)
    report = json.loads((first / "report.json").read_text())
    assert report["steps"] == 60 and report["tokens_per_second"] > 0 and report["arguments"]["stage"] == 1


def test_stage_2_goes_on_from_stage_1_and_brings_the_teacher_nearer(
    first: Path, generator: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    main(command(generator, files, tmp_path, 2, "--init", str(first), "--epochs", "10", "--lr", "5e-3"))
    before, after = history(tmp_path)[0], history(tmp_path)[-1]
    assert after["true"] < before["true"] and after["train_kl"] < before["train_kl"]
    assert after["true"] < after["shuffled"] and after["text"] == pytest.approx(before["text"], abs=1e-5)
    assert load_bridge(tmp_path).config.scale == load_bridge(first).config.scale


def test_stage_2_forgets_less_of_stage_1_where_passages_are_mixed_in(
    first: Path, generator: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    def nats_of_passages(out: Path, *more: str) -> float:
        main(command(generator, files, out, 2, "--init", str(first), "--epochs", "8", "--lr", "2e-2", *more))
        # one step of stage 1 that learns nothing, for its figures
        again = ["--init", str(out), "--max-steps", "1", "--lr", "1e-12", "--identify", "0"]
        main(command(generator, files, out / "again", 1, *again))
        return history(out / "again")[-1]["true"]

    mixed = nats_of_passages(tmp_path / "mixed", "--paraphrase", str(files[0]))
    assert mixed < nats_of_passages(tmp_path / "apart") - 0.1


def test_passages_cannot_be_mixed_into_stage_1(generator: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--paraphrase is for stage 2"):
        main(command(generator, files, tmp_path / "out", 1, "--paraphrase", str(files[0])))
    assert not (tmp_path / "out").exists()


def test_a_repeated_command_goes_on_where_it_stopped(generator: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    def run(steps: str) -> dict[str, Any]:
        more = ("--evaluate-every", "2", "--identify", "0", "--validation-items", "2", "--epochs", "2")
        main(command(generator, files, tmp_path, 1, *more, "--max-steps", steps))
        return torch.load(tmp_path / "training.pt", weights_only=True)

    stopped, again = run("4"), run("4")
    assert again["step"] == 4 and torch.equal(again["model"]["constant"], stopped["model"]["constant"])
    on = run("6")
    assert [entry["step"] for entry in on["history"]] == [2, 4, 6]
    assert on["history"][2]["tokens"] > on["history"][1]["tokens"]


def test_the_checksum_sees_one_changed_weight(generator: Path) -> None:
    linear = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    before = checksum(linear)
    assert checksum(linear) == before
    with torch.no_grad():
        linear.weight[1, 2] += 0.5
    assert checksum(linear) != before


def test_a_bridge_of_another_width_is_refused(
    first: Path, files: tuple[Path, Path], tmp_path: Path, generator: Path
) -> None:
    config = json.loads((first / "config.json").read_text()) | {"encoder": "another"}
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((first / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"from 'another' \(384\)"):
        main(command(generator, files, tmp_path / "out", 2, "--init", str(tmp_path)))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it when it wraps
def test_a_reader_with_updates_of_its_own_belongs_to_the_bridge(
    first: Path, generator: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    more = ("--init", str(first), "--lora", "2", "--max-steps", "8", "--lr", "1e-2")
    main(command(generator, files, out, 2, *more))
    assert history(out)[-1]["true"] < history(out)[-1]["shuffled"]
    saved = load_file(out / "reader" / "adapter_model.safetensors")
    assert len(saved) == 8 and all(value.any() for value in saved.values())
    config = load_bridge(out).config
    assert config.reads == f"tiny-llama+reader-{config.reader[:12]}" and config.generator == "tiny-llama"
    xrag = XRAG(out)
    [context] = xrag.compress([Context.of("the cat sat on", ["sun " * 8])])
    tuned = LocalGenerator(out / "reader", device="cpu", known_as=xrag.reads)
    stock = LocalGenerator(generator, device="cpu", known_as="tiny-llama")
    assert tuned.context_replies([context], template=xrag.template, max_new_tokens=2)  # its own reader takes them
    with pytest.raises(InputError, match=r"tiny-llama\+reader-.*, no stock model, .* the bridge's folder 'reader'"):
        stock.generate_contexts([context])
    with pytest.raises(InputError, match="has a reader of its own; pass --lora"):
        main(command(generator, files, tmp_path / "more", 2, "--init", str(out)))
    with pytest.raises(InputError, match="has a reader of rank 2, not 3"):
        main(command(generator, files, tmp_path / "more", 2, "--init", str(out), "--lora", "3"))
    main(command(generator, files, tmp_path / "more", 2, "--init", str(out), "--lora", "2", "--max-steps", "1"))
    assert load_bridge(tmp_path / "more").config.reader not in ("", config.reader)


def test_pieces_of_another_size_than_the_bridges_are_refused(
    first: Path, generator: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    for option, value in (("--shard-tokens", "16"), ("--pieces", "sentences")):
        with pytest.raises(InputError, match=f"was trained with {option[2:].replace('-', '_')} = .*, not {value}"):
            main(command(generator, files, tmp_path, 2, "--init", str(first), option, value))


def test_a_bridge_can_be_trained_on_sentences_and_on_text_between_them(
    generator: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    main(command(generator, files, one, 1, "--max-steps", "2", "--pieces", "sentences", "--shard-tokens", "4"))
    assert (load_bridge(one).config.pieces, load_bridge(one).config.shard_tokens) == ("sentences", 4)
    main(command(generator, files, two, 2, "--max-steps", "2", "--init", str(one), "--expanded", "0.5", "--alpha", "0"))
    assert load_bridge(two).config.shard_tokens == 4 and history(two)[-1]["train_kl"] == 0


class Counting:
    """The bundled encoder's shape, and how many texts were embedded."""

    name, dimension = "counting", 4

    def __init__(self, fail_at: int = 10**9) -> None:
        self.count, self.fail_at = 0, fail_at

    def embed(self, texts: list[str]) -> np.ndarray:
        self.count += len(texts)
        if self.count > self.fail_at:
            raise RuntimeError("power cut")
        rows = [np.random.default_rng(list(text.encode())).standard_normal(4) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def test_vectors_are_made_once_and_go_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK", 10)
    texts = [f"text number {number % 25}" for number in range(50)]
    with pytest.raises(RuntimeError, match="power cut"):
        embedded_texts(texts, Counting(fail_at=15), tmp_path, shard_tokens=180)
    second = Counting()
    found = embedded_texts(texts, second, tmp_path, shard_tokens=180)
    assert second.count == 15
    assert len(found) == 50 and np.array_equal(found[3].vectors, Counting().embed([texts[3]]))
    third = Counting()
    long = " ".join(["word"] * 400)
    found = embedded_texts([long, texts[0]], third, tmp_path, shard_tokens=180)
    assert [len(each.vectors) for each in found] == [len(each.offsets) for each in found] == [3, 1]
    assert third.count == 3
    with pytest.raises(InputError, match=r"180 tokens of a text \(tokens\), this run needs one for 90"):
        embedded_texts(texts, third, tmp_path, shard_tokens=90)
    third.name = "other"
    with pytest.raises(CheckpointError, match="built with embedder 'counting'"):
        embedded_texts(texts, third, tmp_path, shard_tokens=180)
