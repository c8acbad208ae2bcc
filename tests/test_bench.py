"""The benchmark's clocks, scales, text and tables on tiny inputs; no test asserts how long anything takes."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxprune
from benchmarks import speed as bench
from benchmarks import speed_torch as bench_torch
from benchmarks.measure import (
    HEAVY,
    Timing,
    cold_start,
    contexts,
    growth,
    hammer,
    imported,
    machine,
    mixed_requests,
    passages,
    repeated_memory,
    run_child,
    speed_up,
    stopwatch,
    time_in_turn,
    warm,
    with_exponents,
)
from benchmarks.speed import render
from benchmarks.speed_torch import (
    ONE_LOOK,
    PADDED,
    PEERS,
    PLAIN,
    RUNTIME,
    WHOLE,
    EncoderSize,
    TorchWorker,
    forward_padded,
    int8_peak,
    model_inputs,
    throughput,
)
from ctxprune.data import sample_corpus
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.report.markdown import compact as table
from ctxprune.pipeline import Pipeline
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.device import memory_mb
from ctxprune.runtime.torch import TorchRuntime

TINY = EncoderSize(layers=2, width=16, heads=2, inner=24, vocabulary=40)
PLAN = bench.Plan(
    cold_runs=1,
    warm_calls=2,
    throughput=((3, 1),),
    peak_sides=(32,),
    peak_repeats=1,
    growth_documents=(1, 2),
    growth_words=(50, 100),
    growth_repeats=1,
    memory_calls=2,
    memory_documents=2,
    hammer_threads=2,
    hammer_seconds=0.0,
    hammer_requests=2,
)


def bm25():
    return Pipeline([ctxprune.load("bm25-sentences", budget=60)])


def sequences_of(lengths):
    generator = np.random.default_rng(0)
    return [TokenSequence(generator.integers(5, 40, n), np.arange(n, dtype=np.int64) // (n // 2 + 1)) for n in lengths]


def test_a_timing_gives_median_tail_and_ends():
    timing = Timing(tuple(float(second) for second in range(1, 101)))
    figures = timing.to_dict()
    assert (figures["median"], figures["low"], figures["high"]) == (50.5, 1.0, 100.0)
    assert figures["p95"] == pytest.approx(95.05)
    assert figures["runs"] == list(timing.seconds)
    with pytest.raises(InputError, match="at least one run"):
        Timing(())


def test_tasks_run_in_turn_after_a_round_that_does_not_count():
    calls, seconds = [], itertools.count(1)

    def task(name):
        return lambda: calls.append(name) or float(next(seconds))

    timings = time_in_turn({"a": task("a"), "b": task("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert timings == {"a": Timing((3.0, 5.0)), "b": Timing((4.0, 6.0))}


def test_a_stopwatch_does_the_work_and_tells_the_time():
    done = []
    assert stopwatch(lambda: done.append(1))() > 0
    assert done == [1]


def test_speed_up_pairs_the_rounds():
    ratios = speed_up(Timing((1.0, 2.0, 4.0)), Timing((4.0, 4.0, 4.0)))
    assert ratios == {"median": 2.0, "low": 1.0, "high": 4.0}
    with pytest.raises(InputError, match="equally many, got 1 and 2"):
        speed_up(Timing((1.0,)), Timing((1.0, 2.0)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30), st.integers(1, 200), st.integers(0, 99))
def test_passages_have_exactly_the_words_asked_for(count, words, seed):
    texts = passages(count, words=words, seed=seed)
    assert [len(text.split()) for text in texts] == [words] * count
    assert texts == passages(count, words=words, seed=seed)
    assert texts == [text.strip() for text in texts]


def test_passages_are_the_corpus_in_other_orders():
    known = {word for document in sample_corpus() for word in document.text.split()}
    (long,) = passages(1, words=30_000)
    assert len(long.split()) == 30_000
    assert set(long.split()) <= known
    assert passages(3, seed=1) != passages(3, seed=2)
    assert len(set(passages(300))) > 290, "repeats of the corpus must be cut elsewhere"


def test_contexts_share_out_the_passages():
    batch = contexts(7, each=3, words=20)
    assert [len(context.pieces) for context in batch] == [3, 3, 1]
    assert len({context.query for context in batch}) == 3
    assert [extract.source.text for context in batch for extract in context.extracts] == passages(7, words=20)


@given(st.lists(st.integers(1, 60), max_size=5))
def test_flops_are_those_of_every_product_of_every_token(lengths):
    operations = 0
    for length in lengths:
        for _ in range(TINY.layers):
            for _token in range(length):
                operations += 4 * 2 * TINY.width * TINY.width  # query, key, value, output
                operations += 2 * 2 * TINY.width * TINY.inner  # there and back
                operations += 2 * 2 * length * TINY.width  # scores, then weighted values, over all heads
    assert TINY.flops(lengths) == operations


def test_flops_agree_with_torchs_own_count():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=TINY.vocabulary,
        hidden_size=TINY.width,
        num_hidden_layers=TINY.layers,
        num_attention_heads=TINY.heads,
        intermediate_size=TINY.inner,
        attn_implementation="eager",
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones((1, 13), dtype=torch.long))
    assert counter.get_total_flops() == TINY.flops([13])


def test_the_padded_peer_computes_what_the_runtime_computes():
    module = bench_torch._module("float32", TINY)
    sequences = sequences_of([5, 30, 9, 17] * 9)
    expected = TorchRuntime(module, device="cpu", dtype="float32").forward(sequences)
    batches = forward_padded(module, sequences)
    assert [len(batch["rank_logits"]) for batch in batches] == [32, 4]
    for place, sequence in enumerate(sequences):
        batch, row = batches[place // 32], place % 32
        np.testing.assert_allclose(batch["rank_logits"][row], expected[place]["rank_logits"], atol=1e-4)
        tokens = batch["token_logits"][row, : len(sequence)]
        np.testing.assert_allclose(tokens, expected[place]["token_logits"], atol=1e-4)


def test_memory_of_this_process_grows_with_what_it_holds():
    before = memory_mb()
    if before is None:
        pytest.skip("no /proc here")
    held = np.ones(100_000_000, dtype=np.uint8)
    after = memory_mb()
    assert after["peak"] >= after["now"] >= before["now"] + 80
    assert held[-1] == 1


def test_memory_of_a_child_is_its_own():
    held = np.ones(300_000_000, dtype=np.uint8)  # a child must not be blamed for what its parent holds
    _, small = run_child([sys.executable, "-c", "pass"])
    seconds, large = run_child([sys.executable, "-c", "held = b'x' * 100_000_000"])
    assert 0 < small < 80 < 100 < large < 250
    assert seconds > 0
    assert held[-1] == 1


def test_a_child_that_fails_is_an_error():
    with pytest.raises(CtxpruneError, match="exit status 3"):
        run_child([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(CtxpruneError, match="cannot start"):
        run_child(["/nowhere/at/all"])


def test_imports_of_a_script_are_seen(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import wave\n")
    assert "wave" in imported([str(script)])
    script.write_text("raise SystemExit('no such option')\n")
    with pytest.raises(CtxpruneError, match="exit status 1: no such option"):
        imported([str(script)])


def test_the_machine_is_described():
    described = machine()
    assert described["processor"]
    assert described["cpus"] >= 1
    assert described["packages"]["numpy"] == np.__version__


@given(st.floats(0.5, 2.5), st.floats(1e-6, 1e-2))
def test_exponents_are_the_slope_of_the_logarithms(power, scale):
    rows = [{"size": size, "seconds": {"median": scale * size**power}} for size in (10, 100, 1000)]
    first, *others = (row["exponent"] for row in with_exponents(rows))
    assert first is None
    assert others == pytest.approx([power, power])


def test_growth_and_memory_have_a_row_a_size_and_a_figure_a_call():
    figures = growth(bm25(), documents=(1, 3), words=(20, 40), repeats=2)
    assert [row["size"] for row in figures["documents"]] == [1, 3]
    assert [row["size"] for row in figures["words"]] == [20, 40]
    assert all(len(row["seconds"]["runs"]) == 2 for rows in figures.values() for row in rows)
    resident = repeated_memory(bm25(), calls=3, documents=2)
    assert resident is None or len(resident) == 3


def test_warm_calls_bring_new_text_every_time_and_the_same_to_all():
    class Spy(Pipeline):
        def run(self, batch, **options):
            seen.setdefault(id(self), []).extend(context.extracts[0].source.text for context in batch)
            return super().run(batch, **options)

    seen = {}
    rows = warm({name: Spy(bm25().compressors) for name in ("one", "other")}, calls=4)
    assert [row["name"] for row in rows] == ["one", "other"]
    one, other = seen.values()
    assert one == other
    assert len(set(one)) == 5


def test_threads_get_the_same_answers():
    figures = hammer(bm25(), threads=4, seconds=0.05, requests=mixed_requests(4))
    assert figures["mismatches"] == 0
    assert figures["requests"] >= 4
    assert figures["distinct"] == 4


def test_answers_that_change_are_counted():
    class Restless:
        """Scores that grow by every call."""

        name = "restless"
        calls = itertools.count()

        def compress(self, batch, *, budget=None, threshold=None):
            return [replace(context, pieces=tuple(map(self.rescored, context.pieces))) for context in batch]

        def rescored(self, piece):
            return replace(piece, score=float(next(self.calls)))

    figures = hammer(Pipeline([Restless()]), threads=3, seconds=0.0, requests=mixed_requests(2))
    assert figures["mismatches"] == figures["requests"] == 3


def test_an_error_in_a_thread_is_raised():
    class Failing:
        name = "failing"
        calls = itertools.count()

        def compress(self, batch, *, budget=None, threshold=None):
            if next(self.calls) > 1:
                raise CtxpruneError("lost in a thread")
            return list(batch)

    with pytest.raises(CtxpruneError, match="lost in a thread"):
        hammer(Pipeline([Failing()]), threads=2, seconds=0.05, requests=mixed_requests(2))


def test_mixed_requests_differ_in_size():
    sizes = [
        sum(len(extract.source.text.split()) for c in request for extract in c.extracts)
        for request in mixed_requests(8)
    ]
    assert len(set(sizes)) == 8


def test_model_inputs_hold_question_and_passage():
    batch = contexts(3, each=2, words=30)
    inputs = model_inputs(batch)
    assert len(inputs.sequences) == 3
    passage = [int(sequence.type_ids.sum()) - 1 for sequence in inputs.sequences]  # less the last separator
    assert sum(passage) == inputs.passage_tokens
    assert inputs.model_tokens == sum(len(sequence) for sequence in inputs.sequences)
    windows = model_inputs(contexts(1, words=300), max_length=128).sequences
    assert len(windows) > 2
    assert max(map(len, windows)) <= 128


def test_throughput_of_a_stand_in_has_the_pipeline_alone():
    figures = throughput(bm25(), count=3, rounds=2, worker=None)
    (row,) = figures["rows"]
    assert row["name"] == WHOLE
    assert row["words_per_second"] == pytest.approx(300 / row["seconds"]["median"])
    assert row["speed_up"] is None


def test_throughput_of_the_bundled_model_has_its_runtime_and_the_plain_loop():
    figures = throughput(Pipeline([ctxprune.load("provence")]), count=3, rounds=1, worker=None)
    assert [row["name"] for row in figures["rows"]] == [WHOLE, ONE_LOOK, RUNTIME, PLAIN]
    assert {row["dtype"] for row in figures["rows"]} == {"int8"}


def test_the_int8_peak_is_measured():
    pytest.importorskip("onnx")
    assert int8_peak(sides=[32], repeats=2) > 0


@pytest.mark.slow
def test_torch_peers_answer_from_their_own_process():
    with TorchWorker(TINY) as worker:
        assert worker.threads() >= 1
        assert all(worker.seconds(peer, sequences_of([4, 9, 6])) > 0 for peer in PEERS)
        assert worker.matmul_peak("bfloat16", sides=[16], repeats=1) > 0


@pytest.mark.slow
def test_cold_start_of_the_command_is_light():
    figures = cold_start("bm25-sentences", ["--budget", "60"], runs=1)
    assert figures["heavy"] == []
    assert figures["rows"][-1]["name"] == "ctxprune compress --compressor bm25-sentences"
    assert "torch" in HEAVY


def test_a_table_escapes_and_aligns():
    assert table(["name", "ms"], [["a|b", "1"]]) == "| name | ms |\n| --- | ---: |\n| a\\|b | 1 |"


def test_the_benchmark_writes_markdown_and_json(tmp_path, monkeypatch, capsys):
    def no_command(*_arguments, **_options):
        raise CtxpruneError("no command here")

    monkeypatch.setattr(bench, "cold_start", no_command)
    monkeypatch.setattr(bench, "QUICK", PLAN)
    given = ["--quick", "--no-torch", "--compressor", "bm25-sentences", "--out", str(tmp_path)]
    assert bench.main(given) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["command"].startswith("python -m benchmarks.speed --quick --no-torch")
    assert any(note == "cold start: no command here" for note in report["notes"])
    text = (tmp_path / "bench.md").read_text()
    assert text == render(report)
    assert text in capsys.readouterr().out
    for heading in ("Warm latency", "Throughput", "Growth", "Threads"):
        assert f"## {heading}\n" in text
    assert "## Cold start" not in text


def test_a_report_shows_speed_up_and_share_of_peak():
    seconds = Timing((1.0, 2.0)).to_dict()
    row = {
        "name": PADDED,
        "dtype": "float32",
        "seconds": seconds,
        "words_per_second": 1234.5,
        "passage_tokens_per_second": 2000.0,
        "flops_per_second": 2.5e9,
        "speed_up": {"median": 1.0, "low": 0.5, "high": 2.0},
    }
    size = {"passages": 10, "words": 1000, "passage_tokens": 1500, "model_tokens": 1600, "flops": 1.0, "rows": [row]}
    figures = {"peaks": {"float32": 1e10}, "sizes": [size]}
    text = render({"command": "it", "machine": machine(), "notes": [], "throughput": figures})
    assert f"| {PADDED} | 1.500 [1.000, 2.000] | 1,234 | 2,000 | 1.00 [0.50, 2.00] | 25% of float32 |" in text


def test_a_different_answer_ends_in_status_one(tmp_path, monkeypatch):
    figures = {"threads": 2, "seconds": 1.0, "requests": 9, "distinct": 3, "mismatches": 1}
    report = {"machine": machine(), "notes": [], "threads": figures}
    monkeypatch.setattr(bench, "measure", lambda *_arguments, **_options: report)
    assert bench.main(["--out", str(tmp_path)]) == 1
    assert "**1 unlike the answer computed alone**" in (tmp_path / "bench.md").read_text()


def test_an_unknown_compressor_is_said_and_no_traceback(tmp_path, capsys):
    assert bench.main(["--compressor", "no-such-thing", "--out", str(tmp_path)]) == 1
    assert "error: no compressor named 'no-such-thing'" in capsys.readouterr().err


def test_a_childs_bytecode_may_be_kept_whatever_this_process_does(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    run_child([sys.executable, "-c", "import sys; raise SystemExit(sys.dont_write_bytecode)"])
