"""Standard input in the place of every file that a command reads once, and never a file called "-"."""

import gzip
import io
import json
import sys

import pytest
from fixtures_cli import BM25, QUESTION, RELEVANT, TEXT, batch_rows, write_lines

ROWS = "".join(json.dumps(row) + "\n" for row in batch_rows(3)).encode()
ASKED = json.dumps({"question": QUESTION, "answers": ["1871"]}).encode()


@pytest.fixture
def give(monkeypatch):
    def given(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return given


def rows_of(out):
    return [{**json.loads(line), "seconds": None} for line in out.splitlines()]


@pytest.mark.parametrize("content", [ROWS, gzip.compress(ROWS), b"\xef\xbb\xbf" + ROWS, b"\n \r\n" + ROWS])
def test_a_batch_is_that_of_the_file(ctxprune_cli, tmp_path, give, content):
    path = write_lines(tmp_path / "batch.jsonl", batch_rows(3))
    _, expected, _ = ctxprune_cli("compress", "--batch", path, *BM25)
    give(content)
    code, out, err = ctxprune_cli("compress", "--batch", "-", *BM25)
    assert (code, err) == (0, "") and rows_of(out) == rows_of(expected)


def test_a_bad_line_is_named_after_the_results_of_those_before(ctxprune_cli, give):
    give(ROWS + b'{"question": "?"}\n')
    code, out, err = ctxprune_cli("compress", "--batch", "-", *BM25)
    assert code == 1 and len(out.splitlines()) == 3 and "stdin:4: " in err


@pytest.mark.parametrize("content", [ASKED, gzip.compress(ASKED), QUESTION.encode(), b"\n" + ASKED + b"\n"])
def test_questions(ctxprune_cli, text_file, give, content):
    give(content)
    code, out, _ = ctxprune_cli("run", "--questions", "-", "--corpus", text_file, *BM25, "--no-title", "--json")
    row = json.loads(out)
    assert (code, row["query"], row["text"]) == (0, QUESTION, RELEVANT)


def test_a_corpus(ctxprune_cli, give):
    give(TEXT.encode())
    code, out, _ = ctxprune_cli("run", "-q", QUESTION, "--corpus", "-", *BM25, "--no-title", "--json")
    assert (code, json.loads(out)["text"]) == (0, RELEVANT)


def test_documents_to_index(ctxprune_cli, tmp_path, give):
    give(TEXT.encode())
    code, _, err = ctxprune_cli("index", "-", "--scores", tmp_path / "scores.sqlite")
    assert code == 0 and "of 1 document" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "-q", QUESTION, "-", "-"),
        ("run", "--questions", "-", "--corpus", "-"),
        ("index", "-", "-", "--scores", "s.sqlite"),
    ],
)
def test_it_is_read_once(ctxprune_cli, give, arguments):
    give(TEXT.encode())
    code, _, err = ctxprune_cli(*arguments)
    assert code != 0 and "standard input can be read once" in err


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "arguments", [("compress", "--batch", "-"), ("run", "--questions", "-"), ("run", "-q", "a", "--corpus", "-")]
)
def test_nothing_at_all(ctxprune_cli, give, arguments, content):
    give(content)
    code, out, err = ctxprune_cli(*arguments)
    assert (code, out) == (1, "") and "standard input is empty" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "-q", QUESTION, "--html", "-", "FILE"),
        ("index", "FILE", "--scores", "-"),
        ("index", "FILE", "--sentences", "-"),
        ("index", "FILE", "--vectors", "./-"),
        ("map", "FILE", "-"),
        ("eval", "run", "--out", "-"),
        ("eval", "report", "run", "--ragas", "-"),
        ("eval", "data", "squad11", "--from", "FILE", "--out", "-"),
    ],
)
def test_no_file_is_called_a_dash(ctxprune_cli, text_file, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = ctxprune_cli(*(text_file if each == "FILE" else each for each in arguments))
    assert code == 1 and "not standard output; name a file or a folder" in err
    assert not (tmp_path / "-").exists()


def test_help_says_where_it_is_taken(ctxprune_cli):
    for command, times in (("compress", 2), ("run", 2), ("index", 1)):
        _, out, _ = ctxprune_cli(command, "--help")
        assert " ".join(out.split()).count("standard input") == times
