"""The commands as a user runs them: outputs that parse, exit codes, errors in one line."""

import gzip
import io
import json
import os
import subprocess
import sys

import pytest
from fixtures_cli import BM25, COMMAND, QUESTION, RELEVANT, TEXT, THREE, batch_rows, write_lines

import ctxprune
from ctxprune import Context, Document, Pipeline, Policy, load
from ctxprune.cli import main
from ctxprune.cli.options import read_documents
from ctxprune.cli.output import plural, printable


def give(monkeypatch, content: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def kept(row):
    return [(span["start"], span["end"]) for document in row["documents"] for span in document.get("kept_spans", ())]


# --- compress: one question -------------------------------------------------------------------------------------------


def test_json_has_the_result_shape(ctxprune_cli, text_file):
    code, out, err = ctxprune_cli("compress", "-q", QUESTION, text_file, *BM25, "--no-title", "--json")
    row = json.loads(out)
    assert (code, err) == (0, "")
    assert row["text"] == RELEVANT
    assert kept(row) == [(30, 63)]
    assert row["budget"] == 11 and row["tokens_after"] <= 11 and row["compressor"] == "bm25-sentences"


def test_the_view_marks_every_sentence_with_its_place(ctxprune_cli, text_file):
    code, out, _ = ctxprune_cli("compress", "-q", QUESTION, text_file, *BM25, "--no-title")
    assert code == 0
    lines = [line.split(maxsplit=3) for line in out.splitlines() if line.startswith("  ")]
    assert [(marker, place, text) for marker, place, _, text in lines] == [
        ("-", "[0:29]", "Bread is baked every morning."),
        ("+", "[30:63]", RELEVANT),
        ("-", "[64:95]", "Cats sleep for most of the day."),
    ]
    assert "-> " in out.splitlines()[-1] and out.splitlines()[-1].endswith(" s")
    assert "\x1b" not in out


def test_words_are_shown_in_runs(ctxprune_cli, text_file):
    _, out, _ = ctxprune_cli("compress", "-q", QUESTION, text_file, "-c", "lead", "--budget", 8, "--no-title")
    marked = [line for line in out.splitlines() if line.startswith("  ")]
    assert [line[2] for line in marked] == ["+", "-"]
    assert "words kept" in out


def test_the_bundled_model_is_the_default(ctxprune_cli, tmp_path):
    path = write_lines(tmp_path / "three.jsonl", [{"text": text} for text in THREE])

    def texts(*options):
        code, out, _ = ctxprune_cli("compress", "-q", QUESTION, path, "--json", *options)
        row = json.loads(out)
        assert (code, row["compressor"]) == (0, "provence")
        return [document["text"] for document in row["documents"]]

    assert texts() == ["", RELEVANT, ""]
    assert texts("--threshold", "1") == ["", "", ""]
    assert texts("--threshold", "1", "--protect", "Cats") == ["", "", THREE[2]]
    assert texts("--threshold", "1", "--min-keep", "1") == texts("--threshold", "1", "--on-empty", "keep_top1")
    assert texts("--threshold", "1", "--on-empty", "original") == THREE


@pytest.mark.parametrize(
    ("arguments", "limits", "policy"),
    [
        (["--operating-point", "aggressive"], {"operating_point": "aggressive"}, {}),
        (["--budget", "60", "--floor", "0.3"], {"budget": 60}, {"floor": 0.3}),
        (["--top-p", "0.4"], {}, {"top_p": 0.4}),
        (["--gap", "1,3"], {}, {"gap": (1, 3)}),
        (["--threshold", "0.4", "--no-companions"], {"threshold": 0.4}, {"companions": False}),
    ],
)
def test_the_rules_of_the_choice_are_the_librarys(ctxprune_cli, tmp_path, arguments, limits, policy):
    text = "# Lamp\n\nThe lamp was lit in 1860. It burns oil.\n\nThe keeper sleeps.\n\nShips pass at night.\n"
    (tmp_path / "lamp.md").write_text(text)
    code, out, _ = ctxprune_cli("compress", "-q", "When was the lamp lit?", tmp_path / "lamp.md", "--json", *arguments)
    compressor = load("provence", policy=Policy(**policy))
    document = Document(text, id=json.loads(out)["documents"][0]["id"], title=json.loads(out)["documents"][0]["title"])
    [expected] = Pipeline([compressor]).run([Context.of("When was the lamp lit?", [document])], **limits)
    assert (code, json.loads(out)["text"]) == (0, expected.text)


def test_reads_files_folders_and_json_lines_in_order(ctxprune_cli, tmp_path, text_file):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.md").write_text("# Bees\nBees dance.", encoding="utf-8")
    (folder / "a.txt").write_text("Ants march.", encoding="utf-8")
    rows = [{"text": "Owls hunt.", "title": "Owls"}, {"id": "x", "contents": "Foxes\nFoxes dig."}]
    lines = write_lines(tmp_path / "more.jsonl.gz", rows)
    other = tmp_path / "notes.rst"
    other.write_text("Rabbits run.", encoding="utf-8")
    code, out, _ = ctxprune_cli(
        "compress",
        "-q",
        "Which animals?",
        folder,
        lines,
        other,
        text_file,
        "-c",
        "bm25-sentences",
        "--budget",
        500,
        "--json",
    )
    documents = json.loads(out)["documents"]
    assert code == 0
    assert [document["id"] for document in documents] == [
        "a.txt",
        "b.md",
        "more.jsonl.gz:1",
        "x",
        "notes.rst",
        "coast.txt",
    ]
    assert [document["title"] for document in documents][1:4] == ["Bees", "Owls", "Foxes"]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (TEXT.encode(), [TEXT]),
        (b'\xef\xbb\xbf{"text": "One."}\n\n{"id": 7, "contents": "Two"}\n', ["One.", "Two"]),
        (b'{"note": 1}\nplain after all', ['{"note": 1}\nplain after all']),
        (b'\xef\xbb\xbf [{"page_content": "One."}, {"text": "Two", "id": 7}]', ["One.", "Two"]),
        (b'{"page_content": "One.", "metadata": null}\r\n{"content": "Two"}\r\n', ["One.", "Two"]),
        (b'[{"role": "user", "content": "One."}]', ['[{"role": "user", "content": "One."}]']),
        (b"[1] is a reference, no list.", ["[1] is a reference, no list."]),
    ],
)
def test_standard_input(ctxprune_cli, monkeypatch, content, texts):
    give(monkeypatch, content)
    code, out, _ = ctxprune_cli("compress", "-q", QUESTION, "-c", "bm25-sentences", "--budget", 500, "--json")
    assert code == 0
    assert [document["text"] for document in json.loads(out)["documents"]] == texts


