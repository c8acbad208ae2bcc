"""Mapping a file: the same bytes for any number of workers, and nothing lost or doubled whatever dies."""

import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fixtures_mapping import InlineCrew, Killed, batch_output, files, joined, passages, question_rows, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cli import main
from ctxprune.errors import BudgetError, CtxpruneError, InputError, MissingExtraError
from ctxprune.integrations.mapping import Work, map_file, worker
from ctxprune.integrations.mapping import run as driver
from ctxprune.integrations.mapping import worker as tasks
from ctxprune.integrations.mapping.files import Line, Part, batches, parts
from ctxprune.models.sentence_encoders import BundledEncoder

OPEN_TASK = worker.open_task
WORK = Work(compressor="bm25-sentences", budget=20, part_tokens=400, batch_tokens=120)
OPTIONS = ("-c", "bm25-sentences", "--budget", "20")


@pytest.fixture
def inline(monkeypatch):
    """The local engine without processes; see `InlineCrew`."""
    monkeypatch.setattr(driver, "LocalCrew", InlineCrew)


@pytest.fixture
def source(tmp_path):
    return write_jsonl(tmp_path / "questions.jsonl", question_rows(40))


# processes


def test_two_workers_write_what_one_does_and_what_compress_prints(source, tmp_path, capfdbinary):
    expected = batch_output(source, capfdbinary, *OPTIONS)
    one = map_file(source, tmp_path / "one", WORK)
    two = map_file(source, tmp_path / "two", WORK, workers=2)
    assert (one.lines, one.made, one.found) == (40, one.parts, 0)
    assert one == two
    assert one.parts > 4
    assert joined(tmp_path / "one") == expected
    assert files(tmp_path / "one") == files(tmp_path / "two")
    again = map_file(source, tmp_path / "two", WORK)
    assert (again.made, again.found, again.lines) == (0, two.parts, 40)


def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(source, tmp_path, inline, monkeypatch):
    map_file(source, tmp_path / "whole", WORK)
    monkeypatch.undo()
    seen = []

    def kill_one(lines):
        seen.append(lines)
        if len(seen) <= 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    summary = map_file(source, tmp_path / "killed", WORK, workers=2, on_part=kill_one)
    assert summary.deaths >= 1
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not multiprocessing.active_children()


