"""Questions over documents in another language, and the time of the pruner that reads them."""

from __future__ import annotations

import json

import pytest

from benchmarks.languages import crossed, main
from ctxprune.errors import InputError


def _row(language, question, text, key="7"):
    documents = [{"text": text, "is_gold": True, "answer_spans": [[0, 4]]}]
    return {"id": f"set-{language}:{key}", "lang": language, "question": question, "documents": documents}


ROWS = [
    _row("en", "How deep is it?", "Nine metres deep."),
    _row("de", "Wie tief ist es?", "Neun Meter tief."),
    _row("el", "Πόσο βαθύ;", "Εννέα μέτρα."),
    _row("de", "Nur deutsch?", "Ja, so ist es.", key="8"),
]


def _file(tmp_path, rows=ROWS):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_each_language_is_paired_with_english_both_ways(tmp_path):
    made = [(row["lang"], row["question"], row["documents"][0]["text"]) for row in crossed(_file(tmp_path), 1)]
    assert made == [
        ("de over en", "Wie tief ist es?", "Nine metres deep."),
        ("en over de", "How deep is it?", "Neun Meter tief."),
        ("el over en", "Πόσο βαθύ;", "Nine metres deep."),
        ("en over el", "How deep is it?", "Εννέα μέτρα."),
    ]


def test_a_row_without_a_language_is_named(tmp_path):
    rows = [*ROWS, {"id": "x", "question": "Why?", "documents": []}]
    with pytest.raises(InputError, match=r"rows\.jsonl:5: no string 'lang'"):
        list(crossed(_file(tmp_path, rows), 1))


def test_pairs_are_written_and_both_pruners_are_timed(tmp_path, capsys):
    path, out = _file(tmp_path), tmp_path / "pairs.jsonl"
    main(["pairs", "--data", str(path), "--every", "1", "--out", str(out)])
    assert len({json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()}) == 4
    main(["speed", "--data", f"{path}:2"])
    told = capsys.readouterr().out
    assert "4 questions" in told and "provence-mini-multilingual" in told and " times [" in told