@pytest.mark.parametrize("name", ["a.JSONL", "a.ndjson", "a.NDJSON.GZ", "a.json", "a.dump"])
def test_documents_in_json_under_other_names(tmp_path, name):
    rows = [{"text": "One.\u2028More."}, {"text": "Two.", "id": "b"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("GZ") else lines)
    documents = read_documents([tmp_path / name])
    assert [(each.id, each.text) for each in documents] == [(f"{name}:1", rows[0]["text"]), ("b", "Two.")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_how_to_read_a_text(ctxprune_cli, monkeypatch, tmp_path, encoding):
    text = "Die Mühle steht am Bach.\r\nSie mahlt."
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    (tmp_path / "a.rst").write_bytes(text.encode(encoding))
    assert [each.text for each in read_documents([tmp_path / "a.txt", tmp_path / "a.rst"])] == [text, text]
    give(monkeypatch, text.encode(encoding))
    _, out, _ = ctxprune_cli("compress", "-q", QUESTION, "-c", "lead", "--budget", 500, "--text")
    assert out == text + "\n"


@pytest.mark.parametrize(
    ("closed", "code", "said"), [("stdin", 1, "standard input is empty"), ("stdout", 0, ""), ("stderr", 0, "")]
)
def test_a_stream_that_is_closed(capsys, monkeypatch, text_file, closed, code, said):
    monkeypatch.setattr(sys, closed, None)
    source = "-" if closed == "stdin" else text_file
    done = main(["compress", "-q", QUESTION, "-c", "lead", "--budget", "9", str(source)])
    assert (done, getattr(sys, closed) is not None) == (code, True)
    assert said in capsys.readouterr().err
    getattr(sys, closed).close()


def test_a_list_in_a_file_names_the_item_that_cannot_be_used(ctxprune_cli, tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "One."}, {"text": 2}]')
    code, _, err = ctxprune_cli("compress", "-q", QUESTION, tmp_path / "a.json")
    assert (code, "a.json[1]: needs a string field 'text'" in err) == (1, True)


def test_a_folder_names_what_it_does_not_read(ctxprune_cli, tmp_path):
    (tmp_path / "a.txt").write_text(RELEVANT)
    (tmp_path / "b.html").write_text("<title>Tides</title><p>High at <b>noon</b>.</p><p>Low at six.</p>")
    (tmp_path / "c.csv").write_text("port,depth\nEast,4\nWest,9\n")
    (tmp_path / "d.jsonl").write_text('{"text": "No id here."}\n')
    (tmp_path / "e.pdf").write_bytes(b"%PDF")
    (tmp_path / ".hidden.bin").write_bytes(b"x")
    code, out, err = ctxprune_cli("compress", "-q", QUESTION, tmp_path, *BM25, "--json")
    assert (code, err) == (0, "skipped 1 file of other kinds: e.pdf\n")
    documents = json.loads(out)["documents"]
    assert [document["id"] for document in documents] == ["a.txt", "b.html", "c.csv", "d.jsonl:1"]
    _, page, table, _ = read_documents([tmp_path])
    assert page.text == "High at noon.\n\nLow at six."
    assert (page.title, page.metadata) == ("Tides", {"extracted_from": "text/html"})
    assert table.text == "port,depth\nEast,4\nWest,9\n"
    assert read_documents([tmp_path / "b.html"]) == [page]


def test_one_bad_file_of_a_folder_is_named_with_the_way_out(ctxprune_cli, tmp_path):
    (tmp_path / "a.txt").write_text(RELEVANT)
    write_lines(tmp_path / "log.jsonl", [{"text": "fine"}, {"level": "info"}])
    code, out, err = ctxprune_cli("compress", "-q", QUESTION, tmp_path, *BM25)
    assert (code, out) == (1, "")
    assert "log.jsonl:2" in err and "move the file out of" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 documents"), (1, "1 document"), (2, "2 documents"), (1200, "1,200 documents")]
)
def test_plurals(number, text):
    assert plural(number, "document") == text


