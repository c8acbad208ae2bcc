"""Scores beside what they were on training questions: the reference in pruner.json, and the server that compares."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from fixtures_server import DOCUMENTS, QUERY, MemoryLog, sidecar
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.provence.reference import EDGES, Observation, Reference, stability_index
from ctxprune.errors import CheckpointError
from ctxprune.integrations.server.observe import Drift, Metrics
from ctxprune.types import Context, Document, Extract, Span

POINTS = OperatingPoints.from_dict({"safe": 0.05, "balanced": [[3, 0.2], [None, 0.1]], "aggressive": 0.5})
SMALL, LARGE = [0.05, 0.7, 0.15], [0.001] * 18 + [0.05, 0.95]
REFERENCE = Reference.measured([SMALL, SMALL, LARGE], POINTS)


def drift(*, window: int = 4, bound: float = 0.25) -> tuple[Drift, MemoryLog, Metrics]:
    log, metrics = MemoryLog(), Metrics()
    made = Drift(window=window, bound=bound, metrics=metrics, log=log)
    return made, log, metrics


def scored(scores: list[float]) -> Context:
    units = tuple(Span(2 * place, 2 * place + 1, score) for place, score in enumerate(scores))
    text = "x " * len(scores)
    return Context("q", (Extract(Document(text), units, tuple(score > 0.1 for score in scores)),))


def expecting(made: Drift, reference: Reference | None = REFERENCE) -> Drift:
    made.expect(SimpleNamespace(reference=reference, operating_points=POINTS))  # type: ignore[arg-type]
    return made


# --- the reference ----------------------------------------------------------------------------------------------------


def test_figures_of_one_context() -> None:
    one = Observation.of(SMALL, POINTS)
    assert one is not None
    # tiny, and its best likely answers: the threshold is 0.3 of that
    assert (one.below, one.emptied) == (pytest.approx(2 / 3), 0.0)
    assert one.score == pytest.approx(0.3)
    assert one.shares == pytest.approx((0, 0, 0, 1 / 3, 1 / 3, 0, 1 / 3))
    assert Observation.of([0.01, 0.09, 0.0, 0.02], POINTS).emptied == 1.0  # type: ignore[union-attr]


@pytest.mark.parametrize("scores", [[], [math.nan], [0.5, math.inf]])
def test_without_scores_there_is_nothing_to_observe(scores: list[float]) -> None:
    assert Observation.of(scores, POINTS) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_observation_is_made_of_shares_and_comes_back_from_its_values(scores: list[float]) -> None:
    one = Observation.of(scores, POINTS)
    assert one is not None and Observation.from_values(one.values) == one
    assert sum(one.shares) == pytest.approx(1.0) and len(one.shares) == len(EDGES) + 1
    assert all(0 <= value <= 1 for value in one.values)


def test_contexts_are_expected_to_be_as_those_of_their_size() -> None:
    assert [(size, contexts) for size, contexts, _ in REFERENCE.rows] == [(3, 2), (None, 1)]
    assert REFERENCE.expected(2).score == pytest.approx(0.3)
    assert REFERENCE.expected(4).score == REFERENCE.expected(4000).score == pytest.approx(1.018 / 20)
    only_small = Reference.measured([SMALL], POINTS)
    assert only_small.expected(50) == only_small.expected(3)


def test_it_is_read_as_it_was_written() -> None:
    again = Reference.from_dict(json.loads(json.dumps(REFERENCE.to_dict())))
    assert again.to_dict() == REFERENCE.to_dict()
    assert again.expected(3).values == pytest.approx(REFERENCE.expected(3).values, abs=1e-5)


@pytest.fixture
def export(tmp_path):
    """The bundled model's folder with a reference in its pruner.json."""

    def written(reference: object) -> PrunerModel:
        with resources.as_file(resources.files("ctxprune.bundled") / "provence-mini") as bundled:
            shutil.copytree(bundled, tmp_path / "export", dirs_exist_ok=True)
        path = tmp_path / "export" / "pruner.json"
        config = {**json.loads(path.read_text()), "reference": reference}
        path.write_text(json.dumps(config if reference else {k: v for k, v in config.items() if k != "reference"}))
        return PrunerModel.from_export(tmp_path / "export")

    return written


def test_an_export_brings_its_reference_and_one_of_an_earlier_version_loads(export) -> None:
    assert export(REFERENCE.to_dict()).reference.to_dict() == REFERENCE.to_dict()
    assert export(None).reference is None


@pytest.mark.parametrize(
    "damage",
    [{"below": 2}, {"below": None}, {"shares": [1.0]}, {"contexts": 0}, {"score": "high"}, {"units": "many"}],
)
def test_a_damaged_reference_is_refused(export, damage: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"pruner.json is missing or damaged"):
        export([{**REFERENCE.to_dict()[0], **damage}])