KILLED_AT_THE_FIRST_PART = f"""
import os, signal, sys
from ctxprune.integrations.mapping import Work, map_file

map_file(*sys.argv[1:], {WORK!r}, on_part=lambda lines: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_run_goes_on_where_it_stood(tmp_path, inline):
    source = write_jsonl(tmp_path / "questions.jsonl", question_rows(40))
    map_file(source, tmp_path / "whole", WORK)
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED_AT_THE_FIRST_PART, source, out], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (out / "finished.json").exists()
    summary = map_file(source, out, WORK)
    assert (summary.found, summary.made) == (1, summary.parts - 1)
    assert files(out) == files(tmp_path / "whole")


def test_a_model_that_does_not_load_is_said_once(source, tmp_path):
    work = Work(compressor="bm25-sentences")
    with pytest.raises(CtxpruneError, match="needs a budget; add --budget"):
        map_file(source, tmp_path / "out", work)
    assert map_file(source, tmp_path / "out", WORK).made, "settings of a run that did nothing bind nobody"


# deaths and bad lines


def poisonous(monkeypatch, *, kills=(), raises=()):
    """The task of every worker, made to die or to fail at questions that contain a word."""
    real = tasks.open_task

    def opened(work):
        task = real(work)
        run = task.run

        def run_with_poison(items):
            text = " ".join(item.query for item in items)
            if any(f"bridge {number} " in text for number in kills):
                raise Killed
            if any(f"bridge {number} " in text for number in raises):
                raise ValueError("no such bridge")
            return run(items)

        task.run = run_with_poison
        return task

    monkeypatch.setattr(worker, "open_task", opened)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_line_that_kills_is_found_and_left_out(source, tmp_path, inline, monkeypatch, workers):
    poisonous(monkeypatch, kills=[17])
    summary = map_file(source, tmp_path / "out", WORK, workers=workers, on_error="skip")
    [failure] = summary.failures
    assert failure.line == f"{source}:18"
    assert "3 workers died (signal 9)" in failure.error
    monkeypatch.setattr(worker, "open_task", OPEN_TASK)
    map_file(source, tmp_path / "whole", WORK)
    lines = joined(tmp_path / "whole").splitlines(keepends=True)
    assert joined(tmp_path / "out") == b"".join(lines[:17] + lines[18:])
    [listed] = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(listed) == {"line": failure.line, "error": failure.error}


def test_a_line_that_kills_ends_the_run_by_its_name_and_the_parts_before_stay(source, tmp_path, inline, monkeypatch):
    poisonous(monkeypatch, kills=[17])
    with pytest.raises(InputError, match=r"questions\.jsonl:18: 3 workers died .* on_error='skip'"):
        map_file(source, tmp_path / "out", WORK, workers=2)
    done = len(list((tmp_path / "out" / "checkpoints").glob("*.json")))
    assert done >= 2
    monkeypatch.setattr(worker, "open_task", OPEN_TASK)
    summary = map_file(source, tmp_path / "out", WORK)
    assert summary.found == done
    map_file(source, tmp_path / "whole", WORK)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_workers_that_die_before_their_first_line_end_the_run(source, tmp_path, inline, monkeypatch):
    def no_memory(self, row, *, name):
        raise Killed

    monkeypatch.setattr(tasks.CompressTask, "read", no_memory)
    with pytest.raises(CtxpruneError, match="use fewer workers"):
        map_file(source, tmp_path / "out", WORK)


def test_a_line_that_fails_is_named_and_its_neighbours_are_not(source, tmp_path, inline, monkeypatch):
    poisonous(monkeypatch, raises=[5, 30])
    with pytest.raises(InputError, match=r"questions\.jsonl:6: ValueError: no such bridge"):
        map_file(source, tmp_path / "stop", WORK, workers=3)
    summary = map_file(source, tmp_path / "skip", WORK, on_error="skip")
    assert [failure.line for failure in summary.failures] == [f"{source}:6", f"{source}:31"]
    assert len(joined(tmp_path / "skip").splitlines()) == 38


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"id": "a", "documents": [], "documents": ["b"]}', "the field 'documents' stands twice"),
        ("[1]", "expected a JSON object, got list"),
        ('{"question": "q", "documents": "d"}', "field 'documents' must be a list"),
        ('{"question": 3, "documents": []}', "field 'question'"),
        ('{"question": " ", "documents": ["d"]}', "is empty; pass the user's question"),
        ('{"question": "q", "documents": [{"text": 4}]}', r"field 'documents\[0\]'"),
    ],
)
def test_a_malformed_line_is_named_and_mended(tmp_path, inline, line, message):
    rows = question_rows(40)
    source = write_jsonl(tmp_path / "q.jsonl", [*rows[:25], line, *rows[26:]])
    with pytest.raises(InputError, match=rf"q\.jsonl:26: .*{message}.*mend it and go on"):
        map_file(source, tmp_path / "out", WORK, workers=2)
    assert (tmp_path / "out" / "part-00000.jsonl").exists()
    write_jsonl(source, rows)
    summary = map_file(source, tmp_path / "out", WORK)
    assert summary.found >= 1
    map_file(source, tmp_path / "whole", WORK)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_left_out_lines_are_done_once_they_are_to_be(source, tmp_path, inline, monkeypatch):
    poisonous(monkeypatch, raises=[5])
    map_file(source, tmp_path / "out", WORK, on_error="skip")
    monkeypatch.setattr(worker, "open_task", OPEN_TASK)
    summary = map_file(source, tmp_path / "out", WORK)
    assert (summary.made, summary.failures) == (1, ())
    assert not (tmp_path / "out" / "failures.jsonl").exists()


# the folder


def test_parts_of_changed_lines_are_made_again_and_leftover_parts_go(tmp_path, inline):
    rows = question_rows(40)
    source = write_jsonl(tmp_path / "q.jsonl", rows)
    whole = map_file(source, tmp_path / "out", WORK)
    rows[0]["question"] = "Who built bridge 0?"
    write_jsonl(source, rows[:30])
    shorter = map_file(source, tmp_path / "out", WORK)
    assert shorter.parts < whole.parts
    assert shorter.remade >= 1
    map_file(source, tmp_path / "fresh", WORK)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_a_damaged_part_is_made_again(source, tmp_path, inline):
    map_file(source, tmp_path / "out", WORK)
    before = files(tmp_path / "out")
    (tmp_path / "out" / "part-00001.jsonl").write_bytes(b"{")
    (tmp_path / "out" / "checkpoints" / "part-00002.json").write_text("[]")
    assert map_file(source, tmp_path / "out", WORK).made == 2
    assert files(tmp_path / "out") == before


def test_other_settings_and_other_folders_are_refused(source, tmp_path, inline):
    map_file(source, tmp_path / "out", WORK)
    with pytest.raises(InputError, match="was begun with budget = 20, now it is 30"):
        map_file(source, tmp_path / "out", replace(WORK, budget=30))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"was begun with input = 'questions\.jsonl', now it is 'other\.jsonl'"):
        map_file(source.rename(tmp_path / "other.jsonl"), tmp_path / "out", WORK)
    source = tmp_path / "other.jsonl"
    with pytest.raises(InputError, match=r"not empty \(thesis.txt\)"):
        map_file(source, tmp_path / "mine", WORK)
    with pytest.raises(InputError, match="cannot write to"):
        map_file(source, tmp_path / "mine" / "thesis.txt", WORK)


def test_two_runs_do_not_share_a_folder(source, tmp_path, inline):
    def at_the_same_time(lines):
        with pytest.raises(InputError, match="another process is writing"):
            map_file(source, tmp_path / "out", WORK)

    assert map_file(source, tmp_path / "out", WORK, on_part=at_the_same_time).made


def test_a_run_killed_as_it_began_leaves_a_folder_to_begin_in(source, tmp_path, inline):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json.77.tmp").write_text("{")
    assert map_file(source, tmp_path / "out", WORK).made
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_rules_of_the_choice_reach_the_workers(source, tmp_path, inline):
    safe = replace(WORK, compressor="provence", budget=None, operating_point="safe", companions=False)
    bold = replace(safe, operating_point="aggressive")
    tokens = {}
    for name, work in (("safe", safe), ("bold", bold), ("gap", replace(safe, gap=(1, 4)))):
        map_file(source, tmp_path / name, work)
        tokens[name] = sum(json.loads(line)["tokens_after"] for line in joined(tmp_path / name).splitlines())
    assert tokens["bold"] < tokens["safe"] > tokens["gap"]
    with pytest.raises(InputError, match="was begun with operating_point = 'safe', now it is 'aggressive'"):
        map_file(source, tmp_path / "safe", bold)
    with pytest.raises(CtxpruneError, match=r"operating_point='safe' and threshold=0\.2"):
        map_file(source, tmp_path / "both", replace(safe, threshold=0.2))


def test_arguments_are_checked(source, tmp_path, monkeypatch):
    for arguments in ({"workers": 0}, {"engine": "dask"}, {"on_error": "ignore"}):
        with pytest.raises(InputError, match="must be"):
            map_file(source, tmp_path / "out", WORK, **arguments)
    for options in ({"task": "translate"}, {"part_tokens": 0}, {"batch_tokens": 0}):
        with pytest.raises(InputError, match="must be"):
            Work(**options)
    for name, message in (("none.jsonl", "no file or folder"), ("", "holds no"), ("x.csv", "cannot tell the form")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "empty" / "x.csv").write_text("")
        with pytest.raises(InputError, match=message):
            map_file(tmp_path / "empty" / name, tmp_path / "out", WORK)
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ctxprune.integrations.ray", raising=False)
    with pytest.raises(MissingExtraError, match=r"ctxprune-rag\[ray\]"):
        map_file(source, tmp_path / "out", WORK, engine="ray")


def test_the_command_tells_what_it_did(source, tmp_path, inline, capsys):
    bad = write_jsonl(tmp_path / "bad.jsonl", [*question_rows(3), "{"])
    arguments = [str(bad), str(tmp_path / "out"), "-c", "lead", "--budget", "20"]
    assert main(["map", *arguments]) == 1
    assert "bad.jsonl:4: not JSON" in capsys.readouterr().err
    assert main(["map", *arguments, "--on-error", "skip"]) == 0
    told = capsys.readouterr().err
    assert "4 lines in 1 parts: 1 made, 0 were there" in told
    assert "1 lines were left out; see" in told


# input and tasks


def test_gzip_parquet_and_folders_give_the_same_texts(tmp_path, inline):
    from pyarrow import Table
    from pyarrow.parquet import write_table

    rows = [{"id": str(n), **row} for n, row in enumerate(question_rows(20), 1)]
    for row in rows:  # a table has one type a column
        row["documents"] = [each if isinstance(each, dict) else {"text": each} for each in row["documents"]]
    plain = write_jsonl(tmp_path / "plain.jsonl", rows)
    (tmp_path / "plain.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    write_table(Table.from_pylist(rows), tmp_path / "plain.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", rows[:7])
    write_table(Table.from_pylist(rows[7:]), folder / "b.parquet")
    outputs = []
    for name in ("plain.jsonl", "plain.jsonl.gz", "plain.parquet", "folder"):
        map_file(tmp_path / name, tmp_path / f"out-{name}", WORK)
        outputs.append(joined(tmp_path / f"out-{name}"))
    assert outputs[0].count(b"\n") == 20
    assert all(output == outputs[0] for output in outputs)


def test_unreadable_input_is_said_after_what_could_be_read(tmp_path, inline):
    source = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in question_rows(600)).encode())
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read .*cut\.jsonl\.gz"):
        map_file(source, tmp_path / "out", Work(compressor="lead", budget=20, part_tokens=4000))
    assert (tmp_path / "out" / "part-00000.jsonl").exists()


def test_passages_are_compressed_without_a_question_where_none_is_needed(tmp_path, inline):
    source = write_jsonl(tmp_path / "corpus.jsonl", [{"text": "One is here. Two is there.", "id": "\ud800"}])
    map_file(source, tmp_path / "out", Work(compressor="lead", budget=4))
    [row] = map(json.loads, joined(tmp_path / "out").splitlines())
    assert (row["id"], row["query"]) == ("\ud800", "")
    assert row["documents"][0]["text"] == "One is here."
    with pytest.raises(InputError, match=r"corpus\.jsonl:1: .*is empty"):
        map_file(source, tmp_path / "asked", WORK)


def test_embeddings_have_a_row_for_every_sentence(tmp_path, inline):
    rows = passages(11)
    source = write_jsonl(tmp_path / "corpus.jsonl", rows)
    map_file(source, tmp_path / "out", Work(task="embed", part_tokens=60, batch_tokens=30), workers=2)
    vectors = np.concatenate([np.load(path) for path in sorted((tmp_path / "out").glob("*.npy"))])
    named = [json.loads(line) for line in joined(tmp_path / "out", ".ids.jsonl").splitlines()]
    texts = {row["id"]: row["text"] for row in rows}
    sentences = [texts[each["id"]][each["start"] : each["end"]] for each in named]
    assert sentences == [s for n in range(11) if n % 5 for s in (f"Tower {n} is old.", "It leans.")]
    np.testing.assert_array_equal(vectors, BundledEncoder().embed(sentences))
    with pytest.raises(InputError, match="takes passages, not questions"):
        map_file(write_jsonl(tmp_path / "q.jsonl", question_rows(1)), tmp_path / "q", Work(task="embed"))


def test_word_scores_stand_beside_their_places(tmp_path, inline, monkeypatch):
    from ctxprune.compressors.llmlingua import compressor as llmlingua2

    class LengthReader:
        """Gives every character as a token, kept the more the later it stands."""

        fingerprint = "length"

        def read(self, texts):
            from ctxprune.compressors.llmlingua.words import TokenReading

            return [
                TokenReading(np.array([(i, i + 1) for i in range(len(text))]), np.arange(len(text)) / len(text))
                for text in texts
            ]

    monkeypatch.setattr(llmlingua2, "llmlingua2", lambda: llmlingua2.LLMLingua2(LengthReader()))
    source = write_jsonl(tmp_path / "corpus.jsonl", [{"id": "a", "text": "ab cd"}, {"id": "b", "text": ""}])
    map_file(source, tmp_path / "out", Work(task="scores"))
    assert [json.loads(line) for line in joined(tmp_path / "out").splitlines()] == [
        {"id": "a", "starts": [0, 3], "ends": [2, 5], "scores": [0.1, 0.7]},
        {"id": "b", "starts": [], "ends": [], "scores": []},
    ]


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 40), st.integers(1, 40))
def test_parts_and_batches_cover_the_lines_once_within_their_limits(lengths, part_tokens, batch_tokens):
    lines = [Line(f"f:{n}", str(n), "x" * length) for n, length in enumerate(lengths)]
    cut = list(parts(lines, part_tokens=part_tokens))
    assert [line for part in cut for line in part.lines] == lines
    assert [part.index for part in cut] == list(range(len(cut)))
    for part in cut:
        assert len(part.lines) == 1 or sum(line.tokens for line in part.lines) <= part_tokens
        spans = batches(part, batch_tokens=batch_tokens)
        assert [place for span in spans for place in span] == list(range(len(part.lines)))
        for span in spans:
            assert len(span) == 1 or sum(part.lines[place].tokens for place in span) <= batch_tokens


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4), st.data())
def test_a_digest_tells_lines_and_names_apart(pairs, data):
    other = data.draw(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4))
    first, second = (Part(0, tuple(Line("f:1", name, text) for name, text in each)) for each in (pairs, other))
    assert (first.digest == second.digest) == (pairs == other)


def test_budget_errors_are_budget_errors():
    with pytest.raises(BudgetError):
        tasks.open_task(Work(compressor="lead"))
