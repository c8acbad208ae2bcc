"""The example scripts run on tiny inputs, and the Python of the migration page runs as printed."""

import importlib.util
import json
import pkgutil
import re
from pathlib import Path

import pytest
from fixtures_server import Upstream, running

ROOT = Path(__file__).parents[1]
QUESTION = "When was the Harrow Bridge opened?"
BRIDGE = "The bridge is of granite. It was opened in 1911. Swallows nest under it."


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def questions(tmp_path):
    start, place = BRIDGE.index("It was"), BRIDGE.index("1911")
    gold = {
        "text": BRIDGE,
        "is_gold": True,
        "answer_spans": [[place, place + 4]],
        "relevant_sentences": [[start, place + 5]],
    }
    other = {"text": "The ferry runs every hour. Bicycles travel free.", "is_gold": False, "relevant_sentences": []}
    rows = [
        {"id": str(number), "question": QUESTION, "answers": ["1911"], "documents": [gold, other]}
        for number in range(6)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_sidecar_openai(capsys):
    pytest.importorskip("openai")
    from ctxprune.integrations.server import Settings, create_app

    upstream = Upstream()
    with running(upstream) as above:
        settings = Settings(upstream_url=f"{above}/v1", deadline_seconds=600)  # a busy machine is no bug
        with running(create_app(settings)) as url:
            example("sidecar_openai").main(
                ["When is a Flex ticket refunded?", "--model", "m", "--base-url", f"{url}/v1"]
            )
    answer, tokens = capsys.readouterr().out.splitlines()
    assert answer == "In 1911."
    before, after = map(int, re.findall(r"\d+", tokens))
    assert 0 < after < before
    [(_, _, body)] = upstream.seen
    sent = json.loads(body)
    assert "ctxprune" not in sent
    assert "Flex" in sent["messages"][1]["content"]


def test_evaluate_my_questions(questions, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    example("evaluate_my_questions").main(
        [str(questions), "--compressors", "bm25-sentences", "--budget", "30", "--out", str(out)]
    )
    assert "bm25-sentences" in capsys.readouterr().out
    assert (out / "report.html").exists()


def test_train_on_my_data(questions, tmp_path, capsys):
    pytest.importorskip("accelerate")
    from fixtures_checkpoints import bert_tokenizer
    from transformers import BertConfig, BertModel

    base, tokenizer = tmp_path / "base", bert_tokenizer()
    BertModel(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=128,
        )
    ).save_pretrained(base)
    tokenizer.save(str(base / "tokenizer.json"))
    options = ["--cpu", "--precision", "no", "--batch-size", "2", "--max-steps", "2", "--max-length", "96"]
    arguments = [str(questions), "--base", str(base), "--out", str(tmp_path / "run"), "--hold-out", "0", *options]
    example("train_on_my_data").main(arguments)
    assert re.search(rf"{re.escape(QUESTION)}: \d+ -> \d+ tokens", capsys.readouterr().out)
    assert (tmp_path / "run" / "history.json").exists()


def test_ray_corpus_without_ray(tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in [("b", BRIDGE), ("e", "")])
    )
    arguments = [str(corpus), "--out", str(tmp_path / "vectors"), "--workers", "1", "--question", QUESTION]
    module = example("ray_corpus")
    module.main(arguments)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "2 passages in 1 parts, 0 of them from an earlier run"
    found = [re.fullmatch(r"(0\.\d\d) b \[(\d+):(\d+)\]", line).groups() for line in told[1:]]
    assert [score for score, *_ in found] == sorted((score for score, *_ in found), reverse=True)
    sentences = {BRIDGE[int(start) : int(end)] for _, start, end in found}
    assert sentences == {"The bridge is of granite.", "It was opened in 1911.", "Swallows nest under it."}
    module.main(arguments)
    assert "1 of them from an earlier run" in capsys.readouterr().out
    assert module.SAMPLE.is_file()


def test_the_migration_page_runs(capsys):
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 4
    scope = {}
    printed = []
    for block in blocks:
        exec(compile(block, "migrating.md", "exec"), scope)  # our own text
        printed.append(capsys.readouterr().out)
    assert "1911" in printed[1]
    assert "1911" in printed[2]
    assert printed[3].startswith("[('d1', ")


def test_names_on_the_migration_page_exist():
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    names = set(re.findall(r"ctxprune(?:\.\w+)+", page))
    assert names
    for name in names:
        assert pkgutil.resolve_name(name)
