"""What a benchmark run is told: flags, settings and their refusals, and the settings of the docs."""

import re
from pathlib import Path

import pytest
import yaml
from fixtures_towns import checked

from ctxprune.cli import main
from ctxprune.errors import InputError
from ctxprune.eval.config import config_from, read_settings
from ctxprune.eval.run.score import METRICS


def run_command(towns, tmp_path, *more):
    flags = ["--compressor", "bm25-sentences", "--budgets", "30", "--generator", "none", "--seed", "1"]
    places = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    return main(["eval", "run", "--data", str(towns), "--limit", "4", *flags, *places, *more])


def test_the_command_prints_the_leaderboard_and_fails_under_a_limit(towns, tmp_path, capsys):
    assert run_command(towns, tmp_path, "--fail-under", "answer_in_context=0.5") == 0
    assert "bm25-sentences budget=30" in capsys.readouterr().out
    assert run_command(towns, tmp_path, "--fail-under", "answer_in_context=1.5") == 3
    assert "answer_in_context 1.0 < 1.5" in capsys.readouterr().err
    assert main(["eval", "report", str(tmp_path / "run")]) == 0
    assert main(["eval", "ls", str(tmp_path)]) == 0
    assert main(["eval", "compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0


def test_the_guide_is_true():
    guide = (Path(__file__).parents[1] / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    block, base = re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL)
    config = config_from(yaml.safe_load(block), source="the guide")
    assert [each.label for each in config.compressors] == ["provence", "cheap-then-neural"]
    assert config_from(yaml.safe_load(config.to_yaml()), source="written") == config
    base_model = config_from({**yaml.safe_load(block), **yaml.safe_load(base)}, source="the guide").generator
    assert (base_model.chat, base_model.stop, base_model.order) == (False, ("\n",), "beginning")
    told = {"sentence_precision", "judge", "judge_unparseable", "emptied", "words_before", "words_after", "over_budget"}
    assert all(f"`{metric}`" in guide for metric in set(METRICS) - told)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fail-under", "beauty=1"], "no metric 'beauty'"),
        (["--baselines", "full,best"], "baselines.1"),
        (["--generator", "oracle"], "--generator must be none, local:PATH_OR_ID or openai:MODEL"),
        (["--generator", "openai:gpt"], "generator.base_url is needed"),
        (["-k", "0"], "data.0.k"),
        (["--thresholds", "0.5"], "threshold=0.5 means nothing"),
    ],
)
def test_bad_flags_are_named(towns, tmp_path, capsys, flags, message):
    assert run_command(towns, tmp_path, *flags) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compresors": []}, "compresors: Extra inputs are not permitted"),
        ({"compressors": []}, "nothing to test"),
        ({"compressors": [{"name": "lead", "budgets": [0]}]}, "compressors.0.budgets.0"),
        ({"compressors": [{"name": "lead"}, {"name": "lead"}]}, "'lead' is taken"),
        ({"compressors": [{"name": "full"}]}, "'full' is taken"),
        ({"compressors": [{"name": "gold-documents"}]}, "'gold-documents' is taken"),
        ({"generator": {"kind": "local", "model": "m", "stop": ["\n"]}}, "generator.stop is for endpoints"),
        ({"generator": {"kind": "local", "model": "m", "order": "beginning"}}, "'beginning' is for endpoints"),
        ({"generator": {"timeout": 0}}, "generator.timeout"),
        ({"generator": {"kind": "openai", "model": "m", "base_url": "http://x/v1", "stop": [""]}}, "generator.stop.0"),
        ({"template": "Say {question}"}, "needs {context}"),
        ({"judge": {"kind": "openai", "model": "m", "base_url": "http://x/v1"}}, "a judge needs answers"),
        ({"statistics": {"confidence": 1}}, "statistics.confidence"),
        ({"price": {"per_million_tokens": -1, "per_compute_hour": 1}}, "price.per_million_tokens"),
    ],
)
def test_bad_settings_are_named(towns, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        checked(towns, **change)


READERS = ("readers-smollm2.yaml", "readers-gemma.yaml")


def test_the_settings_of_the_docs_are_settings():
    docs = Path(__file__).parents[1] / "docs"
    for path in sorted(docs.glob("*.yaml")):
        assert config_from(read_settings(path), source=path.name).compressors, path.name


def test_both_readers_read_the_same_contexts():
    docs = Path(__file__).parents[1] / "docs"
    settings = [read_settings(docs / name) for name in READERS]
    apart = ("generator", "template", "closed_book_template")
    chat, base = ({name: value for name, value in each.items() if name not in apart} for each in settings)
    assert chat == base
    assert all(each["generator"]["chat"] is False for each in settings)
    assert [each["generator"].get("stop") for each in settings] == [None, ["\n"]]