def test_html_is_written_beside_the_output(ctxprune_cli, text_file, tmp_path):
    code, out, err = ctxprune_cli("compress", "-q", QUESTION, text_file, *BM25, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0 and page.startswith("<!doctype html>") and RELEVANT in page
    assert RELEVANT in out and "page.html" in err


# --- what documents may hold ------------------------------------------------------------------------------------------


def test_terminal_controls_stay_out_of_the_view_and_in_the_json(ctxprune_cli, tmp_path):
    evil = "The \x1b[31mlighthouse\x1b[0m \x1b]8;;http://x\x07was\x1b]8;;\x07 built\x07 in\x9b2J 1887.\r\n"
    path = write_lines(tmp_path / "evil.jsonl", [{"text": evil, "title": "\x1b]0;owned\x07Title"}])
    _, out, _ = ctxprune_cli("compress", "-q", QUESTION, path, "-c", "bm25-sentences", "--budget", 99)
    assert "The lighthouse was built in 1887." in out and "] Title" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\r"}
    _, out, _ = ctxprune_cli("compress", "-q", QUESTION, path, "-c", "bm25-sentences", "--budget", 99, "--json")
    assert json.loads(out)["documents"][0]["text"] == evil.rstrip()


def test_printable_keeps_text_lines_and_tabs():
    assert printable("a\tb\nc é 漢 [31m") == "a\tb\nc é 漢 [31m"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_lone_surrogates_never_break_the_output(tmp_path, encoding, options):
    path = write_lines(tmp_path / "odd.jsonl", ['{"text": "The lighthouse \\ud800 Ω was built in 1887."}'])
    ran = subprocess.run(
        [*COMMAND, "compress", "-q", QUESTION, path, "-c", "bm25-sentences", "--budget", "99", *options],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    out = ran.stdout.decode(encoding)
    assert "\\ud800" in out
    if options:
        assert json.loads(out)["text"] == "The lighthouse \ud800 Ω was built in 1887."


# --- compress: a batch ------------------------------------------------------------------------------------------------


def test_batch_writes_one_result_a_line_in_order(ctxprune_cli, tmp_path):
    rows = [*batch_rows(10), {"query": "Who bakes bread?", "documents": [{"text": TEXT, "title": "T", "foo": 1}, ""]}]
    path = write_lines(tmp_path / "batch.jsonl.gz", rows)
    code, out, err = ctxprune_cli("compress", "--batch", path, *BM25)
    results = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [result["id"] for result in results] == [f"q{place}" for place in range(10)] + ["11"]
    assert all(result["text"] == RELEVANT for result in results[:10])
    assert [document["title"] for document in results[10]["documents"]] == ["T", ""]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "not JSON"),
        ('{"question": "x"}', "'documents'"),
        ('{"question": " ", "documents": []}', "empty"),
        ("[1]", "object"),
    ],
)
def test_a_bad_line_is_named_after_the_results_before_it(ctxprune_cli, tmp_path, bad, message):
    path = write_lines(tmp_path / "batch.jsonl", [*batch_rows(3), bad, *batch_rows(2)])
    code, out, err = ctxprune_cli("compress", "--batch", path, *BM25)
    assert code == 1
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["q0", "q1", "q2"]
    assert err.startswith("error: ") and f"{path}:4" in err and message in err


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "-q", "x", "no/such.txt"], "no/such.txt"),
        (["compress", "-q", "x", "FILE", "-c", "nosuch"], "nosuch"),
        (["compress", "-q", "x", "FILE", "-c", "bm25-sentences"], "--budget"),
        (["compress", "-q", "x", "FILE", "-c", "bm25-sentences", "--budget", "-5"], "-5"),
        (["compress", "-q", "x", "FILE", "-c", "bm25-sentences", "--threshold", "0.5"], "0.5"),
        (["compress", "-q", "x", "FILE", "-c", "bm25-sentences", "--model", "m"], "--model"),
        (["compress", "-q", " ", "FILE", *BM25], "empty"),
        (["compress", "-q", "x", "FILE", *BM25, "--protect", "("], "regular expression"),
        (["compress", "-q", "x", "FILE", *BM25, "--tokenizer", "no such"], "tokenizer"),
        (["compress", "-q", "x", "FILE", *BM25, "--html", "no/such/page.html"], "No such file or directory"),
        (["compress", "--batch", "no/such.jsonl", *BM25], "no/such.jsonl"),
        (["compress", "-q", "x", "FILE", "--threshold", "2"], "[0, 1]"),
        (["compress", "-q", "x", "FILE", "--operating-point", ""], "must be safe, balanced or aggressive, got ''"),
        (["compress", "-q", "x", "FILE", "--operating-point", "bold"], "must be safe, balanced or aggressive"),
        (
            ["compress", "-q", "x", "FILE", "--operating-point", "safe", "--threshold", "0.1"],
            "operating_point='safe' and threshold=0.1",
        ),
        (["compress", "-q", "x", "FILE", *BM25, "--operating-point", "safe"], "bm25-sentences has no operating points"),
        (["compress", "-q", "x", "FILE", "--gap", "5"], "LEAST,MOST"),
        (["compress", "-q", "x", "FILE", "--gap", "5,2"], "1 <= least <= most"),
        (["compress", "-q", "x", "FILE", "--top-p", "2"], "(0, 1]"),
        (["compress", "-q", "x", "FILE", "--floor", "2"], "[0, 1]"),
        (["run", *BM25, "--retriever", "nosuch"], "nosuch"),
        (["run", *BM25, "--corpus", "FILE"], "question"),
        (["run", *BM25, "--corpus", "no/such", "-q", "x"], "no/such"),
        (["run", *BM25, "--corpus", "nofolder", "-q", "x"], "there is no file or folder nofolder; check the path"),
        (["compress", "-q", "x", "FILE", "-c", "xrag"], "only its own generator can read"),
        (["compress", "-q", "x", "FILE", "--model", "nope"], "no model at 'nope'; give a folder, a hub id"),
        (["compress", "-q", "x", "FILE", "-c", "llmlingua2", "--model", "nope"], "no model at 'nope'"),
        (["compress", "-q", "x", "FILE", "-c", "recomp-extractive", "--model", "nope"], "no model at 'nope'"),
        (["run", *BM25, "--generator", "nosuch:x"], "nosuch"),
        (["run", *BM25, "--generator", "openai:m"], "--base-url"),
        (
            ["run", *BM25, "--generator", "openai:m", "--base-url", "http://x/v1", "--api-key-env", "NO_SUCH_KEY_"],
            "KEY_",
        ),
    ],
)
def test_errors_are_one_line_and_exit_with_1(ctxprune_cli, text_file, arguments, message):
    code, out, err = ctxprune_cli(*(text_file if argument == "FILE" else argument for argument in arguments))
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and message in err and "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["compress"],
        ["compress", "-q", "x", "--batch", "f"],
        ["compress", "-q", "x", "--on-empty", "what", "f"],
    ],
)
def test_wrong_usage_exits_with_2(ctxprune_cli, arguments):
    code, out, err = ctxprune_cli(*arguments)
    assert (code, out) == (2, "")
    assert "ctxprune" in err


