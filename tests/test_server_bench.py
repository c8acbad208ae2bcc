"""The load benchmark in its smallest form: real processes on loopback ports, and a report of each part."""

import json

import pytest

from benchmarks.server import __main__

# three servers start one after the other, each of which imports and loads the model
pytestmark = pytest.mark.slow


def test_quick_measures_and_reports(tmp_path):
    parts = ["one_client", "first_byte", "soak"]
    assert __main__.main(["--quick", "--minutes", "0.05", "--only", *parts, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "server.json").read_text(encoding="utf-8"))
    assert found["soak"]["wrong"] == [] and found["soak"]["requests"] > 0
    assert found["soak"]["exit_codes"] == [0, 0]
    page = (tmp_path / "server.md").read_text(encoding="utf-8")
    assert "--only one_client first_byte soak" in page
    assert "**the server adds" in page and "| compress: compressed |" in page and str(tmp_path) not in page
