"""Calibration end to end: the profile against plain compression, the file and its refusals, and the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from fixtures_scoring import LetterCompressor
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxprune
from benchmarks import risk
from ctxprune.calibration import Calibration, identity
from ctxprune.cli import main
from ctxprune.compressors import load
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.eval.judge import Reference, context_of
from ctxprune.eval.risk import calibrate as command
from ctxprune.eval.risk.calibrate import THRESHOLDS, Profile, calibrate, describe, profile
from ctxprune.select import Policy
from ctxprune.text import split_sentences
from ctxprune.tokens import load_counter
from ctxprune.types import Document

WORDS = load_counter("words")
NOUNS = ("cat", "dog", "sea", "moon", "harbour", "tree", "banana", "stone", "salad", "ring")


def question(rng, number):
    """Three sentences; the one with the answer has as many words with an "a" as chance will have it."""
    texts = [" ".join(rng.choice(NOUNS, size=4)).capitalize() + "." for _ in range(3)]
    place, answer = int(rng.integers(3)), f"z{number}"
    texts[place] = f"{texts[place][:-1]} {answer}."
    text = " ".join(texts)
    start = text.index(answer)
    first = sum(len(sentence) + 1 for sentence in texts[:place])
    document = LabelledDocument(
        Document(text),
        is_gold=True,
        answer_spans=((start, start + len(answer)),),
        relevant=((first, first + len(texts[place])),),
    )
    other = LabelledDocument(Document("A salad at sea. Nothing."), relevant=())
    return Question(f"q{number}", f"What is z{number}?", (answer,), documents=(document, other))


def questions(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return [question(rng, number) for number in range(n)]


def letters(**options):
    return LetterCompressor(split=split_sentences, counter=WORDS, **options)


def valid(**changes):
    values = {
        "compressor": "letter",
        "model": {},
        "threshold": 0.25,
        "loss": "answer",
        "risk": 0.1,
        "delta": None,
        "method": "conformal risk control",
        "n": 60,
        "empirical_risk": 0.05,
        "bound": 0.07,
        "removed": 0.5,
        "data_hash": "abc",
        "policy": Policy(),
        "created_with": "0.1.0",
    }
    return Calibration(**values | changes)


# --- the profile ------------------------------------------------------------------------------------------------------


def slow(asked, compressor, loss, **setting):
    """Loss and removal by compressing once more with the setting, as it will run."""
    (pruned,) = compressor.compress([context_of(asked)], **setting)
    judged = Reference.of(asked, split=split_sentences, counter=WORDS).judge(pruned, counter=WORDS)
    return 1 - (judged.answer_kept if loss == "answer" else judged.recall), judged.removed


POLICIES = [
    Policy(),
    Policy(on_empty="keep_top1"),
    Policy(on_empty="original"),
    Policy(min_keep=2),
    Policy(protect=("salad", r"z\d+")),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("loss", ["answer", "sentences"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_losses_at_every_threshold_are_those_of_compress(policy, loss, seed):
    asked = questions(2, seed)
    grid = (0.0, 0.1, 0.2, 0.25, 0.4, 0.5, 0.75, 0.8, 1.0)
    measured = profile(asked, letters(policy=policy), loss=loss, grid=grid)
    for row, one in enumerate(asked):
        expected = [slow(one, letters(policy=policy), loss, threshold=value) for value in grid]
        assert measured.losses[row].tolist() == [lost for lost, _ in expected]
        assert measured.removed[row].tolist() == [gone for _, gone in expected]


@pytest.mark.parametrize("fill", ["skip", "stop"])
def test_losses_at_every_budget_are_those_of_compress(fill):
    asked = questions(4)
    compressor = letters(policy=Policy(fill=fill))
    measured = profile(asked, compressor, by="budget", grid=(3, 30, 8, 5))
    assert measured.values == (30, 8, 5, 3)
    for row, one in enumerate(asked):
        expected = [slow(one, compressor, "answer", budget=int(value)) for value in measured.values]
        assert list(zip(measured.losses[row], measured.removed[row], strict=True)) == expected


def test_each_question_is_scored_once():
    scored = []

    class Counting(LetterCompressor):
        def score(self, contexts):
            scored.extend(context.id for context in contexts)
            return super().score(contexts)

    profile(questions(70), Counting(split=split_sentences, counter=WORDS), progress=scored.append)
    assert [name for name in scored if isinstance(name, str)] == [f"q{number}" for number in range(70)]
    assert [done for done in scored if isinstance(done, int)] == [32, 64, 70]


def test_questions_that_cannot_lose_anything_are_left_out():
    answered = questions(2)
    nowhere = replace(answered[0], documents=(LabelledDocument(Document("Nothing here."), is_gold=True),))
    asked = [*answered, replace(answered[0], answerable=False), nowhere]
    measured = profile(asked, letters())
    assert (len(measured.losses), measured.left_out) == (2, 2)
    assert profile(asked[:3], letters()).data_hash != measured.data_hash
    with pytest.raises(InputError, match="none of 1 questions can lose"):
        profile([nowhere], letters(), loss="sentences")


@pytest.mark.parametrize(
    ("compressor", "by", "grid", "message"),
    [
        (letters(threshold=0.3), "threshold", None, "threshold=0.3"),
        (letters(budget=9), "budget", None, "budget=9"),
        (load("lead"), "threshold", None, "lead only ranks text"),
        (ctxprune.Pipeline([]), "threshold", None, "does not score"),
        (letters(), "words", None, "by must be"),
        (letters(), "threshold", (), "grid"),
        (letters(), "threshold", (0.1, math.nan), "grid"),
        (letters(), "budget", (0, 10), "grid"),
        (letters(), "budget", (10.5,), "grid"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(compressor, by, grid, message):
    with pytest.raises(InputError, match=message):
        profile(questions(1), compressor, by=by, grid=grid)


def test_the_grid_rises_from_keeping_all_to_keeping_none():
    assert THRESHOLDS[0] == 0.0
    assert THRESHOLDS[-1] == 1.0
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS))


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["threshold", "budget"])
def test_the_chosen_setting_keeps_its_promise_on_the_questions_it_was_chosen_on(by):
    asked = questions()
    chosen = calibrate(asked, letters(), risk=0.4, by=by, grid=range(1, 40) if by == "budget" else None)
    outcomes = [slow(one, letters(), "answer", **chosen.setting) for one in asked]
    assert chosen.empirical_risk == pytest.approx(np.mean([lost for lost, _ in outcomes]))
    assert chosen.removed == pytest.approx(np.mean([gone for _, gone in outcomes]))
    assert chosen.empirical_risk <= chosen.bound <= 0.4
    assert chosen.removed > 0
    assert (chosen.n, chosen.tokenizer) == (60, "words" if by == "budget" else None)


def test_a_loss_that_falls_again_is_tested_and_said_to_be():
    chosen = calibrate(questions(), letters(policy=Policy(on_empty="original")), risk=0.2)
    assert (chosen.method, chosen.delta) == ("learn then test", 0.1)
    assert "probability at least 0.9" in chosen.guarantee


def test_too_few_questions_name_the_number_it_takes():
    with pytest.raises(InputError, match=r"10 usable questions .* at least 19"):
        calibrate(questions(10), letters(), risk=0.05)


def test_the_description_names_choice_risk_bound_and_assumption():
    text = describe(calibrate(questions(), letters(), risk=0.2, delta=0.2))
    for part in ("threshold=", "removes", "60 questions", "upper confidence bound", "exchangeable", "0.8", "0.2"):
        assert part in text


# --- the file ---------------------------------------------------------------------------------------------------------

FINITE = st.floats(0.001, 0.999)


@given(threshold=st.floats(0, 1), risk=FINITE, delta=st.none() | FINITE, protect=st.lists(st.just(r"\d")))
def test_rows_come_back_as_they_were(threshold, risk, delta, protect):
    made = valid(threshold=threshold, risk=risk, delta=delta, policy=Policy(protect=tuple(protect), min_keep=1))
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made


def test_the_file_holds_one_setting_and_comes_back(tmp_path):
    made = valid(threshold=None, budget=200, tokenizer="words", model={"name": "m", "hash": "1"})
    made.write(tmp_path / "mine.json")
    row = json.loads((tmp_path / "mine.json").read_text())
    assert (row["format"], row["budget"], row["delta"], "threshold" in row) == (1, 200, None, False)
    assert Calibration.read(tmp_path / "mine.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2 is unknown"),
        ({"format": None}, "format None is unknown"),
        ({"risk": math.nan}, "risk must be a finite number"),
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\], got 1.5"),
        ({"threshold": "0.1"}, "threshold must be float"),
        ({"threshold": True}, "threshold must be float"),
        ({"budget": 100}, "exactly one of"),
        ({"threshold": None}, "exactly one of"),
        ({"threshold": None, "budget": 100}, "needs its tokenizer"),
        ({"threshold": None, "budget": 0, "tokenizer": "words"}, "must be positive"),
        ({"loss": "f1"}, "loss must be one of"),
        ({"method": "guess"}, "method must be one of"),
        ({"delta": 1.0}, "delta must lie"),
        ({"n": 0}, "must be positive"),
        ({"model": "m"}, "model must be"),
        ({"model": {"name": 3}}, "model must"),
        ({"policy": {"on_empty": "drop"}}, "policy must be an object"),
        ({"policy": None}, "policy must be an object"),
        ({"thresold": 0.1}, "unknown fields: thresold"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, changes, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(valid().to_dict() | changes))
    with pytest.raises(InputError, match=message) as caught:
        Calibration.read(path)
    assert "bad.json is no calibration file" in str(caught.value)


def test_missing_fields_and_other_files_are_refused(tmp_path):
    path = tmp_path / "bad.json"
    row = valid().to_dict()
    del row["risk"], row["n"]
    for content, message in [(json.dumps(row), "missing fields: n, risk"), ("[1]", "JSON object"), ("{", "no calib")]:
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            Calibration.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no calibration file"):
        Calibration.read(path)
    with pytest.raises(InputError, match="cannot read the calibration"):
        Calibration.read(tmp_path / "none.json")


# --- load -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provence():
    return load("provence")


def of(compressor, **changes):
    return valid(
        **{"compressor": compressor.name, "model": identity(compressor), "policy": compressor.policy} | changes
    )


def test_load_takes_the_threshold_from_the_file(tmp_path, provence):
    of(provence, threshold=0.9).write(tmp_path / "mine.json")
    loaded = load("provence", calibration=tmp_path / "mine.json")
    texts = ["The lighthouse was built in 1887. Cats sleep for most of the day."]
    contexts = [ctxprune.Context.of("When was the lighthouse built?", texts)]
    assert (loaded.threshold, loaded.budget) == (0.9, None)
    assert loaded.compress(contexts) == provence.compress(contexts, threshold=0.9)
    assert loaded.compress(contexts) != provence.compress(contexts, threshold=0.0)
    assert load("provence", calibration=str(tmp_path / "mine.json"), threshold=None).threshold == 0.9


def test_the_model_is_known_by_name_rounding_and_weights(provence):
    known = identity(provence)
    assert (known["name"], known["rounding"], len(known["hash"])) == ("provence-mini", "fused", 16)
    assert identity(load("rerank-truncate")) == {f"scorer.{field}": value for field, value in known.items()}
    assert identity(load("lead")) == {}
    refitted = replace(provence.model, fusion=replace(provence.model.fusion, bias=0.0))
    assert identity(type(provence)(refitted))["hash"] != known["hash"]


def test_load_takes_the_budget_and_checks_its_tokenizer(tmp_path):
    made = of(load("lead"), threshold=None, budget=50, tokenizer="words")
    assert load("lead", calibration=made, counter=WORDS).budget == 50
    with pytest.raises(InputError, match="the tokenizer was 'words' and is"):
        load("lead", calibration=made)
    with pytest.raises(InputError, match=r"policy.order was 'document' and is 'rank'"):
        load("lead", calibration=made, counter=WORDS, policy=Policy(order="rank"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.2}, "threshold=0.2 beside a calibration"),
        ({"budget": 100}, "budget=100 beside a calibration"),
        ({"rounding": "mean"}, "'rounding': 'fused'.*'rounding': 'mean'"),
        ({"second_look": "none"}, "'second_look': 'named'.* and is (?!.*second_look)"),
        ({"first_stage": 20}, "and is .*'first_stage': '20'"),
        ({"policy": Policy(on_empty="keep_top1")}, "policy.on_empty was 'drop' and is 'keep_top1'"),
        ({"policy": Policy(protect=("x",))}, r"policy.protect was \(\) and is \('x',\)"),
    ],
)
def test_load_refuses_another_setup(provence, options, message):
    with pytest.raises(InputError, match=message):
        load("provence", calibration=of(provence), **options)


def test_load_refuses_another_compressor(provence):
    with pytest.raises(InputError, match="the compressor was 'provence' and is 'bm25-sentences'"):
        load("bm25-sentences", calibration=of(provence))
    with pytest.raises(InputError, match="lead scores are not probabilities"):
        load("lead", calibration=of(load("lead")))


def test_at_a_threshold_the_order_of_documents_may_differ(provence):
    assert load("provence", calibration=of(provence), policy=Policy(order="rank")).threshold == 0.25


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def question_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row_from_question(one)) + "\n" for one in questions(40)))
    return path


def test_calibrate_then_compress(tmp_path, question_file, capsys):
    out = tmp_path / "mine.json"
    arguments = ["--data", question_file, "--out", out, "--compressor", "bm25-sentences", "--by", "budget"]
    assert command.main([*map(str, arguments), "--risk", "0.2"]) == 0
    assert f"written to {out}" in capsys.readouterr().out
    made = Calibration.read(out)
    compress = ["compress", "--batch", str(question_file), "-c", "bm25-sentences", "--calibration", str(out)]
    assert main(compress) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["budget"] for row in rows} == {made.budget}
    assert np.mean([f"z{number}" not in row["text"] for number, row in enumerate(rows)]) == made.empirical_risk
    assert main([*compress, "--budget", "9"]) == 1
    assert "budget=9 beside a calibration" in capsys.readouterr().err


def test_calibrate_takes_every_form_of_file_that_a_run_takes(tmp_path, question_file):
    other = tmp_path / "dpr.json"
    rows = [
        {
            "question": one.text,
            "answers": list(one.answers),
            "ctxs": [{"title": each.document.title, "text": each.document.text} for each in one.documents],
        }
        for one in questions(40)
    ]
    other.write_text(json.dumps(rows))
    chosen = []
    for data in (question_file, other):
        out = tmp_path / f"{data.stem}.calibration.json"
        arguments = ["--data", data, "--out", out, "--compressor", "bm25-sentences", "--by", "budget", "--risk", "0.2"]
        assert command.main([*map(str, arguments)]) == 0
        chosen.append(Calibration.read(out))
    assert (chosen[0].budget, chosen[0].n, chosen[0].removed) == (chosen[1].budget, chosen[1].n, chosen[1].removed)


def test_errors_of_the_commands_are_one_line(tmp_path, question_file, capsys):
    out = tmp_path / "mine.json"
    arguments = ["--data", str(question_file), "--out", str(out), "--compressor", "bm25-sentences", "--by", "budget"]
    assert command.main([*arguments, "--risk", "0.001"]) == 1
    assert "it takes at least 999" in capsys.readouterr().err
    assert not out.exists()
    assert risk.main(["splits", "--data", str(question_file), "--compressor", "lead"]) == 1
    assert "lead only ranks text" in capsys.readouterr().err


def test_the_check_prints_a_row_for_each_risk(question_file, capsys):
    arguments = ["--data", str(question_file), "--compressor", "bm25-sentences", "--by", "budget", "--splits", "5"]
    assert risk.main(["splits", *arguments, "--risk", "0.01", "0.3"]) == 0
    header, _, small, enough = capsys.readouterr().out.splitlines()
    assert "realised loss" in header
    assert "at least 99" in small
    assert enough.startswith("| mine | 0.3 | 20 |")


def test_split_halves_respect_the_risk_on_average():
    rng = np.random.default_rng(0)
    losses = (np.linspace(0, 1, 51)[None, :] > rng.random((120, 1))).astype(float)
    measured = Profile("threshold", tuple(np.linspace(0, 1, 51)), losses, losses, "", 0)
    check = risk.check_splits(measured, risk=0.2, splits=200)
    assert check.n == 60
    assert check.realised.mean > 0.12
    assert check.realised.low <= 0.2
    assert check.methods == ("conformal risk control",)
    sure = risk.check_splits(measured, risk=0.2, delta=0.1, splits=200)
    assert sure.above < check.above
    assert sure.removed < check.removed
