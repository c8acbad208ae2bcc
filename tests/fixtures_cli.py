"""A text with one sentence that answers, and the command line to ask of it."""

import gzip
import json
import sys

import pytest

from ctxprune.cli import main

RELEVANT = "The lighthouse was built in 1887."


THREE = ["Bread is baked every morning.", RELEVANT, "Cats sleep for most of the day."]


TEXT = " ".join(THREE)


QUESTION = "When was the lighthouse built?"


BM25 = ["-c", "bm25-sentences", "--budget", "11"]


COMMAND = [sys.executable, "-c", "import sys; from ctxprune.cli import main; sys.exit(main())"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "coast.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture
def ctxprune_cli(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_lines(path, rows):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as lines:
        lines.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return path


def batch_rows(number):
    return [{"id": f"q{place}", "question": QUESTION, "documents": [TEXT]} for place in range(number)]
