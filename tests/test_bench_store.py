"""The vector store's benchmark on a tiny store: all figures are there, and an index that looks everywhere is exact."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import store as bench


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(bench, "_in_process", lambda work, *given: work(*given))  # starting eight takes seconds


def test_the_tables_name_their_command_and_every_step(in_this_process, capsys, tmp_path):
    command = ["--vectors", "1300", "--dimension", "16", "--topics", "4", "--index", "IVF4,Flat", "--effort", "1", "4"]
    assert bench.main([*command, "--scratch", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert " ".join(["python -m benchmarks.store", *command]) in report
    for step in ("build", "append 1,000", "open and verify", "look up 1,000", "index IVF4,Flat"):
        assert f"| {step}" in report
    recall = {line.split("|")[1].strip(): float(line.split("|")[-2]) for line in report.splitlines()[-3:]}
    assert recall["exact"] == recall["index, effort 4"] == 1.0 >= recall["index, effort 1"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_step_in_a_process_of_its_own_reports_its_memory():
    seconds, peak_mb = bench._in_process(bench._measured, np.zeros, 10)
    assert seconds >= 0 and peak_mb > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--index", "NoSuch"], "faiss cannot build the index 'NoSuch'"), (["--vectors", "900"], "at least 1,001")],
)
def test_what_cannot_be_measured_is_refused(in_this_process, capsys, options, message):
    assert bench.main(["--vectors", "1100", "--dimension", "8", *options]) == 1
    assert message in capsys.readouterr().err
