"""`ctxprune run` as a user runs it: what it shows of documents, answers and prompts, and what it asks."""

import json

from fixtures_cli import BM25, QUESTION, RELEVANT, TEXT, write_lines

from ctxprune.data import sample_questions


def test_run_shows_documents_sentences_tokens_and_answers(ctxprune_cli, tmp_path):
    code, out, err = ctxprune_cli("run", "-c", "bm25-sentences", "--budget", 100, "--html", tmp_path / "run.html")
    assert code == 0 and "run.html" in err
    assert out.count("Question ") == 6 and "\n  + [" in out and "\n  - [" in out
    assert "6 questions: " in out and "answer still in the kept text: " in out and " of 1" in out.splitlines()[-1]
    assert (tmp_path / "run.html").read_text(encoding="utf-8").count("<h2") == 6


def test_run_answers_the_sample_with_the_bundled_model(ctxprune_cli):
    code, out, _ = ctxprune_cli("run", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 6
    fates = [row["fate"] for row in rows]
    assert fates.count("kept") >= 3, fates
    assert sum(row["tokens_before"] for row in rows) > 4 * sum(row["tokens_after"] for row in rows)


def test_run_on_a_corpus_of_ones_own(ctxprune_cli, tmp_path, text_file):
    questions = write_lines(
        tmp_path / "q.jsonl",
        [
            {"question": QUESTION, "answers": ["1887"]},
            {"query": "How long do cats sleep?", "golden_answers": ["in a basket"]},
            {"question": "lighthouse keeper", "answerable": False},
            {"question": "bread"},
        ],
    )
    code, out, _ = ctxprune_cli("run", "--corpus", text_file, "--questions", questions, *BM25, "--no-title", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["fate"] for row in rows] == ["kept", "not retrieved", "not emptied", "unknown"]
    assert RELEVANT in rows[0]["prompt"] and QUESTION in rows[0]["prompt"]


def test_run_says_when_pruning_loses_an_answer(ctxprune_cli, text_file, tmp_path):
    questions = write_lines(tmp_path / "q.jsonl", [{"question": "lighthouse", "answers": ["every morning"]}])
    _, out, _ = ctxprune_cli("run", "--corpus", text_file, "--questions", questions, *BM25, "--no-title")
    assert "ANSWER LOST: every morning" in out
    assert "answer still in the kept text: 0 of 1 retrieved" in out


def test_run_with_questions_of_ones_own_on_the_sample(ctxprune_cli, tmp_path):
    known = sample_questions()[0]
    plain = tmp_path / "q.txt"
    plain.write_text("Where is Varnholt?\n\n", encoding="utf-8")
    code, out, _ = ctxprune_cli("run", "-q", known.question, "--questions", plain, "-k", 2, *BM25, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["query"] for row in rows] == [known.question, "Where is Varnholt?"]
    assert rows[0]["answers"] == list(known.answers) and "answers" not in rows[1]
    assert [len(row["documents"]) for row in rows] == [2, 2]


def test_run_on_retrieved_documents(ctxprune_cli, tmp_path):
    path = write_lines(
        tmp_path / "found.jsonl", [{"question": QUESTION, "documents": [TEXT, "x"], "answers": ["1887"]}]
    )
    code, out, _ = ctxprune_cli("run", "--retriever", path, *BM25, "--show-prompt")
    assert code == 0
    assert "answer kept: 1887" in out and "  | Answer the question" in out


def test_run_asks_the_generator(ctxprune_cli, monkeypatch, text_file):
    class Echo:
        name = "echo"

        def generate(self, prompts, *, max_new_tokens=64):
            return [f"read {RELEVANT in prompt}" for prompt in prompts]

    monkeypatch.setattr("ctxprune.cli.options.load_generator", lambda *_, **__: Echo())
    arguments = ["run", "--corpus", text_file, "-q", QUESTION, *BM25, "--no-title", "--generator", "local:echo"]
    assert "Answer: read True" in ctxprune_cli(*arguments)[1]
    assert json.loads(ctxprune_cli(*arguments, "--json")[1])["answer"] == "read True"
