"""A full disk: the command says which file and what to do, keeps what was whole, and goes on when there is room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Of one file, in bytes: writing more fails as on a full disk, with another number of the error.
ROOM = 6_000
LIMITED = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, resource.RLIM_INFINITY))
sys.dont_write_bytecode = True
from ctxprune.cli import main
sys.exit(main(sys.argv[1:]))
"""
CHOICE = ["-c", "lead", "--budget", "60"]


@pytest.fixture
def source(tmp_path):
    passages = [f"The mill number {at} stands by the river. It was built in {1800 + at}." for at in range(12)]
    path = tmp_path / "questions.jsonl"
    rows = [{"id": str(at), "question": "When was the mill built?", "documents": passages} for at in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def command(*arguments, limited, stdout=subprocess.PIPE):
    program = LIMITED if limited else "import sys; from ctxprune.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_map_run_names_the_file_and_goes_on_with_more_room(source, tmp_path):
    out = tmp_path / "out"
    full = command("map", source, out, *CHOICE, limited=True)
    assert full.returncode == 1
    assert f"cannot write {out / 'part-00000.jsonl'}" in full.stderr and "free some space" in full.stderr
    assert "Traceback" not in full.stderr and "OSError" not in full.stderr
    assert not list(out.glob("**/*.tmp")) and not list(out.glob("part-*"))
    assert command("map", source, out, *CHOICE, limited=False).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "finished.json",
        "part-00000.jsonl",
        "run.json",
    ]
    assert len((out / "part-00000.jsonl").read_text(encoding="utf-8").splitlines()) == 40


def test_what_a_killed_map_run_left_is_gone_after_the_next(source, tmp_path):
    out = tmp_path / "out"
    assert command("map", source, out, *CHOICE, limited=False).returncode == 0
    (out / "finished.json").unlink()
    working = out / "working"
    working.mkdir()
    (working / "part-00000").write_text("[0, 1", encoding="utf-8")
    (working / f"part-00000.jsonl.{os.getpid()}.tmp").write_bytes(b'{"id": ')
    assert command("map", source, out, *CHOICE, limited=False).returncode == 0
    assert not working.exists() and (out / "finished.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_standard_output_is_said_so(source):
    with Path("/dev/full").open("wb") as full:
        ended = command("compress", "--batch", source, *CHOICE, limited=False, stdout=full)
    assert ended.returncode == 1
    assert "No space left on device; free some space and run the command again" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_page_too_large_for_the_disk_is_said_so(tmp_path):
    page = tmp_path / "page.html"
    text = tmp_path / "mill.txt"
    text.write_text("The mill stands by the river. It was built in 1874.\n" * 300, encoding="utf-8")
    ask = ["compress", "-q", "When was the mill built?", text, *CHOICE, "--html", page]
    ended = command(*ask, limited=True, stdout=subprocess.DEVNULL)
    assert ended.returncode == 1 and "free some space" in ended.stderr and "Traceback" not in ended.stderr
