"""Operating points: thresholds by name and by size, what is refused, and how compressors take them."""

import json
import math
import shutil
from dataclasses import replace
from importlib import resources

import pytest
from fixtures_scoring import LetterCompressor

from ctxprune import Context, Pipeline, Policy, load
from ctxprune.calibration import OperatingPoints, check_point
from ctxprune.compressors.provence.compressor import DEFAULT_FLOOR, Provence, load_model
from ctxprune.errors import CheckpointError, InputError
from ctxprune.tokens import WordCounter

STEPS = {"safe": 0.02, "balanced": [[2, 0.3], [4, 0.6], [None, 0.9]], "aggressive": [[None, 0.95]]}


class Pointed(LetterCompressor):
    operating_points = OperatingPoints.from_dict(STEPS)


def pointed(**options):
    return Pointed("a", counter=WordCounter(), **options)


def kept(compressor, text, **limits):
    return Pipeline([compressor], counter=WordCounter()).run([Context.of("q", [text])], **limits)[0].text


@pytest.mark.parametrize(
    ("name", "units", "threshold"),
    [
        ("safe", 0, 0.02),
        ("safe", 10_000, 0.02),
        ("balanced", 0, 0.3),
        ("balanced", 2, 0.3),
        ("balanced", 3, 0.6),
        ("balanced", 4, 0.6),
        ("balanced", 5, 0.9),
        ("aggressive", 1, 0.95),
    ],
)
def test_the_threshold_of_a_name_follows_the_size_of_the_context(name, units, threshold):
    assert OperatingPoints.from_dict(STEPS).threshold(name, units) == threshold


@pytest.mark.parametrize(
    ("name", "units", "best", "threshold"),
    [
        ("balanced", 3, 0.9, 0.27),
        ("balanced", 3, 0.6, 0.18),
        ("balanced", 3, 0.4, 0.1),
        ("balanced", 4, 0.9, 0.135),
        ("balanced", 12, 0.55, 0.09),
        ("balanced", 13, 0.9, 0.05),
        ("safe", 3, 0.9, 0.05),
        ("aggressive", 3, 0.9, 0.27),
        ("aggressive", 3, 0.6, 0.2),
    ],
)
def test_a_small_context_whose_best_likely_answers_asks_more_of_the_others(name, units, best, threshold):
    steps = {
        "safe": [[3, 0.05], [None, 0.01]],
        "balanced": [[3, 0.1], [12, 0.09], [None, 0.05]],
        "aggressive": [[3, 0.2], [None, 0.1]],
    }
    points = OperatingPoints.from_dict(steps | {"beside": [[3, 0.3], [12, 0.15]]})
    assert points.threshold(name, units, best=best) == pytest.approx(threshold)
    assert OperatingPoints.from_dict(points.to_dict()) == points
    uncalibrated = OperatingPoints.around(0.1)
    assert uncalibrated.threshold("balanced", units, best=best) == 0.1


def test_points_that_say_nothing_of_it_ask_more_in_three_units_alone():
    points = OperatingPoints.from_dict({"safe": 0.01, "balanced": [[12, 0.09], [None, 0.05]], "aggressive": 0.5})
    assert [points.threshold("balanced", units, best=0.8) for units in (3, 4)] == [pytest.approx(0.24), 0.09]


@pytest.mark.parametrize("beside", [[[3, 1.5]], [[12, 0.1], [3, 0.3]], "much", [[None, 0.2]]])
def test_a_share_that_cannot_be_is_refused(beside):
    with pytest.raises(InputError, match="beside"):
        OperatingPoints.from_dict(STEPS | {"beside": beside})


