"""Choosing among stored scores gives what the compressor itself gives, whatever it is asked for."""

import json

import pytest
from fixtures_scoring import LetterCompressor

from ctxprune import Context, Policy
from ctxprune.calibration import OperatingPoints
from ctxprune.errors import InputError
from ctxprune.eval.config import CompressorConfig, arms_of, config_from
from ctxprune.eval.run.compress import Replay, _about
from ctxprune.tokens import WordCounter

WORDS = WordCounter()
TEXT = "# b\n\na a b. It b b b. b b a.\n\nb b. a b c d e. a a a a a a a a b b b c c."


class Pointed(LetterCompressor):
    operating_points = OperatingPoints.from_dict({"safe": 0.1, "balanced": [[3, 0.2], [None, 0.6]], "aggressive": 0.9})
    default_companions = True
    default_floor = 0.15


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(floor=0.0, companions=False), Policy(gap=(1, 3), top_p=0.9), Policy(repeats=True)]
)
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"threshold": 0.3},
        {"operating_point": "safe"},
        {"operating_point": "aggressive", "budget": 4},
        {"budget": 9},
    ],
)
def test_a_replay_chooses_as_the_compressor_does(limits, policy):
    compressor = Pointed("a", counter=WORDS, policy=policy)
    context = Context.of("q", [TEXT, "b. a.", TEXT])
    [scored] = compressor.score([context])
    about = json.loads(json.dumps(_about(compressor)))  # as the store gives it back
    replay = Replay("letter", about, WORDS, scored)
    assert replay.compress([context], **limits) == compressor.compress([context], **limits)


def test_operating_points_are_arms_of_their_own():
    config = CompressorConfig.model_validate({"name": "provence", "operating_points": ["safe", "balanced"]})
    arms = list(arms_of([config], [], [], full_context=False))
    assert [(arm.id, arm.operating_point) for arm in arms] == [
        ("provence operating_point=safe", "safe"),
        ("provence operating_point=balanced", "balanced"),
    ]


@pytest.mark.parametrize("names", [[""], ["bold"], "safe,bold"])
def test_an_unknown_name_is_refused_with_those_there_are(names):
    settings = {"data": [{"path": "x"}], "compressors": [{"name": "provence", "operating_points": names}]}
    with pytest.raises(InputError, match=r"operating_points"):
        config_from(settings, source="test")
