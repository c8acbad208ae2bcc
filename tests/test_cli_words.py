"""Word compressors from the command line: a rate, scores ahead of time, and a folder that tells what it is."""

import json
from importlib.resources import files

import pytest
from fixtures_tokenclass import bert_classifier

from ctxprune import Context, load
from ctxprune.cli import main
from ctxprune.compressors.llmlingua.compressor import LLMLingua2

TEXT = "The Harrow Bridge, which cost $1,250,000, was opened in May 1911 by the mayor. Swallows nest under it."


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text(TEXT)
    return path


def test_a_rate_from_the_command_line(note, capsys):
    assert main(["compress", "-q", "x", "-c", "llmlingua2", "--rate", "0.5", "--json", str(note)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["tokens_after"] <= result["tokens_before"] // 2 + 1
    (document,) = result["documents"]
    assert all(TEXT[span["start"] : span["end"]] in TEXT for span in document["kept_spans"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-c", "provence", "--rate", "0.5"], "'provence' takes no --rate 0.5"),
        (["-c", "llmlingua2", "--rate", "1.5"], "rate must be in [0, 1], got 1.5"),
        (["-c", "random-words"], "random-words only ranks text and needs a budget"),
        (["-c", "selective-context", "--budget", "9"], "needs a causal language model; pass model="),
    ],
)
def test_what_does_not_fit_is_named(note, capsys, flags, message):
    assert main(["compress", "-q", "x", *flags, str(note)]) == 1
    assert message in capsys.readouterr().err


def test_scores_ahead_of_time(note, tmp_path, capsys):
    scores = tmp_path / "scores.sqlite"
    assert main(["index", str(note), "--scores", str(scores)]) == 0
    assert "1 document, 17 words" in capsys.readouterr().err
    indexed = load("llmlingua2", cache=scores)
    indexed.model = type("Unread", (), {"fingerprint": indexed.model.fingerprint})()  # has no `read`: must not need it
    fresh = load("llmlingua2", cache="memory")
    contexts = [Context.of("", [TEXT])]
    assert indexed.compress(contexts, budget=12) == fresh.compress(contexts, budget=12)


def test_a_folder_tells_its_family(tmp_path):
    bundled = files("ctxprune.bundled") / "llmlingua2-mini"
    assert isinstance(load(str(bundled)), LLMLingua2)
    assert isinstance(load(str(bert_classifier(tmp_path))), LLMLingua2)