# --- the index --------------------------------------------------------------------------------------------------------


def test_the_index_by_hand() -> None:
    live, expected = (0.2, 0.8), (0.5, 0.5)
    slow = (0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5)
    assert stability_index(live, expected, 10**9) == pytest.approx(slow, abs=1e-6)
    assert stability_index(live, live, 5) == 0.0


@given(st.integers(1, 500), st.integers(0, 9))
def test_the_index_is_finite_and_positive_and_alike_both_ways(contexts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = ((row / row.sum()).tolist() for row in rng.integers(0, 3, (2, 7)) + np.eye(7, dtype=int)[:2])
    assert 0 <= stability_index(one, other, contexts) < math.inf
    assert stability_index(one, other, contexts) == pytest.approx(stability_index(other, one, contexts))


# --- the server -------------------------------------------------------------------------------------------------------


def test_contexts_like_those_of_training_are_no_drift_whatever_their_sizes() -> None:
    made, log, _ = drift()
    expecting(made)
    assert made.state == "collecting" and math.isnan(made.index)
    for scores in (SMALL, LARGE, LARGE, SMALL, LARGE, LARGE, LARGE, LARGE):
        made.note(scored(scores))
    assert made.state == "as expected" and made.index == pytest.approx(0.0, abs=1e-9)
    assert (made.warnings, log.events) == (0, [])


def test_a_crossing_is_told_once_and_again_after_a_return() -> None:
    made, log, _ = drift()
    expecting(made)
    for turn in (1, 2):
        for _ in range(7):
            made.note(scored([0.4] * 20))
        assert made.state == "drifted" and made.warnings == len(log.events) == turn
        for _ in range(4):
            made.note(scored(LARGE))
        assert made.state == "as expected"
    event, values = log.events[0]
    assert event == "scores left the reference" and values["requests"] == 4
    assert values["index"] > values["bound"] == 0.25
    assert (values["live_below_threshold"], values["reference_below_threshold"]) == (0.0, 0.95)


def test_nothing_is_said_before_the_window_is_full() -> None:
    made, log, _ = drift(window=5)
    expecting(made)
    for _ in range(4):
        made.note(scored([0.4] * 20))
    assert (made.state, made.warnings, log.events) == ("collecting", 0, [])
    made.note(scored([0.4] * 20))
    assert made.state == "drifted"


def test_a_higher_bound_is_asked_for_more() -> None:
    made, _, _ = drift(bound=1000.0)
    expecting(made)
    for _ in range(9):
        made.note(scored([0.4] * 20))
    assert made.state == "as expected" and made.index > 0.25


def test_only_the_last_contexts_count() -> None:
    made, _, _ = drift(window=3)
    expecting(made)
    for scores in ([0.4] * 20, [0.9] * 5, LARGE, LARGE, LARGE):
        made.note(scored(scores))
    assert made.index == pytest.approx(0.0, abs=1e-9)


def test_gauges_show_both_sides_and_none_before_there_is_anything() -> None:
    made, _, metrics = drift()
    assert "ctxprune_drift NaN" in metrics.text().decode()
    expecting(made).note(scored([0.4] * 20))
    text = metrics.text().decode()
    assert "ctxprune_live_mean_score 0.4" in text and "ctxprune_reference_mean_score 0.0509" in text
    assert "ctxprune_live_emptied 0.0" in text and "ctxprune_drift_warnings 0.0" in text


def test_without_a_reference_or_switched_off_nothing_is_compared() -> None:
    for made, state in ((expecting(drift()[0], None), "no reference"), (expecting(drift(window=0)[0]), "off")):
        for _ in range(9):
            made.note(scored([0.4] * 20))
        assert (made.state, made.warnings) == (state, 0)
    assert "drift" not in drift(window=0)[2].text().decode()


def test_a_sidecar_compares_what_its_own_pruner_scored() -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}
    with sidecar(drift_window=2, drift_bound=0.01, other_languages=None) as client:
        engine = client.service.engine
        model = engine.runner.reader.model
        engine.drift.expect(replace(model, reference=None))
        client.post("/v1/compress", json=body)
        assert client.get("/readyz").json() == {"status": "ready", "scores": "no reference"}
        engine.drift.expect(replace(model, reference=Reference.measured([[0.2] * 6], model.operating_points)))
        for other in ({"compressor": "bm25-sentences", "budget": 20}, {"compressor": "dslr"}, {"documents": []}):
            client.post("/v1/compress", json=body | other)
        client.post("/v1/compress", json=body)
        assert client.get("/readyz").json()["scores"] == "collecting"
        client.post("/v1/compress", json=body | {"budget": 30})
        assert client.get("/readyz").json()["scores"] == "drifted"
        assert [event for event, _ in client.log.events].count("scores left the reference") == 1
        assert "ctxprune_drift_warnings 1.0" in client.get("/metrics").text