def test_points_come_back_from_their_json():
    points = OperatingPoints.from_dict(STEPS)
    assert OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict()))) == points


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_points_around_a_threshold_are_in_order_and_in_range(threshold):
    points = OperatingPoints.around(threshold)
    safe, balanced, aggressive = (points.threshold(name, 10) for name in ("safe", "balanced", "aggressive"))
    assert 0 <= safe <= balanced == threshold <= aggressive <= 1
    assert OperatingPoints.around(0.1).threshold("aggressive", 1) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1], "must be thresholds by name, got list"),
        ({}, "must be safe, balanced or aggressive, got none"),
        ({"safe": 0.1}, "must be safe, balanced or aggressive, got 'safe'"),
        (STEPS | {"bold": 0.5}, "must be safe, balanced or aggressive"),
        (STEPS | {"safe": "low"}, "'safe' must be a threshold or"),
        (STEPS | {"safe": True}, "'safe' must be a threshold or"),
        (STEPS | {"safe": [[1]]}, "'safe' must be a threshold or"),
        (STEPS | {"safe": []}, "must rise and end with null"),
        (STEPS | {"safe": [[5, 0.1]]}, "must rise and end with null"),
        (STEPS | {"safe": [[5, 0.1], [3, 0.2], [None, 0.3]]}, "must rise and end with null"),
        (STEPS | {"safe": [[None, 0.1], [None, 0.2]]}, "must rise and end with null"),
        (STEPS | {"safe": [[0, 0.1], [None, 0.2]]}, "must rise and end with null"),
        (STEPS | {"safe": [[None, 1.5]]}, r"must be in \[0, 1\], got 1.5"),
        (STEPS | {"safe": [[None, None]]}, r"must be in \[0, 1\], got None"),
        (STEPS | {"safe": math.nan}, r"must be in \[0, 1\], got nan"),
    ],
)
def test_what_cannot_be_operating_points_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        OperatingPoints.from_dict(values)


@pytest.mark.parametrize("name", ["", " ", "Safe", "safest", "0.1"])
def test_an_unknown_name_is_answered_with_those_there_are(name):
    for attempt in (
        lambda: pointed(operating_point=name),
        lambda: pointed().compress([], operating_point=name),
        lambda: Pipeline([pointed()]).run([], operating_point=name),
        lambda: check_point(name, None),
    ):
        with pytest.raises(InputError, match="operating_point must be safe, balanced or aggressive, got '"):
            attempt()


def test_a_threshold_beside_a_name_is_refused_with_both():
    for attempt in (
        lambda: pointed(operating_point="safe", threshold=0.2),
        lambda: pointed().compress([], operating_point="safe", threshold=0.2),
        lambda: Pipeline([pointed()]).run([], operating_point="safe", threshold=0.2),
    ):
        with pytest.raises(InputError, match=r"operating_point='safe' and threshold=0\.2 both set the threshold"):
            attempt()


def test_each_context_gets_the_threshold_of_its_size():
    two, five = "a b. b b.", "a b. b b. b b. b b. a a."
    assert kept(pointed(), two) == "a b."
    assert kept(pointed(), five) == "a a."
    results = Pipeline([pointed()]).run([Context.of("q", [two]), Context.of("q", [five])], operating_point="balanced")
    assert [result.text for result in results] == ["a b.", "a a."]


def test_what_a_call_says_holds_over_what_the_compressor_was_built_with():
    text = "a b. b b. a a b. b b. a a."
    assert kept(pointed(operating_point="safe"), text) == "a b. a a b. a a."
    assert kept(pointed(operating_point="safe"), text, operating_point="aggressive") == "a a."
    assert kept(pointed(operating_point="safe"), text, threshold=0.6) == "a a b. a a."
    assert kept(pointed(threshold=0.6), text, operating_point="safe") == "a b. a a b. a a."
    assert kept(pointed(), text, operating_point="safe", budget=3) == "a a."


def test_a_compressor_without_points_says_so():
    class Summary:
        name = "summary"

        def compress(self, contexts, *, budget=None, threshold=None):
            return list(contexts)

    for attempt in (
        lambda: load("lead", operating_point="safe"),
        lambda: load("llmlingua2", operating_point="safe"),
        lambda: load("random-words").compress([], operating_point="safe"),
        lambda: Pipeline([LetterCompressor()]).run([], operating_point="safe"),
        lambda: Pipeline([Summary()]).run([], operating_point="safe"),
    ):
        with pytest.raises(InputError, match="has no operating points, so 'safe' means nothing; give a"):
            attempt()