def test_no_utf8_and_no_input(ctxprune_cli, monkeypatch, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in ctxprune_cli("compress", "-q", "x", tmp_path / "x.bin", *BM25)[2]
    give(monkeypatch, b" \n")
    code, _, err = ctxprune_cli("compress", "-q", "x", *BM25)
    assert code == 1 and "standard input is empty" in err


def test_a_bug_is_told_without_a_traceback_unless_debugging(ctxprune_cli, monkeypatch, text_file):
    def fail(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr("ctxprune.options.load_counter", fail)
    code, _, err = ctxprune_cli("compress", "-q", "x", text_file, *BM25)
    assert code == 1 and err.startswith("error: unexpected RuntimeError: boom") and "--debug" in err
    with pytest.raises(RuntimeError, match="boom"):
        main(["--debug", "compress", "-q", "x", text_file, *BM25])


# --- models, doctor, train, version -----------------------------------------------------------------------------------


def test_models_lists_compressors_and_bundled_weights(ctxprune_cli):
    code, out, _ = ctxprune_cli("models")
    assert code == 0
    assert all(known.name in out for known in ctxprune.available())
    weights = out.split("Models in this package:")[1]
    assert "provence-mini" in weights and " MB, " in weights and "no licence stated" not in weights


def test_doctor_finds_a_working_installation(ctxprune_cli):
    code, out, _ = ctxprune_cli("doctor", "--json")
    report = json.loads(out)
    assert code == 0, report["self_test"]
    assert report["version"] == ctxprune.__version__
    assert report["self_test"]["works"] and report["self_test"]["warm_ms"] > 0 and report["self_test"]["threads"] >= 1
    assert report["packages"]["onnxruntime"] and report["device"] and report["dtype"]
    assert report["extras"]["dev"] == []


def test_doctor_exits_with_1_when_the_default_path_is_broken(ctxprune_cli, monkeypatch):
    def broken(*_, **__):
        raise ctxprune.CtxpruneError("weights gone")

    monkeypatch.setattr("ctxprune.load", broken)
    code, out, _ = ctxprune_cli("doctor")
    assert code == 1
    assert "BROKEN" in out and "weights gone" in out and "pip install" in out


def test_doctor_names_the_pip_command_of_a_missing_extra(ctxprune_cli, monkeypatch):
    monkeypatch.setattr("ctxprune.cli.doctor._installed", lambda package: package != "tiktoken")
    out = ctxprune_cli("doctor")[1]
    assert "missing tiktoken: pip install 'ctxprune-rag[tokens]'" in out


def test_train_passes_its_arguments_on(ctxprune_cli):
    code, out, _ = ctxprune_cli("train", "fusion", "--help")
    assert code == 0 and "--hold-out" in out
    code, _, err = ctxprune_cli("train", "fusion", "--model", "x", "--nonsense", "1")
    assert code == 2 and "--data" in err


def test_version_and_help(ctxprune_cli):
    assert ctxprune_cli("--version") == (0, f"ctxprune {ctxprune.__version__}\n", "")
    code, out, _ = ctxprune_cli("--help")
    assert code == 0 and all(name in out for name in ("compress", "run", "models", "doctor", "train"))


def test_doctor_says_plainly_that_torch_is_not_installed(ctxprune_cli, monkeypatch):
    def without_torch(**_):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    from ctxprune.cli import doctor

    described = doctor.describe()
    monkeypatch.setattr(doctor, "describe", lambda **options: without_torch() if options else described)
    _, out, _ = ctxprune_cli("doctor")
    assert "not installed; the bundled models do without" in out and "ModuleNotFoundError" not in out


def test_eval_run_says_what_to_give_when_there_is_nothing_to_test(ctxprune_cli, tmp_path):
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "Who?", "answers": ["Ada"], "documents": ["Ada did."]}\n')
    code, _, err = ctxprune_cli("eval", "run", "--data", str(data))
    assert code == 2 and "--compressor provence" in " ".join(err.split())
