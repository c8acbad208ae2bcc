"""Lines of JSON: split at newlines alone, whatever they hold, from files, gzip and standard input alike."""

import gzip
import io
import json
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxprune.cli.options import STANDARD_INPUT, load_questions, read_contexts, read_documents
from ctxprune.data.questions import read_jsonl
from ctxprune.errors import InputError
from ctxprune.eval.interchange import read_compressed
from ctxprune.integrations.mapping.files import read_lines

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
TEXTS = st.lists(st.text("ab \u2028\u2029\x85\x7f", min_size=1), min_size=1, max_size=5)


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    return [document.text for document in read_documents([STANDARD_INPUT])]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TEXTS, st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \r\n"]), st.booleans(), st.booleans())
def test_every_door_reads_the_same_lines(tmp_path, monkeypatch, texts, newline, marked, ended):
    lines = [json.dumps({"text": text, "id": at}, ensure_ascii=False) for at, text in enumerate(texts)]
    content = (b"\xef\xbb\xbf" if marked else b"") + (newline.join(lines) + newline * ended).encode()
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        assert [document.text for document in read_documents([path])] == texts
        assert [json.loads(line.text)["text"] for line in read_lines(path)] == texts
    for given_content in (content, gzip.compress(content)):
        assert standard_input(monkeypatch, given_content) == texts


def test_separators_within_strings_end_no_line(tmp_path, monkeypatch):
    row = {"query": "Why?", "documents": [f"One{SEPARATORS}two.", {"id": 7, "title": None, "text": "x"}]}
    # control characters must be escaped in JSON, the others may stand as they are
    path = tmp_path / "batch.jsonl"
    path.write_text("\n\n" + json.dumps(row, ensure_ascii=False), encoding="utf-8", newline="")
    (context,) = read_contexts(path, needs_query=True)
    assert context.id == "3"
    assert [(piece.source.text, piece.source.id) for piece in context.extracts] == [
        (f"One{SEPARATORS}two.", ""),
        ("x", "7"),
    ]
    (question,) = read_jsonl(path)
    assert question.documents[0].document.text == f"One{SEPARATORS}two."
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": 1, "context": "a\u2028b"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert next(read_compressed(other)).pieces == ("a\u2028b",)
    asked = tmp_path / "questions.txt"
    asked.write_text("Why\u2028now?\nWho?\x0c\n", encoding="utf-8", newline="")
    assert [each.text for each in load_questions([], asked, retriever="bm25", sample=False)] == [
        "Why\u2028now?",
        "Who?",
    ]
    text = f"A text{SEPARATORS}of no JSON.\r\nIt stays."
    assert standard_input(monkeypatch, text.encode()) == [text]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_what_is_no_utf8_is_named_by_line_and_byte(tmp_path, monkeypatch, suffix):
    content = b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "caf\xe9"}\n'
    path = tmp_path / f"latin{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    for read in (lambda: read_documents([path]), lambda: list(read_lines(path))):
        with pytest.raises(InputError, match=r"latin\.jsonl.*:3: not UTF-8 text \(.* at byte 14 of the line\)"):
            read()
    with pytest.raises(InputError, match=r"stdin:3: not UTF-8 text"):
        standard_input(monkeypatch, content)
    with pytest.raises(InputError, match=r"standard input is not UTF-8 text \(.* at byte 5\)"):
        standard_input(monkeypatch, b"\xef\xbb\xbfab\xff\n")


def test_odd_values(tmp_path, monkeypatch):
    half = {"text": "half \ud83d of a pair", "id": 2**70, "title": None}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(half) + "\n", encoding="utf-8")
    (document,) = read_documents([path])
    assert (document.text, document.id, document.title) == (half["text"], str(2**70), "")
    path.write_text(
        '{"text": "a", "id": null, "_id": 5, "metadata": null}\n{"text": "b", "id": null}', encoding="utf-8"
    )
    first, second = read_documents([path])
    assert (first.id, dict(first.metadata), second.id) == ("5", {}, "a.jsonl:2")
    path.write_text('{"text": "a", "n": ' + "9" * 5000 + "}", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:1: unusable JSON"):
        read_documents([path])
    for empty in (b"", b"\xef\xbb\xbf", b" \r\n\n"):
        with pytest.raises(InputError, match="standard input is empty"):
            standard_input(monkeypatch, empty)
    with pytest.raises(InputError, match="as gzip"):
        standard_input(monkeypatch, gzip.compress(b"abc")[:-9])
    path.write_text('{"query": null, "question": "Q?", "documents": [{"text": "a", "title": 5}]}', encoding="utf-8")
    with pytest.raises(InputError, match=r"documents\[0\].title' must be a string, got 5"):
        list(read_contexts(path, needs_query=True))