def test_an_empty_pipeline_passes_through_at_any_point():
    [result] = Pipeline([]).run([Context.of("q", ["a."])], operating_point="safe")
    assert result.status == "passthrough"


@pytest.fixture(scope="module")
def model():
    return load_model("provence-mini")


def test_a_model_without_points_or_floor_has_them_around_its_threshold(model):
    plain = Provence(replace(model, operating_points=None, floor=None))
    assert plain.operating_points == OperatingPoints.around(model.default_threshold)
    assert plain.policy == Policy(floor=DEFAULT_FLOOR, companions=True, repeats=False)


def test_what_was_calibrated_holds_for_the_scores_it_was_calibrated_on(model):
    points = OperatingPoints.from_dict(STEPS)
    fused = Provence(replace(model, operating_points=points, floor=0.07))
    assert (fused.operating_points, fused.policy.floor) == (points, 0.07)
    mean = Provence(replace(model, operating_points=points, floor=0.07), rounding="mean")
    assert (mean.operating_points, mean.policy.floor) == (
        OperatingPoints.around(model.default_threshold),
        DEFAULT_FLOOR,
    )
    assert Provence(fused.model, policy=Policy(floor=0.0, companions=False)).policy == Policy(
        floor=0.0, companions=False, repeats=False
    )


@pytest.fixture
def export(tmp_path):
    """The bundled model's folder with other values in its pruner.json."""

    def written(**values):
        folder = tmp_path / "export"
        with resources.as_file(resources.files("ctxprune.bundled") / "provence-mini") as bundled:
            folder.mkdir(exist_ok=True)
            for file in bundled.iterdir():
                if file.name != "pruner.json":
                    shutil.copy(file, folder)
            config = json.loads((bundled / "pruner.json").read_text(encoding="utf-8"))
        kept = {name: value for name, value in config.items() if name not in ("operating_points", "floor")}
        (folder / "pruner.json").write_text(json.dumps(kept | values), encoding="utf-8")
        return str(folder)

    return written


def test_an_export_brings_its_points_and_floor_and_one_of_an_earlier_version_loads(export):
    loaded = load(export(operating_points=STEPS, floor=0.03))
    assert (loaded.operating_points, loaded.policy.floor) == (OperatingPoints.from_dict(STEPS), 0.03)
    assert load(export()).policy.floor == DEFAULT_FLOOR
    for damage in ({"operating_points": {"safe": 0.1}}, {"operating_points": 0.1}, {"floor": "low"}, {"floor": 2}):
        with pytest.raises(CheckpointError, match=r"pruner.json is missing or damaged"):
            load(export(**damage))


@pytest.mark.parametrize("limits", [{}, {"operating_point": "safe"}, {"budget": 40}, {"operating_point": "aggressive"}])
@pytest.mark.parametrize(
    ("query", "documents"),
    [
        ("Where is the key?", ["under the stone " * 2000]),
        ("Where is the key?", ["x" * 30_000]),
        ("Wo liegt der Schlüssel?", ["The key lies under the stone. The dog sleeps.", "La clef est sous la pierre."]),
        ("鍵はどこですか", ["The key lies under the stone. The dog sleeps."]),
        ("Where is the key?", []),
        ("Where is the key?", ["", " "]),
        ("Where is the key?", ["Under it."]),
    ],
)
def test_odd_contexts_come_out_with_a_true_status(model, query, documents, limits):
    context = Context.of(query, documents)
    [result] = Pipeline([Provence(model)]).run([context], **limits)
    removed = "".join("".join(documents).split()) != "".join(
        "".join(extract.text for extract in result.after.extracts).split()
    )
    assert result.status == ("compressed" if removed else "passthrough")
    assert not result.over_budget
    emptied = any(text.strip() for text in documents) and not result.text
    assert any("the context is empty" in warning for warning in result.warnings) == emptied
