"""The Provence trainer end to end on a tiny model: it learns, resumes, exports, and what it leaves can be loaded."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_trainers import SENTENCES, labelled_question, save_bert

from ctxprune import Context, load
from ctxprune.compressors.provence.model import load_pruner, new_pruner
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.errors import CheckpointError, InputError
from ctxprune.trainers.provence.fusion import main as fit_head
from ctxprune.trainers.provence.items import Item, collate, encode
from ctxprune.trainers.provence.losses import losses
from ctxprune.trainers.provence.pairs import Pair
from ctxprune.trainers.provence.train import main
from ctxprune.trainers.provence.unexport import read_back
from ctxprune.trainers.shared.corpora import Source, held_out
from ctxprune.trainers.shared.loop import IGNORE, auc, batches


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each question asks for one word; the sentence that holds it is relevant."""
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rng = np.random.default_rng(0)
    rows = [labelled_question(number, rng.permutation(len(SENTENCES))) for number in range(24)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def command(base: Path, questions: Path, out: Path, *more: str) -> list[str]:
    return [
        "--base", str(base), "--data", f"{questions}:20:2", "--validation", str(questions), "--out", str(out), "--cpu",
        "--precision", "no", "--batch-tokens", "320", "--per-passage", "0", "--lr", "3e-3", "--evaluate-every", "6",
        "--max-length", "96", *more,
    ]  # fmt: skip


def test_training_lowers_the_loss_and_leaves_a_loadable_export(base, questions, tmp_path, capsys) -> None:
    out, export = tmp_path / "run", tmp_path / "tiny"
    main(command(base, questions, out, "--epochs", "6", "--export", str(export)))
    history = json.loads((out / "history.json").read_text())
    assert history[-1]["keep_loss"] < history[0]["keep_loss"]
    assert load_pruner(out).module.answer_head is not None
    card = (export / "README.md").read_text()
    assert "questions.jsonl" in card
    assert str(json.loads((export / "parity.json").read_text())["sequences"]) in card
    compressor = load("provence", model=str(export), threshold=0.0)
    [context] = compressor.compress([Context.of("what is red", [" ".join(SENTENCES)])])
    assert context.extracts[0].text == " ".join(SENTENCES)
    assert "too few to fit a fusion" in capsys.readouterr().out
    again, trained = read_back(export, str(base)).module, load_pruner(out).module
    ids = torch.tensor([[5, 9, 7, 11, 6]])
    with torch.inference_mode():
        outputs, expected = (module(ids, torch.ones_like(ids), torch.zeros_like(ids)) for module in (again, trained))
    for name, values in expected.items():
        torch.testing.assert_close(outputs[name], values, atol=0.1, rtol=0.1)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_back(out, str(base))


def test_a_stopped_run_goes_on_where_it_stood(base, questions, tmp_path) -> None:
    main(command(base, questions, tmp_path / "whole", "--max-steps", "2", "--evaluate-every", "1"))
    stopped = tmp_path / "stopped"
    main(command(base, questions, stopped, "--max-steps", "2", "--evaluate-every", "1"))
    state = torch.load(stopped / "training.pt", weights_only=True)
    assert state["step"] == 2
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if path.suffix == ".safetensors"}
    main(command(base, questions, stopped, "--max-steps", "2", "--evaluate-every", "1"))
    assert {name: (stopped / name).read_bytes() for name in before} == before
    for name, content in before.items():
        assert (tmp_path / "whole" / name).read_bytes() == content


def test_labels_fall_on_the_tokens_of_their_characters(base) -> None:
    pruner = new_pruner(base, answer_head=True)
    pair = Pair("what is mars", "a planet is red. the moon", True, ((0, 16),), ((12, 15),), title="moons")
    [item] = encode([pair], pruner, max_length=64)
    kept = [pruner.tokenizer.id_to_token(i) for i in item.ids[item.keep == 1]]
    assert kept == ["a", "planet", "is", "red", "."]
    assert [pruner.tokenizer.id_to_token(i) for i in item.ids[item.answer == 1]] == ["red"]
    assert [pruner.tokenizer.id_to_token(i) for i in item.ids[item.keep == 0]] == ["the", "moon"]
    lead = len(item.ids) - 7 - 1
    assert (item.keep[:lead] == IGNORE).all()
    assert item.keep[-1] == IGNORE


def item(length: int, rank: float = 1.0) -> Item:
    labels = np.zeros(length, dtype=np.int64)
    return Item(np.arange(length), labels, labels, labels, labels, rank)


