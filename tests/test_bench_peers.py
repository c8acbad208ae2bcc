"""The comparison with peers: one that works, crashes, hangs or is missing has its row."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers.__main__ import Asked, MissingError, Plan, figures, python_of, render, run_peer
from benchmarks.peers.workers import LOADERS, PEERS, WORKERS, Peer

HEAD = f"""
import os, sys, time
sys.path.insert(0, {str(WORKERS.parent)!r})
from workers import NoModelError, serve
"""
WORKS = """
def load(task):
    return lambda question, texts, budget: " ".join(reversed(texts))
"""
CRASHES = """
def load(task):
    calls = []
    def compress(question, texts, budget):
        calls.append(question)
        if len(calls) == 3:
            raise ValueError("the third is too much")
        return texts[0]
    return compress
"""
DIES = """
def load(task):
    os._exit(7)
"""
HANGS = """
def load(task):
    calls = []
    def compress(question, texts, budget):
        calls.append(question)
        while len(calls) > 2:
            time.sleep(1)
        return texts[0]
    return compress
"""
NO_MODEL = """
def load(task):
    raise NoModelError("its model is elsewhere")
"""
QUESTIONS = (
    Asked("Where is the bell?", ("The rope is long.", "The bell hangs in the tower."), ("the tower",)),
    Asked("Who rings it?", ("Nobody does now.", "It was Ana."), ("Ana",)),
    Asked("Who paid?", ("Nobody knows.",), ()),
)


def here(peer: Peer, folder: Path) -> Path:
    return Path(sys.executable)


def fake(folder: Path, code: str, *, real: bool = True) -> Peer:
    worker = folder / "fake_worker.py"
    worker.write_text(HEAD + code + "\nserve(load)\n")
    return Peer("fake", ("fake-peer==1.0",), "", real=real, note="a note of ours", worker=worker)


def plan(folder: Path, **changes: object) -> Plan:
    settled = Plan(questions=QUESTIONS, budgets=(4, 50), limit_seconds=60.0, environments=folder)
    return replace(settled, **changes)  # type: ignore[arg-type]


def test_a_peer_that_works_is_timed_and_its_answers_are_counted_at_equal_words(tmp_path: Path) -> None:
    outcome = run_peer(fake(tmp_path, WORKS), plan(tmp_path), python=here)
    assert (outcome.status, outcome.reason, len(outcome.calls)) == ("ran", "", 6)
    assert outcome.versions == {"fake-peer": "unknown"} and outcome.peak_mb and outcome.loaded_seconds is not None
    row = figures(outcome, plan(tmp_path))
    # "The bell hangs in" is what four words of the first question's context leave: its answer is cut off
    assert [row["budgets"][budget]["answer_kept"] for budget in (4, 50)] == [0.5, 1.0]
    assert row["budgets"][4]["words_given"] == row["budgets"][4]["words_before"]
    assert row["median_seconds"] <= row["p95_seconds"]


def test_random_weights_are_timed_and_given_no_share_of_answers(tmp_path: Path) -> None:
    row = figures(run_peer(fake(tmp_path, WORKS, real=False), plan(tmp_path), python=here), plan(tmp_path))
    assert row["status"] == "ran" and row["median_seconds"] >= 0
    assert [at["answer_kept"] for at in row["budgets"].values()] == [None, None]


@pytest.mark.parametrize(
    ("code", "reason", "calls"),
    [(CRASHES, "exit status 1: ValueError: the third is too much", 1), (DIES, "exit status 7: no message", 0)],
)
def test_a_peer_that_crashes_is_a_row_with_what_it_finished(tmp_path: Path, code: str, reason: str, calls: int) -> None:
    outcome = run_peer(fake(tmp_path, code), plan(tmp_path), python=here)
    assert (outcome.status, outcome.reason, len(outcome.calls)) == ("crashed", reason, calls)
    row = figures(outcome, plan(tmp_path))
    # a share over some of the questions would be no comparison
    assert row["budgets"][4]["answer_kept"] is None
    assert f"fake (crashed) | {'–' if not calls else ''}" in render("c", [row], plan(tmp_path))
    assert f"crashed, {calls} of 6 calls done: {reason}" in render("c", [row], plan(tmp_path))


def test_a_peer_that_hangs_is_stopped_and_is_a_row(tmp_path: Path) -> None:
    outcome = run_peer(fake(tmp_path, HANGS), plan(tmp_path, limit_seconds=5.0), python=here)
    assert (outcome.status, outcome.reason) == ("over the time limit", "stopped after 5 s")
    assert "fake (over the time limit)" in render("c", [figures(outcome, plan(tmp_path))], plan(tmp_path))


def test_a_peer_without_a_model_says_why(tmp_path: Path) -> None:
    outcome = run_peer(fake(tmp_path, NO_MODEL), plan(tmp_path), python=here)
    assert (outcome.status, outcome.reason) == ("no model", "its model is elsewhere")


def test_a_worker_that_ends_early_without_an_error_counts_as_crashed(tmp_path: Path) -> None:
    worker = tmp_path / "empty.py"
    worker.write_text("")
    outcome = run_peer(Peer("fake", (), "", real=True, worker=worker), plan(tmp_path))
    assert (outcome.status, outcome.reason) == ("crashed", "it ended without saying so")


def test_a_peer_that_cannot_be_installed_is_a_row_with_pips_reason(tmp_path: Path) -> None:
    def refused(peer: Peer, folder: Path) -> Path:
        raise MissingError("cannot be installed: ERROR: No matching distribution found for fake-peer")

    row = figures(run_peer(fake(tmp_path, WORKS), plan(tmp_path), python=refused), plan(tmp_path))
    assert (row["status"], row["calls"]) == ("missing", 0)
    text = render("c", [row], plan(tmp_path))
    assert "| fake (missing) | – | – | – | – | – | – | – |" in text
    assert "No matching distribution found for fake-peer" in text


def test_an_environment_that_pip_refuses_is_missing_with_its_last_line(tmp_path: Path) -> None:
    # a requirement that pip refuses before it looks anywhere
    peer = Peer("odd", ("no such requirement!",), "", real=True)
    with pytest.raises(MissingError, match=r"cannot be installed: .*[Ii]nvalid"):
        python_of(peer, tmp_path)
    assert not (tmp_path / "odd" / "installed.txt").exists()


def test_a_peer_that_needs_an_embedder_is_missing_without_one(tmp_path: Path) -> None:
    outcome = run_peer(replace(fake(tmp_path, WORKS), needs_embedder=True), plan(tmp_path), python=here)
    assert (outcome.status, outcome.reason) == ("missing", "needs an embedder; pass --embedder FOLDER")


def test_every_peer_has_a_worker_and_a_name_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert all(peer.worker.is_file() for peer in PEERS)
    # one has no package to load
    assert {peer.loader for peer in PEERS} == {*LOADERS, ""}


def test_ours_and_a_baseline_run_on_the_sample_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--peers", "ctxprune bm25-sentences,langchain", "--limit", "3", "--budgets", "20,40"]
    assert command.main([*flags, "--out", str(tmp_path), "--environments", str(tmp_path / "none")]) == 0
    report = json.loads((tmp_path / "peers.json").read_text())
    ours, langchain = report["rows"]
    assert report["command"].startswith("python -m benchmarks.peers --peers")
    assert (ours["status"], ours["calls"]) == ("ran", 6)
    assert all(at["words_given"] <= int(budget) for budget, at in ours["budgets"].items())
    assert (langchain["status"], langchain["reason"]) == ("missing", "needs an embedder; pass --embedder FOLDER")
    assert (tmp_path / "peers.md").read_text().strip() in capsys.readouterr().out


def test_questions_come_from_a_file_with_their_documents(tmp_path: Path) -> None:
    rows = [
        {"question": f"Where is {n}?", "documents": [{"text": f"{n} is in Ostra."}], "answers": ["Ostra"]}
        for n in ("Lund", "Brenn")
    ]
    rows.append({**rows[0], "answerable": False})
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = list(command._from_file(path))
    assert [each.answers for each in asked] == [("Ostra",), ("Ostra",), ()]
    assert asked[0].texts == ("Lund is in Ostra.",)


def test_an_unknown_peer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--peers", "llmlingo", "--out", str(tmp_path)]) == 1
    assert "no peer 'llmlingo'; there are ctxprune provence" in capsys.readouterr().err
