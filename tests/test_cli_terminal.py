"""The commands on a terminal and in a pipe: colour, progress, and readers that go away."""

import os
import subprocess

import pytest
from fixtures_cli import BM25, COMMAND, QUESTION, RELEVANT, batch_rows, write_lines

from ctxprune.cli import BROKEN_PIPE


def on_terminal(arguments, **environment):
    """What a terminal of 60 columns gets to see on stdout and stderr together."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    env = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    }
    env |= {"TERM": "xterm-256color", "COLUMNS": "60", **environment}
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # Linux says so when the other side has closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return seen.decode().replace("\r\n", "\n")


def test_colour_on_a_terminal_unless_no_color(text_file):
    arguments = ["compress", "-q", QUESTION, text_file, *BM25, "--no-title"]
    coloured = on_terminal(arguments)
    assert "\x1b[32m" in coloured
    plain = on_terminal(arguments, NO_COLOR="1")
    assert "\x1b[" not in plain
    assert "+ [30:63]" in plain and RELEVANT in plain


def test_a_bar_on_a_terminal_leaves_the_results_whole(tmp_path):
    path = write_lines(tmp_path / "batch.jsonl", batch_rows(3))
    seen = on_terminal(["compress", "--batch", str(path), *BM25])
    assert "3/3" in seen
    assert seen.count('"id": "q') == 3


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    path = write_lines(tmp_path / "batch.jsonl", batch_rows(400))
    process = subprocess.Popen(
        [*COMMAND, "compress", "--batch", str(path), *BM25], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == BROKEN_PIPE


def test_a_reader_of_one_line_is_no_error(tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("".join(f"The boat number {number} is old and leaks a little. " for number in range(3000)))
    process = subprocess.Popen(
        [*COMMAND, "compress", "-q", "Which boat?", str(text), "-c", "bm25-sentences", "--budget", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"Question: Which boat?\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == BROKEN_PIPE
