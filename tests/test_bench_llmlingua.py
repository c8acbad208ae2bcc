"""The comparison with llmlingua on tiny classifiers, llmlingua played by a stand-in; nothing asserts a duration."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import llmlingua as bench
from benchmarks.llmlingua import Outcome, Task, ThirdsCounter, perform, run_task
from benchmarks.speed_torch import EncoderSize
from ctxprune.compressors.llmlingua.checkpoint import load_token_classifier
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.integrations.llmlingua.compressor import PromptCompressor
from ctxprune.trainers.llmlingua2.export import export_checkpoint
from tests.fixtures_tokenclass import bert_classifier, varied_text

TEXTS = tuple(varied_text(30, seed=seed) for seed in range(4))
FLAGS = st.lists(st.text("01", max_size=6), max_size=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return bert_classifier(tmp_path_factory.mktemp("classifier"))


def task_on(folder, **changes):
    common = {"package": "ctxprune", "texts": TEXTS, "together": False, "rate": 0.5, "unknown_ends": False}
    return Task(model=str(folder), **common | changes)


def kept(compressor, text, **options):
    result = compressor.compress_prompt([text], rate=0.5, return_word_label=True, word_sep="\x1e", **options)
    return "".join(word[-1] for word in result["fn_labeled_original_prompt"].split("\x1e"))


def test_a_task_gives_the_flags_of_every_call(checkpoint):
    compressor = PromptCompressor(str(checkpoint), "cpu", counter=ThirdsCounter())
    assert perform(task_on(checkpoint)).flags == tuple(kept(compressor, text) for text in TEXTS)
    (together,) = perform(task_on(checkpoint, together=True)).flags
    assert len(together) == sum(len(kept(compressor, text)) for text in TEXTS)


def test_llmlingua_runs_on_the_same_options_and_counts_offline(checkpoint, monkeypatch):
    class Reference:
        def __init__(self, model, device_map, use_llmlingua2):
            assert (model, device_map, use_llmlingua2) == (str(checkpoint), "cpu", True)
            self.encoding = sys.modules["tiktoken"].encoding_for_model("gpt-3.5-turbo")

        def compress_prompt(self, context, *, rate, return_word_label, word_sep, label_sep):
            words = [word for text in context for word in text.split()]
            labels = [f"{word}{label_sep}{int(len(self.encoding.encode(word)) > 1)}" for word in words]
            return {"fn_labeled_original_prompt": word_sep.join(labels)}

    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.setitem(sys.modules, "llmlingua", SimpleNamespace(PromptCompressor=Reference))
    outcome = perform(task_on(checkpoint, package="llmlingua", texts=("red planet is", "a mars")))
    assert outcome.flags == ("010", "01")


def test_a_child_process_gives_the_same_flags_and_its_memory(checkpoint):
    outcome = run_task(task_on(checkpoint), limit_seconds=600)
    assert outcome.flags == perform(task_on(checkpoint)).flags
    assert outcome.seconds > 0 and (outcome.peak_mb is None or outcome.peak_mb > 10)


def test_a_child_that_is_late_or_fails(checkpoint, tmp_path):
    assert run_task(task_on(checkpoint), limit_seconds=0.001) is None
    with pytest.raises(CtxpruneError, match="nothing-here"):
        run_task(task_on(tmp_path / "nothing-here"), limit_seconds=600)


@given(FLAGS, FLAGS)
def test_agreement_counts_words_and_calls(ours, theirs):
    size = min(len(ours), len(theirs))
    ours, theirs = ours[:size], theirs[:size]
    same = 0
    for one, two in zip(ours, theirs, strict=True):
        for place in range(len(one) if len(one) == len(two) else 0):
            same += one[place] == two[place]
    share, calls = bench.agreement(ours, theirs)
    assert share == same / max(1, len("".join(theirs)))
    assert calls == len([place for place in range(size) if ours[place] == theirs[place]])


def test_loads_are_cut_from_the_corpus():
    corpus = [" ".join(f"w{place}-{word}" for word in range(30)) for place in range(5)]
    each, together, long, short = bench.make_loads(corpus, passages=3, words=25, long_words=70, short=4)
    assert [len(text.split()) for text in each.texts] == [25] * 3 and each.texts == together.texts
    assert (each.together, together.together, short.together) == (False, True, True)
    assert long.texts[0].split() == " ".join(corpus).split()[:70]
    assert [text.split()[0] for text in short.texts] == ["w0-0", "w1-0", "w2-0", "w3-0"]
    with pytest.raises(InputError, match="has 150 words, 200 are asked for"):
        bench.make_loads(corpus, passages=3, words=25, long_words=200, short=4)


def test_rows_and_what_is_left_out(monkeypatch, tmp_path):
    seconds = {"llmlingua": {2: 8.0, 1: None}, "ctxprune": {2: 2.0, 1: 1.0}}

    def answer(task, *, limit_seconds):
        found = seconds[task.package][len(task.texts)]
        return None if found is None else Outcome(found, 100.0 if task.package == "ctxprune" else 400.0, ("10", "11"))

    monkeypatch.setattr(bench, "run_task", answer)
    contenders = [bench.Contender("theirs", tmp_path, llmlingua=True), bench.Contender("ours", tmp_path)]
    loads = [
        bench.Load("two", ("a", "b"), together=False),
        bench.Load("one", ("a",), together=False),
        bench.Load("many", ("a",) * 9, together=True),
    ]
    seconds["ctxprune"][9] = 9.0
    rows, notes = bench.compare(contenders, loads, rate=0.5, limit_seconds=20.0, unknown_ends=False)
    assert rows == [
        ["two", "theirs", "8.00", "–", "400", "–", "–", "–"],
        ["two", "ours", "2.00", "4.0", "100", "25%", "100.00%", "2 of 2"],
        ["one", "ours", "1.00", "–", "100", "–", "–", "–"],
        ["many", "ours", "9.00", "–", "100", "–", "–", "–"],
    ]
    assert notes == [
        "theirs on one: over the limit of 20 s",
        "theirs on many: over the limit of 20 s, some 36 s by its pace on passages",
    ]


def test_the_command_prints_a_table_without_llmlingua(checkpoint, tmp_path, monkeypatch, capsys):
    class Worker:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def matmul_peak(self, dtype, *, sides, repeats):
            return 1e6

    corpus = tmp_path / "corpus.txt"
    corpus.write_text(varied_text(60, seed=1))
    monkeypatch.setattr(bench, "run_task", lambda task, *, limit_seconds: perform(task))
    monkeypatch.setattr(bench, "TorchWorker", Worker)
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    sizes = ["--passages", "1", "--words", "10", "--long-words", "40", "--short", "1"]
    assert bench.main(["--checkpoint", str(checkpoint), "--data", str(corpus), *sizes]) == 0
    printed = capsys.readouterr().out
    assert printed.count("ctxprune.integrations.llmlingua.compressor, fp32, torch") == 4
    assert "Left out: llmlingua is not installed" in printed and "no --onnx" in printed
    tokens = int(printed.split("the passages' ")[1].split()[0])
    flops = EncoderSize(layers=2, width=16, heads=2, inner=24, vocabulary=1).flops([tokens])
    assert f"{flops / 1e6:.1f} s at the fp32 matmul peak" in printed


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, capsys):
    assert bench.main(["--checkpoint", str(tmp_path), "--data", "x.txt"]) == 1
    assert "config.json" in capsys.readouterr().err


def test_an_exported_checkpoint_decides_as_the_checkpoint(checkpoint, tmp_path):
    export_checkpoint(load_token_classifier(checkpoint), tmp_path, texts=TEXTS, name="tiny")
    counter, forced = (
        ThirdsCounter(),
        ["red planet"],
    )  # two tokens: read as the marker that the checkpoint has a row for
    torch, onnx = (PromptCompressor(str(folder), "cpu", counter=counter) for folder in (checkpoint, tmp_path / "fp32"))
    texts = [varied_text(200, seed=9), "the red planet orbits"]
    assert onnx.model.rows == torch.model.rows > onnx.model.tokenizer.get_vocab_size()
    for text in texts:
        assert kept(onnx, text, force_tokens=forced) == kept(torch, text, force_tokens=forced)
    small = PromptCompressor(str(tmp_path / "int8"), "cpu", counter=counter)
    assert small.model.runtime.dtype == "int8" and len(kept(small, texts[0])) == len(kept(torch, texts[0]))