def test_batches_hold_every_item_once_and_lengths_alike() -> None:
    import random

    items = [item(length) for length in range(1, 301)]
    made = batches(items, 10, random.Random(0))
    assert sorted(len(one.ids) for batch in made for one in batch) == list(range(1, 301))
    assert max(len(batch[-1].ids) - len(batch[0].ids) for batch in made) < 10


def test_losses_are_the_plain_means_and_ignore_padding() -> None:
    first = item(3)
    first.keep[1] = 1
    batch = collate([replace(first, answer=np.zeros(3, dtype=np.int64)), item(5, 0.0)], 0, "cpu")
    outputs = {
        "token_logits": torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)),
        "rank_logits": torch.tensor([[2.0], [-1.0]]),
        "answer_logits": torch.zeros(2, 5),
    }
    found = losses(outputs, batch)
    chosen = [(0, 0, 0), (0, 1, 1), (0, 2, 0), *((1, place, 0) for place in range(5))]
    logs = outputs["token_logits"].log_softmax(-1)
    assert float(found["keep"]) == pytest.approx(
        -np.mean([float(logs[r, c, label]) for r, c, label in chosen]), abs=1e-6
    )
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert float(found["rank"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["answer"]) == pytest.approx(np.log(2), abs=1e-6)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([1, 1])))


def test_sources_name_file_limit_and_repeats() -> None:
    assert Source.parse("a.jsonl") == Source("a.jsonl", None, 1)
    assert Source.parse("a.jsonl:5") == Source("a.jsonl", 5, 1)
    assert Source.parse("a.jsonl::3") == Source("a.jsonl", None, 3)
    with pytest.raises(InputError, match="whole numbers"):
        Source.parse("a.jsonl:many")


def test_held_out_questions_are_the_same_share_every_time(questions) -> None:
    from ctxprune.data.questions import read_jsonl

    everything = list(read_jsonl(questions))
    once = [held_out(question, 0.5) for question in everything]
    assert once == [held_out(question, 0.5) for question in everything]
    assert 0 < sum(once) < len(once)
    assert not any(held_out(question, 0.0) for question in everything)


def test_the_fit_uses_all_questions_of_files_that_the_encoder_never_saw(questions, tmp_path, capsys) -> None:
    folder = tmp_path / "export"
    shutil.copytree(files("ctxprune.bundled") / "provence-mini", folder)
    before = (folder / "pruner.json").read_bytes()
    arguments = ["--model", str(folder), "--data", str(questions), "--hold-out", "0"]
    fit_head([*arguments, "--unseen", f"{questions}:5:2"])
    assert "10 held-out contexts are too few" in capsys.readouterr().out  # five questions, in two variations each
    assert (folder / "pruner.json").read_bytes() == before


def test_points_and_reference_are_fitted_by_the_head_that_is_there(questions, tmp_path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(files("ctxprune.bundled") / "provence-mini", folder)
    before = json.loads((folder / "pruner.json").read_text())
    fit_head(["--model", str(folder), "--data", f"{questions}::6", "--hold-out", "1", "--keep-head"])
    after = json.loads((folder / "pruner.json").read_text())
    assert after["reference"] != before["reference"] and after["operating_points"] != before["operating_points"]
    assert after["fusion"] == before["fusion"] and after["max_length"] == before["max_length"]
    assert sum(row["contexts"] for row in after["reference"]) > 100
    points = PrunerModel.from_export(folder).operating_points
    assert points.threshold("safe", 99) <= points.threshold("balanced", 99) <= points.threshold("aggressive", 99)
    assert after["default_threshold"] == after["operating_points"]["balanced"][-1][1]


def test_points_of_small_contexts_alone_can_be_fitted_on_forms_of_their_own(questions, tmp_path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(files("ctxprune.bundled") / "provence-mini", folder)
    before = json.loads((folder / "pruner.json").read_text())
    arguments = ["--model", str(folder), "--data", f"{questions}::6", "--hold-out", "1"]
    arguments += ["--forms", "sentence", "passage"]
    fit_head([*arguments, "--keep-head", "--up-to", "12"])
    after = json.loads((folder / "pruner.json").read_text())
    for name, steps in before["operating_points"].items():
        assert [step[0] for step in after["operating_points"][name]] == [step[0] for step in steps]
        assert after["operating_points"][name][2:] == steps[2:], name
    assert after["operating_points"]["balanced"][:2] != before["operating_points"]["balanced"][:2]
    assert after["reference"][2:] == before["reference"][2:] and after["reference"][:2] != before["reference"][:2]
    assert (after["floor"], after["default_threshold"]) == (before["floor"], before["default_threshold"])
    with pytest.raises(InputError, match="pass --keep-head too"):
        fit_head([*arguments, "--up-to", "12"])
