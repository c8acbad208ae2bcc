"""The benchmark of many questions: what it asks and reports; a difference under killed workers is an error."""

import json

import pytest

from benchmarks import scale
from ctxprune.errors import CtxpruneError


def test_made_questions_repeat_and_each_has_its_answer_in_its_gold_passage_alone():
    rows = list(scale.made_questions(40))
    assert rows[:15] == list(scale.made_questions(15)) != list(scale.made_questions(15, seed=1))
    for row in rows:
        holders = [document["is_gold"] for document in row["documents"] if row["answers"][0] in document["text"]]
        assert holders == [True] and len(row["documents"]) == scale.PASSAGES


@pytest.mark.slow
def test_an_evaluation_is_measured_in_a_process_of_its_own(capsys, tmp_path):
    figures = tmp_path / "scale.json"
    assert scale.main(["--samples", "6,12", "--compressor", "lead", "--figures", str(figures)]) == 0
    six, twelve = capsys.readouterr().out.splitlines()[2:]
    assert six.startswith("| 6 |") and twelve.startswith("| 12 |")
    written = json.loads(figures.read_text())
    assert [row["samples"] for row in written["rows"]] == [6, 12]
    assert written["command"] == "python -m benchmarks.scale --samples 6,12 --compressor lead"
    assert all(float(cell) > 30 for cell in (six.split("|")[4], twelve.split("|")[4]))


def test_other_bytes_from_killed_workers_are_an_error(monkeypatch, tmp_path):
    def written(questions, out, work, **how):
        out.mkdir()
        lines = questions.read_text().splitlines()
        (out / "part-00000.jsonl").write_text("\n".join(lines[: -1 if how else None]))

    monkeypatch.setattr(scale, "map_file", written)
    with pytest.raises(CtxpruneError, match="differ"):
        scale.killed_in_turn(4, "lead", tmp_path)


def test_a_map_of_which_no_worker_was_killed_shows_nothing(monkeypatch, tmp_path):
    def written(questions, out, work, **how):
        out.mkdir()
        (out / "part-00000.jsonl").write_text(questions.read_text())

    monkeypatch.setattr(scale, "map_file", written)
    with pytest.raises(CtxpruneError, match="before a worker was killed; give --ray more"):
        scale.killed_in_turn(4, "lead", tmp_path)


def test_a_folder_is_its_parts_in_order(tmp_path):
    for number, text in ((1, "b"), (0, "a")):
        (tmp_path / f"part-{number:05d}.jsonl").write_text(json.dumps(text))
    assert scale.parts(tmp_path) == b'"a""b"'
