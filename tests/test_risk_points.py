"""What operating points lose: the conformal quantile behind them, and the losses measured on other questions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fixtures_scoring import LetterCompressor
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import risk
from benchmarks.quality.figures import read_figures
from benchmarks.risk import Realised, realised, score_interval
from benchmarks.tables.quality import points_table
from ctxprune.calibration import POINTS, OperatingPoints, allowed_loss
from ctxprune.compressors import load
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.eval.risk.control import crc_bound
from ctxprune.trainers.provence.points import conformal_quantile
from ctxprune.types import Document

#: Sentences of which 0, 1/4, 2/4, 3/4 and all words hold an a.
SENTENCES = [
    "Some went home soon.",
    "Seven gulls had food.",
    "Tall masts stood there.",
    "Small sailors had done.",
    "Sails sway at bay.",
]
STEPS = {"safe": 0.2, "balanced": [[12, 0.45], [None, 0.3]], "aggressive": [[3, 0.9], [None, 0.7]]}


class WithPoints(LetterCompressor):
    operating_points = OperatingPoints.from_dict(STEPS)


def question(name: str, answer: str, *, times: int = 1) -> Question:
    text = " ".join(SENTENCES * times)
    start = text.index(answer)
    document = LabelledDocument(Document(text), True, ((start, start + len(answer)),), None)
    return Question(name, "What?", (answer,), True, (document,))


# --- the quantile -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=120), st.sampled_from([0.005, 0.01, 0.03, 0.07, 0.3]))
def test_of_one_source_it_is_the_threshold_of_conformal_risk_control(scores: list[float], share: float) -> None:
    threshold = conformal_quantile([(score, "one") for score in scores], share)
    grid = sorted(scores)
    losses = np.array([[float(score < value) for value in grid] for score in scores])
    allowed = [value for value, bound in zip(grid, crc_bound(losses), strict=True) if bound <= share + 1e-12]
    assert threshold == max(allowed, default=grid[0])


@pytest.mark.parametrize("share", [0.03, 0.07])
def test_the_next_context_loses_no_more_than_the_share(share: float) -> None:
    rng = np.random.default_rng(5)
    lost = []
    for _ in range(4000):
        drawn = rng.random(61)
        lost.append(drawn[-1] < conformal_quantile([(score, "one") for score in drawn[:-1]], share))
    assert np.mean(lost) <= share + 2.5 * (share / 4000) ** 0.5
    plain = np.floor(share * 60) + 1  # what a quantile without the correction loses: that many of 61 places
    assert np.mean(lost) < plain / 61


def test_too_few_contexts_lose_none_of_them() -> None:
    assert conformal_quantile([(0.4, "one"), (0.2, "one"), (0.9, "two")], 0.01) == 0.2


def test_sources_weigh_as_the_roots_of_their_numbers() -> None:
    small, large = [(0.1, "small")] * 4, [(0.8, "large")] * 100
    # 4 of 104 rows, but a sixth of the weight
    assert conformal_quantile([*small, *large], 0.10) == 0.1
    assert conformal_quantile([*small, *large], 0.20) == 0.8


# --- losses on other questions ----------------------------------------------------------------------------------------


def test_losses_targets_and_thresholds_of_every_point() -> None:
    found = realised([question("a", "masts"), question("b", "masts", times=3)], WithPoints())
    assert list(found) == list(POINTS)
    assert [each.losses for each in found.values()] == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    assert found["balanced"].thresholds == [0.45, 0.3]
    assert found["balanced"].targets == pytest.approx([0.015, 0.03])
    assert found["balanced"].target == pytest.approx(0.0225)
    assert found["aggressive"].is_above and not found["safe"].is_above
    assert found["safe"].removed == pytest.approx([0.2, 0.2]) and found["aggressive"].removed[0] > 0.5


def test_questions_that_can_lose_nothing_are_left_out() -> None:
    without = Question("c", "What?", (), False, (LabelledDocument(Document(" ".join(SENTENCES)), False, (), ()),))
    assert realised([question("a", "masts"), without], WithPoints())["safe"].loss.n == 1
    with pytest.raises(InputError, match="none of 1 questions can lose anything"):
        realised([without], WithPoints())
    with pytest.raises(InputError, match="letter has no operating points"):
        realised([question("a", "masts")], LetterCompressor())


def test_a_set_is_above_its_target_only_where_the_interval_is() -> None:
    few, many = ([1.0] * lost + [0.0] * (n - lost) for lost, n in ((1, 20), (100, 1000)))
    assert not Realised(targets=[0.01] * 20, losses=few).is_above
    assert Realised(targets=[0.01] * 1000, losses=many).is_above


@given(st.integers(1, 2000), st.floats(0, 1))
def test_the_interval_holds_the_mean_and_has_a_width(n: int, mean: float) -> None:
    found = score_interval(mean, n)
    assert 0 <= found.low <= mean <= found.high <= 1
    assert found.high > found.low


def test_the_interval_by_hand() -> None:
    # no loss of 100: z^2 / (n + z^2)
    assert score_interval(0.0, 100).high == pytest.approx(3.8415 / 103.8415, abs=1e-4)
    assert (score_interval(0.5, 100).low, score_interval(0.5, 100).high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_small_contexts_may_lose_half() -> None:
    assert allowed_loss("balanced", 12) == pytest.approx(0.015)
    assert allowed_loss("balanced", 13) == allowed_loss("balanced", None) == pytest.approx(0.03)


def test_the_drift_is_that_of_the_scores_whatever_is_lost() -> None:
    compressor = load("provence")
    drift = risk.monitor(compressor, window=2)
    assert math.isnan(drift.index)
    found = realised([question("a", "masts"), question("b", "masts", times=3)], compressor, drift=drift)
    assert found["safe"].loss.n == 2
    # a question of one word, which nothing answers: all sentences score low, unlike those of training questions
    assert 0.05 < drift.index < 10
    assert math.isnan(risk.monitor(WithPoints(), window=2).index)


def test_the_command_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(risk, "load_compressor", lambda name: WithPoints())
    data, figures = tmp_path / "sea.jsonl", tmp_path / "points.json"
    rows = [row_from_question(question(str(n), "masts", times=3)) for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert risk.main(["points", "--data", str(data), "--figures", str(figures), "--limit", "5"]) == 0
    printed, written = capsys.readouterr().out, read_figures(figures)
    assert printed.strip() == points_table(written)
    assert "| sea | 5 | safe | 0.010 | 0.200 | 0.000 [0.000, 0.434] | 20% | – |" in printed
    assert "|  | 5 | aggressive | 0.070 | 0.700 | 1.000 [0.566, 1.000] **above** | " in printed
    assert written["command"].startswith("python -m benchmarks.risk points --data sea.jsonl --compressor provence")
    assert risk.main(["points", "--data", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl" in capsys.readouterr().err
