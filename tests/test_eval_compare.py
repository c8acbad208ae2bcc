"""Two runs side by side, and the list of runs."""

import os
import re

import fixtures_runs as runs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.eval.report.compare import compare, ls
from ctxprune.eval.report.folder import Scores


def lines_of(text, arm, metric):
    return [line for line in text.splitlines() if re.match(rf"\| `{re.escape(arm)}` +\| +{metric} \|", line)]


def test_equal_data_is_paired_question_by_question(tmp_path):
    better = list(runs.samples())
    for line in better:
        if line["arm"] == "provence threshold=0.5":
            line["metrics"]["match"] = 1.0
    text = compare(runs.write_run(tmp_path / "a"), runs.write_run(tmp_path / "b", lines=better))
    # questions 2, 5, 7 and 9 were wrong in the first run
    (line,) = lines_of(text, "provence threshold=0.5", "match")
    assert "+40.0 [+10.0, +70.0]" in line and line.endswith("|     win |")
    (line,) = lines_of(text, "full", "match")
    assert "+0.0 [+0.0, +0.0]" in line and "tie" in line
    assert "Warning" not in text and "Not paired" not in text and "Only in" not in text
    back = compare(tmp_path / "b", tmp_path / "a")
    assert "**loss**" in lines_of(back, "provence threshold=0.5", "match")[0]


def test_other_data_is_compared_unpaired_and_says_so(tmp_path):
    other = runs.results()
    other["data_hashes"]["towers"] = "another"
    other["versions"]["ctxprune"] = "0.2.0"
    config = "template: other\ngenerator:\n  kind: local\n  model: m\ndata:\n- limit: 5\n"
    a, b = runs.write_run(tmp_path / "a"), runs.write_run(tmp_path / "b", other, config=config)
    text = compare(a, b)
    assert "**Not paired**" in text and "win" not in lines_of(text, "provence threshold=0.1", "match")[0]
    assert "the data of towers differ (hashes `'hash-towers'` and `'another'`)" in text
    warned = text.split("**Warning**")[1].split("Other settings")[0]
    assert "- ctxprune: `'0.1.0'` and `'0.2.0'`" in warned and "- template: not set and `'other'`" in warned
    assert "- generator.kind: `'none'` and `'local'`" in warned
    assert "- data.0.limit: not set and `5`" in text.split("Other settings")[1]


def test_equal_hashes_with_other_questions_are_not_paired(tmp_path):
    lines = list(runs.samples(n=9))
    text = compare(runs.write_run(tmp_path / "a"), runs.write_run(tmp_path / "b", lines=lines))
    assert "**Not paired**" in text


def test_rows_of_one_run_alone_are_shown(tmp_path):
    mine, others = runs.results("towers", "bridges"), runs.results("towers")
    others["rows"].append(runs.row("towers", "recomp", {}, 9, 60.0))
    text = compare(runs.write_run(tmp_path / "a", mine), runs.write_run(tmp_path / "b", others))
    only_a, only_b = text.split("## Only in A")[1].split("## Only in B")
    assert only_a.count("bridges") == 8 * 4 and "recomp" not in only_a  # match, f1, answer in context, tokens
    assert len(lines_of(only_b, "recomp", ".*")) == 4 and "60.0 [55.0, 65.0]" in only_b


def test_a_missing_or_broken_config_is_said(tmp_path):
    a, b = runs.write_run(tmp_path / "a"), runs.write_run(tmp_path / "b")
    (b / "config.yaml").unlink()
    assert "run B has no config.yaml" in compare(a, b)
    (b / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        compare(a, b)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xy"), st.floats(0, 1)), max_size=20))
def test_columns_stay_aligned_whatever_is_missing(found):
    scores, expected, order = Scores(["m"]), {}, []
    for number, arm, value in found:
        scores.add((number, ""), arm, {"m": value})
        expected[number, arm] = value
        order += [number] * (number not in order)
    assert [key for key, _ in scores.questions] == order
    for arm in "xy":
        got = scores.values(arm, "m")
        assert [None if value != value else value for value in got] == [expected.get((n, arm)) for n in order]


def test_ls_lists_finished_unfinished_and_broken_runs(tmp_path):
    assert ls(tmp_path) == f"No runs in {tmp_path}.\n"
    for name, second in (("old", 1_000_000_000), ("new", 1_700_000_000)):
        folder = runs.write_run(tmp_path / name)
        os.utime(folder / "results.json", (second, second))
    (runs.write_run(tmp_path / "stopped") / "results.json").unlink()
    (runs.write_run(tmp_path / "torn") / "results.json").write_text("{")
    (tmp_path / "bench").mkdir()
    (tmp_path / "file").write_text("")
    text = ls(tmp_path)
    rows = {line.split("`")[1]: line for line in text.splitlines()[2:]}
    assert list(rows)[-2:] == ["new", "old"] and set(rows) == {"new", "old", "stopped", "torn"}
    assert "2001-09-09 01:46" in rows["old"] and "towers" in rows["old"] and "10 |" in rows["old"]
    assert "provence, lead, rerank-truncate" in rows["old"] and rows["old"].endswith("yes |")
    assert rows["stopped"].endswith("no |") and "broken: " in rows["torn"]
    with pytest.raises(InputError, match="is no folder"):
        ls(tmp_path / "nowhere")
