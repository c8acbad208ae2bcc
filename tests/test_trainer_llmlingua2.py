"""The LLMLingua-2 trainer end to end on a tiny model: it learns, resumes, exports, and what it leaves can be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from fixtures_checkpoints import bert_tokenizer, roberta_tokenizer
from fixtures_trainers import save_bert
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.llmlingua.checkpoint import KeepClassifier, load_token_classifier
from ctxprune.compressors.llmlingua.model import WordModel
from ctxprune.errors import InputError
from ctxprune.models.formats import pair_format, plain_tokenizer
from ctxprune.text import split_words
from ctxprune.trainers.llmlingua2 import export as llmlingua2_export
from ctxprune.trainers.llmlingua2.export import by_word, evaluate, keep_loss, kept_shares, new_word_pruner
from ctxprune.trainers.llmlingua2.items import Forced, WordItem, collate_words, encode_targets
from ctxprune.trainers.llmlingua2.targets import WordTargets, write_targets
from ctxprune.trainers.llmlingua2.train import main
from ctxprune.trainers.shared.loop import IGNORE

#: Words worth keeping in the training texts.
WANTED = {"mars", "red", "cheese", "fear"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "targets.jsonl"
    rng = np.random.default_rng(0)
    words = ["the", "moon", "orbits", "mars", "a", "planet", "is", "red", "of", "cheese", "two", "and", "fear"]
    texts = [" ".join(rng.choice(words, 14)) for _ in range(40)]
    write_targets(path, [labelled(text) for text in texts], teacher="us")
    return path


def labelled(text: str) -> WordTargets:
    words = [text[word.start : word.end] for word in split_words(text)]
    return WordTargets(text, tuple(float(word in WANTED) for word in words))


def command(base: Path, targets: Path, out: Path, *more: str) -> list[str]:
    return [
        "--base", str(base), "--data", f"{targets}:32", "--validation", str(targets), "--out", str(out), "--cpu",
        "--precision", "no", "--batch-size", "8", "--lr", "5e-3", "--evaluate-every", "8", "--max-length", "64", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(base, targets, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    main(command(base, targets, folder / "run", "--epochs", "6", "--export", str(folder / "tiny")))
    return folder / "run", folder / "tiny"


def test_training_learns_which_words_to_keep(trained) -> None:
    history = json.loads((trained[0] / "history.json").read_text())
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["auc"] > 0.95
    assert history[-1]["kept_at_0.5"] > 0.95


def test_the_checkpoint_is_a_stock_one_and_the_export_agrees_with_it(trained) -> None:
    run, export = trained
    checkpoint, exported = WordModel.from_checkpoint(str(run), device="cpu"), WordModel.from_export(export)
    text = "two moons and the red planet of fear"
    [left], [right] = checkpoint.read([text]), exported.read([text])
    assert left.offsets.tolist() == right.offsets.tolist()
    np.testing.assert_allclose(left.keep, right.keep, atol=0.1)
    by_token = {text[start:end]: score for (start, end), score in zip(right.offsets, right.keep, strict=True)}
    assert min(by_token["red"], by_token["fear"]) > 0.5 > max(by_token["the"], by_token["of"])


def test_the_export_says_what_it_is(trained) -> None:
    _, export = trained
    settings = json.loads((export / "tokenclass.json").read_text())
    assert (settings["format"], settings["kind"], settings["name"]) == (1, "llmlingua2", "tiny")
    assert settings["max_length"] == 128
    figures = json.loads((export / "parity.json").read_text())
    assert figures["threshold"] == settings["default_threshold"]
    assert 0 <= figures["crossing"] <= 0.2
    assert figures["outputs"]["keep"]["correlation"] > 0.98
    card = (export / "README.md").read_text()
    assert "python -m ctxprune.trainers.llmlingua2.train --base" in card
    assert str(figures["tokens"]) in card


def test_an_export_can_be_made_again_alone(trained, targets, tmp_path, capsys) -> None:
    llmlingua2_export.main(
        ["--checkpoint", str(trained[0]), "--validation", str(targets), "--out", str(tmp_path / "again")]
    )
    figures = json.loads(capsys.readouterr().out)
    assert figures["validation"]["auc"] > 0.95
    assert (tmp_path / "again" / "model.onnx").stat().st_size == figures["parity"]["file_bytes"]
    few = tmp_path / "few.jsonl"
    write_targets(few, [labelled("the moon")] * 7, teacher="us")
    with pytest.raises(InputError, match="at least 8 validation texts, got 7"):
        llmlingua2_export.main(["--checkpoint", str(trained[0]), "--validation", str(few), "--out", str(tmp_path)])


def test_a_stopped_run_goes_on_where_it_stood(base, targets, tmp_path) -> None:
    short = ["--epochs", "2", "--evaluate-every", "4"]
    stopped = tmp_path / "stopped"
    main(command(base, targets, stopped, *short, "--max-steps", "4"))
    state = torch.load(stopped / "training.pt", weights_only=True)
    assert state["step"] == 4
    main(command(base, targets, stopped, *short))
    assert torch.load(stopped / "training.pt", weights_only=True)["step"] == 8
    repeated = (stopped / "model.safetensors").read_bytes()
    main(command(base, targets, stopped, *short))
    assert (stopped / "model.safetensors").read_bytes() == repeated
    assert load_token_classifier(stopped).module.model.config.num_labels == 2


def test_no_texts_is_a_clear_error(base, tmp_path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match="hold no texts"):
        main(command(base, tmp_path / "none.jsonl", tmp_path / "run"))


@pytest.mark.parametrize("make", [bert_tokenizer, roberta_tokenizer])
def test_targets_fall_on_all_tokens_of_their_words(make) -> None:
    tokenizer = plain_tokenizer(make())
    text = "The moons, and fear!"
    made = encode_targets(
        [WordTargets(text, (0.0, 0.75, 0.0, 1.0))], tokenizer, pair_format(tokenizer, type_ids=False), max_length=64
    )
    [item] = made
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    wanted = [{0: 0.0, 4: 0.75, 11: 0.0, 15: 1.0}[max(s for s in (0, 4, 11, 15) if s < end)] for _, end in offsets]
    assert item.keep[1:-1].tolist() == wanted
    assert item.keep[[0, -1]].tolist() == [IGNORE, IGNORE]
    assert item.words[[0, -1]].tolist() == [-1, -1]


@given(st.integers(1, 120), st.integers(8, 40))
def test_windows_show_every_token_with_its_label(words, max_length) -> None:
    tokenizer = plain_tokenizer(bert_tokenizer())
    text = " ".join(["moon"] * words)
    labels = tuple(place / words for place in range(words))
    made = encode_targets(
        [WordTargets(text, labels)], tokenizer, pair_format(tokenizer, type_ids=False), max_length=max_length
    )
    assert all(len(item.ids) <= max_length for item in made)
    seen = {int(word) for item in made for word in item.words if word >= 0}
    assert seen == set(range(words))
    for item in made:
        inside = item.words >= 0
        np.testing.assert_allclose(item.keep[inside], np.array(labels, dtype=np.float32)[item.words[inside]])


def test_forced_and_unknown_words_have_no_label() -> None:
    tokenizer = plain_tokenizer(bert_tokenizer())
    text = "is mars red? 4 moons two"
    options = {"layout": pair_format(tokenizer, type_ids=False), "max_length": 32}
    texts = [WordTargets(text, (1.0, None, 1.0, 1.0, 1.0, 1.0))]
    [item] = encode_targets(texts, tokenizer, forced=Forced(tokens=("?", "two"), digits=True), **options)
    assert set(item.words[item.keep != IGNORE]) == {0, 4}
    [item] = encode_targets(texts, tokenizer, **options)
    assert set(item.words[item.keep != IGNORE]) == {0, 2, 3, 4, 5}
    assert encode_targets([WordTargets(" ", ())], tokenizer, **options) == []


def item(keep: list[float], words: list[int] | None = None) -> WordItem:
    labels = np.array(keep, dtype=np.float32)
    return WordItem(np.arange(len(keep)), labels, np.array(words if words else range(len(keep))))


def test_loss_is_the_mean_cross_entropy_of_known_tokens() -> None:
    batch = collate_words([item([0.0, 1.0, IGNORE]), item([0.25])], 0, "cpu")
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    logits = torch.tensor([[1.0, -2.0, 9.0], [0.5, 9.0, 9.0]])
    p = 1 / (1 + np.exp(-np.array([1.0, -2.0, 0.5])))
    y = np.array([0.0, 1.0, 0.25])
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(keep_loss(logits, batch["keep"])) == pytest.approx(expected, abs=1e-6)
    weighted = -(3 * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(keep_loss(logits, batch["keep"], positive_weight=3)) == pytest.approx(weighted, abs=1e-6)
    assert float(keep_loss(logits, torch.full_like(logits, IGNORE))) == 0


def test_word_scores_are_means_of_their_tokens() -> None:
    scores, wanted = by_word(item([IGNORE, 1, 1, 0, IGNORE], [-1, 4, 4, 5, -1]), np.array([9, 0.2, 0.4, 0.6, 9]))
    assert scores.tolist() == pytest.approx([0.3, 0.6])
    assert wanted.tolist() == [1, 0]


def test_kept_shares_of_words_and_runs() -> None:
    scores = np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.3])
    wanted = np.array([True, True, False, False, True, True])
    found = kept_shares(scores, wanted)
    assert found["kept_at_0.5"] == [1, 1, 0, 0]
    assert found["runs_at_0.5"] == [1, 0]
    assert found["threshold_at_0.5"] == [0.7]
    assert kept_shares(np.zeros(0), np.zeros(0, dtype=bool)) == {}


def test_evaluation_does_not_depend_on_the_batch(base) -> None:
    pruner = new_word_pruner(base)
    module, tokenizer = KeepClassifier(pruner.model), pruner.tokenizer
    texts = [labelled("the red planet of fear"), labelled("mars"), labelled("two moons and cheese and mars")]
    items = encode_targets(texts, tokenizer, pruner.layout, max_length=32)
    found = [evaluate(module, items, pad_id=0, accelerator=Accelerator(cpu=True), size=size) for size in (1, 3)]
    for name in ("auc", "kept_at_0.5", "runs_at_0.33", "threshold_at_0.5"):
        assert found[0][name] == pytest.approx(found[1][name], abs=1e-5)
