"""A stronger pruner's probabilities as targets: by characters, mixed with labels, found again, gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_trainers import SENTENCES, labelled_question, save_bert

from ctxprune.compressors.provence.model import new_pruner
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.errors import InputError
from ctxprune.trainers.provence import distil
from ctxprune.trainers.provence.distil import teach
from ctxprune.trainers.provence.items import collate, encode
from ctxprune.trainers.provence.losses import losses
from ctxprune.trainers.provence.pairs import Pair
from ctxprune.trainers.provence.taught import Taught, key, mixed, read_lessons
from ctxprune.trainers.provence.train import main

NOTHING = np.full(2, np.nan, dtype=np.float32)


def test_probabilities_go_from_tokens_to_tokens_by_characters():
    taught = Taught(np.array([[0, 4], [5, 9], [9, 10]]), np.array([0.2, 0.8, 0.4], dtype=np.float32), NOTHING, 0.5)
    finer_and_coarser = np.array([[0, 2], [2, 4], [4, 5], [0, 9], [7, 10], [20, 22]])
    found = taught.onto(finer_and_coarser, taught.keep)
    np.testing.assert_allclose(found, [0.2, 0.2, np.nan, 0.5, (2 * 0.8 + 0.4) / 3, np.nan], atol=1e-6)


def test_tokens_without_a_probability_have_no_part_in_a_mean():
    taught = Taught(np.array([[0, 2], [2, 4]]), np.array([np.nan, 0.6], dtype=np.float32), NOTHING, 0.5)
    np.testing.assert_allclose(taught.onto(np.array([[0, 4], [0, 2]]), taught.keep), [0.6, np.nan], atol=1e-6)


def test_a_passage_that_the_teacher_saw_no_token_of_teaches_nothing():
    taught = Taught(np.zeros((0, 2), dtype=np.int64), NOTHING[:0], NOTHING[:0], 0.1)
    assert np.isnan(taught.onto(np.array([[0, 3]]), taught.keep)).all()
    assert taught.onto(np.zeros((0, 2), dtype=np.int64), taught.keep).shape == (0,)


def test_a_target_is_a_mixture_where_both_are_known():
    nan = np.nan
    found = mixed(np.array([1, 0, nan, 1, nan]), np.array([0.5, 0.5, 0.25, nan, nan], dtype=np.float32), 0.4)
    np.testing.assert_allclose(found, [0.8, 0.2, 0.25, 1, nan], atol=1e-6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def teacher() -> PrunerModel:
    return PrunerModel.from_export(Path(str(files("ctxprune.bundled") / "provence-mini")))


LABELLED = Pair("what is mars", "a planet is red. the moon", True, ((0, 16),), ((12, 15),), title="moons")
UNLABELLED = Pair("where is mars", "the moon is blue.", False, None, None)


def lesson(probability: float, text: str) -> Taught:
    offsets = np.array([[0, len(text)]])
    return Taught(offsets, np.array([probability], np.float32), np.array([probability / 2], np.float32), probability)


def test_targets_of_items_are_mixed_and_labels_stay(base):
    lessons = {key(one.question, one.title, one.text): lesson(0.6, one.text) for one in (LABELLED, UNLABELLED)}
    first, second = encode([LABELLED, UNLABELLED], new_pruner(base, answer_head=True), max_length=64, lessons=lessons)
    plain = encode([LABELLED], new_pruner(base, answer_head=True), max_length=64)[0]
    np.testing.assert_array_equal(first.keep, plain.keep)
    aims = first.aims()
    np.testing.assert_allclose(aims.keep[first.keep == 1], 0.8, atol=1e-6)
    np.testing.assert_allclose(aims.keep[first.keep == 0], 0.3, atol=1e-6)
    assert np.isnan(aims.keep[first.keep < 0]).all()
    np.testing.assert_allclose(aims.answer[first.answer == 1], 0.65, atol=1e-6)
    assert aims.rank == pytest.approx(0.8)
    unlabelled = second.aims()
    assert (second.keep < 0).all()
    np.testing.assert_allclose(unlabelled.keep[~np.isnan(unlabelled.keep)], 0.6, atol=1e-6)
    assert unlabelled.rank == pytest.approx(0.3)


def test_an_unread_pair_keeps_its_labels(base):
    [item] = encode([LABELLED], new_pruner(base), max_length=64, lessons={b"another": lesson(0.5, "a")})
    assert item.targets is None
    np.testing.assert_array_equal(item.aims().keep[item.keep >= 0], item.keep[item.keep >= 0])


def test_the_loss_is_least_where_the_model_says_what_the_teacher_says(base):
    lessons = {key(UNLABELLED.question, UNLABELLED.title, UNLABELLED.text): lesson(0.7, UNLABELLED.text)}
    [item] = encode([UNLABELLED], new_pruner(base), max_length=64, lessons=lessons, weight=1.0)
    batch = collate([item], 0, "cpu")

    def loss(probability: float) -> float:
        logit = float(np.log(probability / (1 - probability)))
        token_logits = torch.zeros(1, len(item.ids), 2)
        token_logits[..., 1] = logit
        return float(losses({"token_logits": token_logits, "rank_logits": torch.tensor([[0.0]])}, batch)["keep"])

    assert loss(0.7) < min(loss(0.5), loss(0.85))


def test_a_labelling_goes_on_where_it_stopped_and_is_read_back(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "PAIRS_A_FILE", 2)
    pairs = [Pair("what is red", text, True, None, None) for text in (*SENTENCES[:3], SENTENCES[0])]
    assert teach(pairs[:2], teacher, tmp_path) == 2
    assert teach(pairs, teacher, tmp_path) == 1  # the third; the fourth is the first again
    assert teach(pairs, teacher, tmp_path) == 0
    lessons = read_lessons(tmp_path)
    assert len(lessons) == 3
    [reading] = teacher.read([distil.Passage("what is red", "", SENTENCES[2])])
    found = lessons[key("what is red", "", SENTENCES[2])]
    np.testing.assert_array_equal(found.offsets, reading.offsets)
    np.testing.assert_allclose(found.keep, 1 / (1 + np.exp(-reading.keep)), atol=2e-3)
    assert found.rank == pytest.approx(1 / (1 + np.exp(-reading.rank)), abs=1e-3)


def test_what_was_damaged_is_labelled_again_beside_the_rest(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "PAIRS_A_FILE", 1)
    pairs = [Pair("what is red", text, True, None, None) for text in SENTENCES[:3]]
    teach(pairs, teacher, tmp_path)
    (tmp_path / "00000.npz").unlink()
    assert teach(pairs, teacher, tmp_path) == 1
    assert len(read_lessons(tmp_path)) == 3


def test_another_teacher_does_not_go_on_with_the_labels_of_one(teacher, tmp_path):
    pairs = [Pair("what is red", SENTENCES[0], True, None, None)]
    teach(pairs, teacher, tmp_path)
    with pytest.raises(InputError, match="labels of the teacher 'provence-mini', not 'another'"):
        teach(pairs, replace(teacher, name="another"), tmp_path)


def test_a_lone_surrogate_is_as_good_a_text_as_any(base):
    pair = replace(LABELLED, text="a planet is red \ud800. the moon")
    lessons = {key(pair.question, pair.title, pair.text): lesson(0.6, pair.text)}
    [item] = encode([pair], new_pruner(base), max_length=64, lessons=lessons)
    assert item.targets is not None


@pytest.mark.parametrize("damage", [b"", b"PK", b"\xff" * 8])
def test_a_file_damaged_anywhere_is_named(teacher, tmp_path, damage):
    teach([Pair("what is red", text, True, None, None) for text in SENTENCES], teacher, tmp_path)
    whole = (tmp_path / "00000.npz").read_bytes()
    for place in range(0, len(whole), max(len(whole) // 60, 1)):
        (tmp_path / "00000.npz").write_bytes(whole[:place] + damage + (whole[place + len(damage) :] if damage else b""))
        try:
            read_lessons(tmp_path)  # a byte of a number may be another one
        except InputError as error:
            assert "00000.npz is damaged" in str(error)


@pytest.mark.parametrize("weight", ["1.5", "-0.1", "nan", "half"])
def test_a_weight_that_is_no_share_is_refused(weight, capsys):
    with pytest.raises(SystemExit):
        main(["--base", "any", "--data", "any", "--out", "any", "--teacher-weight", weight])
    assert f"expected a number from 0 to 1, got '{weight}'" in capsys.readouterr().err


def test_a_folder_without_labels_or_with_a_damaged_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no teacher's labels"):
        read_lessons(tmp_path)
    (tmp_path / "00000.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(InputError, match=r"00000\.npz is damaged"):
        read_lessons(tmp_path)


def test_the_command_labels_and_the_trainer_learns_from_it(base, tmp_path, capsys):
    path = tmp_path / "questions.jsonl"
    rng = np.random.default_rng(0)
    rows = [labelled_question(number, rng.permutation(len(SENTENCES))) for number in range(8)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    common = ["--data", str(path), "--per-passage", "0", "--seed", "3"]
    bundled = str(files("ctxprune.bundled") / "provence-mini")
    distil.main(["--teacher", bundled, *common, "--out", str(tmp_path / "taught"), "--threads", "1"])
    for name, more in (("alone", []), ("taught", ["--taught", str(tmp_path / "taught"), "--teacher-weight", "0.9"])):
        short = ["--max-steps", "2", "--batch-tokens", "320", "--max-length", "96", "--cpu", "--precision", "no"]
        main(["--base", str(base), *common, "--out", str(tmp_path / name), "--lr", "3e-3", *short, *more])
    told = capsys.readouterr().out
    read, of = next(line for line in told.splitlines() if line.startswith("the teacher has read")).split()[4::2][:2]
    assert read == of != "0"
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "taught")]
    assert weights[0] != weights[1]
