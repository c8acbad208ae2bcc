"""What `compress` and `run` print besides the whole story: the text alone, what is kept, nothing on stderr."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctxprune import Context, Document, Pipeline, load
from ctxprune.cli import main
from ctxprune.cli import output as cli_output
from ctxprune.cli.output import reading_progress
from ctxprune.timing import watch

QUESTION = "When does the museum open?"
ANSWER = "The museum opens at ten."
TEXT = f"Trams stop at the gate. {ANSWER} Coats are hung up on the left. The bookshop sells cards."
LIMIT = ["-q", QUESTION, "-c", "bm25-sentences", "--budget", "9"]
#: An editor wraps what goes to a terminal; the tests look for text in one line.
WIDE = {**os.environ, "COLUMNS": "160", "TERM": "dumb"}


@pytest.fixture
def museum(tmp_path: Path) -> Path:
    path = tmp_path / "museum.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_text_alone(museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "compress", *LIMIT, "--no-title", "--text", museum) == (0, ANSWER + "\n", "")


def test_notes_of_the_text_go_to_stderr_unless_quiet(museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = ["compress", "-q", QUESTION, "--threshold", "1", "--text", museum]
    code, out, err = run(capsys, *nothing)
    assert (code, out) == (0, "") and "the context is empty" in err
    assert run(capsys, *nothing, "--quiet") == (0, "", "")


def test_quiet_does_not_silence_errors(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "compress", "-q", QUESTION, "--quiet", "no-such-file")
    assert code == 1 and "no-such-file" in err


def test_what_is_skipped_and_written_is_told_unless_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(b"\0")
    page = tmp_path.parent / "page.html"
    arguments = ["compress", *LIMIT, "--html", page, tmp_path]
    _, _, told = run(capsys, *arguments)
    assert "b.bin" in told and "page.html" in told
    assert run(capsys, *arguments, "--quiet")[2] == ""
    assert "museum" in page.read_text(encoding="utf-8")


def test_only_what_is_kept(museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compress", *LIMIT, "--no-title", "--kept", museum)
    assert code == 0 and ANSWER in out and "Trams" not in out
    assert "1 of 4 sentences kept" in out and "tokens" in out


def test_dropped_documents_are_counted(museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = []
    for number in range(3):
        others.append(tmp_path / f"other{number}.txt")
        others[-1].write_text("Nothing of this kind.", encoding="utf-8")
    _, out, _ = run(capsys, "compress", *LIMIT, "--no-title", "--kept", museum, *others)
    assert "3 documents of which nothing is kept" in out and "other1" not in out


@pytest.mark.parametrize("pair", [("--text", "--json"), ("--kept", "--all"), ("--text", "--kept"), ("--json", "--all")])
def test_one_form_at_a_time(pair: tuple[str, str], museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compress", *LIMIT, *pair, museum)
    assert code == 1 and out == "" and pair[0] in err and pair[1] in err


def test_a_batch_has_one_form(museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "compress", "--batch", museum, "--text")[0] == 2


def test_run_prints_the_kept_text(capsys: pytest.CaptureFixture[str]) -> None:
    question = "When is a Flex ticket refunded?"
    _, text, _ = run(capsys, "run", "-q", question, "-k", "2", "--text")
    _, kept, _ = run(capsys, "run", "-q", question, "-k", "2", "--kept")
    assert "Flex" in text and "->" not in text
    assert "  - [" not in kept and "  + [" in kept


@pytest.mark.parametrize(
    "command", [[], ["compress"], ["run"], ["serve"], ["models"], ["train"], ["index"], ["eval"], ["map"]]
)
def test_the_short_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *command, "-h")
    assert code == 0 and "usage" in out.lower()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("ctxprune comp", "compress"), ("ctxprune compress --bud", "--budget"), ("ctxprune se", "serve")],
)
def test_the_shell_completes(typed: str, offered: str) -> None:
    words = typed.split()
    environment = {
        **os.environ,
        "_CTXPRUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-c", "import sys; from ctxprune.cli import main; sys.exit(main())"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.stdout.split() == [offered], ran.stderr


PAGE = (
    b"<html><head><title>Museum</title><script>var x = 1;</script></head><body><p>%s</p></body></html>" % TEXT.encode()
)


@pytest.mark.parametrize(
    "content",
    [PAGE, b"<!DOCTYPE html>\n" + PAGE, b"\xef\xbb\xbf\n<!-- saved -->\n<!doctype HTML>" + PAGE, gzip.compress(PAGE)],
)
def test_a_page_is_read_as_text_wherever_it_comes_from(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "saved.page"
    file.write_bytes(content)
    _, named, _ = run(capsys, "compress", *LIMIT, "--no-title", "--text", file)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    _, piped, _ = run(capsys, "compress", *LIMIT, "--no-title", "--text")
    assert named == piped == ANSWER + "\n"


def test_a_text_about_html_stays_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "note.txt2"
    file.write_text(f"The tag <html> begins a page. {ANSWER}", encoding="utf-8")
    _, out, _ = run(
        capsys, "compress", "-q", "Which tag begins a page?", "--no-title", "--text", "--threshold", "0", file
    )
    assert "<html>" in out


def shown_on_terminal(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, units: int, detail: str) -> str:
    text = "".join(f"Line {number} is here. " for number in range(units)) + ANSWER
    result = Pipeline(load("bm25-sentences")).run(Context(QUESTION, [Document(text, title="T")]), budget=12)
    stdout = io.StringIO()
    stdout.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("COLUMNS", "160")
    cli_output.show_result(result, detail)  # type: ignore[arg-type]
    return stdout.getvalue()


@pytest.mark.parametrize(
    ("terminal", "units", "detail", "everything"),
    [
        (True, 300, "auto", False),
        (True, 30, "auto", True),
        (True, 300, "all", True),
        (True, 30, "kept", False),
        (False, 300, "auto", True),
        (False, 300, "kept", False),
    ],
)
def test_a_terminal_is_not_flooded(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, units: int, detail: str, everything: bool
) -> None:
    out = shown_on_terminal(monkeypatch, terminal=terminal, units=units, detail=detail)
    assert ("Line 7 is here" in out) == everything
    assert ANSWER in out
    assert ("--all" in out) == (not everything and detail == "auto")


def test_even_what_is_kept_has_an_end_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [f"The museum opens hall {number} now." for number in range(500)]
    result = Pipeline(load("bm25-sentences")).run(Context(QUESTION, [" ".join(sentences)]), budget=10_000)
    stdout = io.StringIO()
    stdout.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stdout)
    cli_output.show_result(result, "auto")
    out = stdout.getvalue()
    assert out.count("The museum opens hall") == cli_output.LONG
    assert f"{500 - cli_output.LONG} more passages" in out


def test_the_model_tells_how_far_it_has_read() -> None:
    reports: list[tuple[int, int]] = []
    text = "The museum opens at ten. It shows coins of all ages. " * 300
    with watch(lambda done, total: reports.append((done, total))):
        Pipeline(load("provence")).run(Context(QUESTION, [text]))
    assert len(reports) > 3
    assert [done for done, _ in reports] == list(range(1, len(reports) + 1))
    assert {total for _, total in reports} == {len(reports)}
    before = len(reports)
    Pipeline(load("provence")).run(Context(QUESTION, [ANSWER]))
    assert len(reports) == before


@pytest.mark.parametrize(
    ("terminal", "quiet", "bar"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_bar_for_long_readings_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, quiet: bool, bar: bool
) -> None:
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(cli_output, "PATIENCE_SECONDS", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    with reading_progress(quiet=quiet):
        Pipeline(load("provence")).run(Context(QUESTION, ["The museum opens at ten. " * 400]))
    assert ("reading" in stderr.getvalue()) == bar


def test_json_of_the_views_is_the_same(museum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "compress", *LIMIT, "--no-title", "--json", museum)
    assert json.loads(out)["text"] == ANSWER
