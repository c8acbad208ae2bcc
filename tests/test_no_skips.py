"""What CTXPRUNE_ALL_TESTS makes of skips, in a run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "test_one.py": """
import pytest

def test_that_runs(): pass

def test_that_gives_up(): pytest.skip("no such printer")

@pytest.mark.skipif(True, reason="not on Tuesdays")
def test_of_another_day(): pass

@pytest.fixture
def instrument(): pytest.importorskip("no_such_instrument")

def test_with_an_instrument(instrument): pass

@pytest.mark.xfail
def test_that_fails_as_expected(): assert False

class TestNothing: pass
""",
    "test_whole_file.py": "import pytest\npytest.importorskip('no_such_framework')\ndef test_framework(): pass\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder, *arguments, **variables):
    ours = ("CTXPRUNE_ALL_TESTS", "PYTEST_ADDOPTS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), **variables}
    command = [sys.executable, "-m", "pytest", "-p", "plugin_no_skips", "-rA", "--rootdir", ".", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout


def test_skips_are_let_pass_by_default(folder):
    status, told = run(folder)
    assert status == 0
    assert "1 passed, 4 skipped, 1 xfailed" in told


def test_a_skip_is_a_failure_with_its_reason(folder):
    status, told = run(folder, "test_one.py", CTXPRUNE_ALL_TESTS="1")
    assert status == 1
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in told  # errors: before the test itself began
    for reason in ("no such printer", "not on Tuesdays", "no_such_instrument"):
        assert reason in told


def test_a_file_that_is_skipped_as_a_whole_is_an_error(folder):
    status, told = run(folder, CTXPRUNE_ALL_TESTS="1")
    assert status == 2
    assert "no_such_framework" in told and "1 error" in told
