import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ctxprune.errors import CheckpointError, InputError
from ctxprune.runtime import EncoderRuntime, TokenSequence
from ctxprune.runtime.onnx import DTYPE, MAX_LENGTH, OnnxRuntime

ROWS, WIDTH, POSITIONS = 60, 8, 512
RANDOM = np.random.default_rng(0)
WORDS = RANDOM.normal(size=(ROWS, WIDTH)).astype(np.float32)
PLACES = RANDOM.normal(size=(POSITIONS, WIDTH)).astype(np.float32)
TYPES = RANDOM.normal(size=(2, WIDTH)).astype(np.float32)
# 7 bits: x86 processors without VNNI saturate a sum of two products of 8 bits each, and the slow loop does not
WEIGHT = RANDOM.integers(-63, 64, size=(WIDTH, 2)).astype(np.int8)


def write_encoder(path, *, int8=False, metadata=None, extra_input=None):
    """states = WORDS[ids] + TYPES[types] + PLACES[place], summed up over the sequence; token_logits = states @ WEIGHT,
    rank_logits their mean. int8: states are quantised with one scale for the whole call, as exports are."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["word"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["type"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["places", "zero", "length", "zero"], ["place"]),
        helper.make_node("Sum", ["word", "type", "place"], ["sum"]),
        helper.make_node("CumSum", ["sum", "one"], ["states"]),
    ]
    if int8:
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["states"], ["quantised", "scale", "shift"]),
            helper.make_node("MatMulInteger", ["quantised", "weight", "shift"], ["product"]),
            helper.make_node("Cast", ["product"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["token_logits"]),
        ]
    else:
        nodes += [
            helper.make_node("Cast", ["weight"], ["float_weight"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["states", "float_weight"], ["token_logits"]),
        ]
    nodes.append(helper.make_node("ReduceMean", ["token_logits", "one"], ["rank_logits"], keepdims=0))
    constants = {"words": WORDS, "types": TYPES, "places": PLACES, "weight": WEIGHT}
    constants |= {"zero": np.array([0]), "one": np.array([1])}
    names = ["input_ids", "token_type_ids", *([extra_input] if extra_input else [])]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in names],
        [
            helper.make_tensor_value_info("token_logits", TensorProto.FLOAT, ["batch", "seq", 2]),
            helper.make_tensor_value_info("rank_logits", TensorProto.FLOAT, ["batch", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def sequence(length, *, seed=0):
    random = np.random.default_rng((seed, length))
    return TokenSequence(random.integers(0, ROWS, length), (np.arange(length) > length // 3).astype(np.int64))


def by_hand(given):
    state, logits = np.zeros(WIDTH), []
    for place, (token, kind) in enumerate(zip(given.ids, given.type_ids, strict=True)):
        state = state + WORDS[token] + TYPES[kind] + PLACES[place]
        logits.append(state @ WEIGHT)
    return np.array(logits)


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    metadata = {DTYPE: "int8", MAX_LENGTH: str(POSITIONS), "fusion": "{}"}
    return write_encoder(tmp_path_factory.mktemp("onnx") / "model.onnx", int8=True, metadata=metadata)


@pytest.fixture(scope="module")
def runtime(path):
    with OnnxRuntime(path, threads=2) as opened:
        yield opened


def test_it_is_an_encoder_runtime_that_says_what_the_export_recorded(runtime):
    checked: EncoderRuntime = runtime
    assert (checked.device, checked.dtype, runtime.metadata["fusion"]) == ("cpu", "int8", "{}")


def test_outputs_are_those_of_a_slow_loop(tmp_path):
    given = [sequence(length) for length in (1, 2, 7, 512, 3)]
    with OnnxRuntime(write_encoder(tmp_path / "model.onnx"), threads=2) as runtime:
        assert runtime.dtype == "float32"
        for each, output in zip(given, runtime.forward(given), strict=True):
            np.testing.assert_allclose(output["token_logits"], by_hand(each), rtol=1e-3, atol=0.1)
            np.testing.assert_allclose(output["rank_logits"], by_hand(each).mean(axis=0), rtol=1e-3, atol=0.1)
            assert output["token_logits"].dtype == np.float32


def test_int8_outputs_are_near_the_slow_loop(runtime):
    for length in (1, 2, 50, 512):
        (output,) = runtime.forward([sequence(length)])
        expected = by_hand(sequence(length))
        assert np.abs(output["token_logits"] - expected).max() < 0.02 * max(np.abs(expected).max(), 100)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 512), max_size=12))
def test_an_output_depends_on_its_own_sequence_alone(runtime, lengths):
    given = [sequence(length, seed=place) for place, length in enumerate(lengths)]
    together = runtime.forward(given)
    assert len(together) == len(given)
    backwards = runtime.forward(given[::-1])[::-1]
    for each, left, right in zip(given, together, backwards, strict=True):
        assert same(left, right)
        assert same(left, runtime.forward([each])[0])


def test_sixteen_threads_at_once_get_what_one_gets(runtime):
    batches = [[sequence(1 + (7 * place + step) % 90, seed=place) for step in range(6)] for place in range(16)]
    expected = [runtime.forward(batch) for batch in batches]
    together = threading.Barrier(16)

    def hammer(place):
        together.wait(300)
        for _ in range(20):
            outputs = runtime.forward(batches[place])
            assert all(same(left, right) for left, right in zip(expected[place], outputs, strict=True))

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(hammer, range(16)))


def test_never_more_sequences_at_a_time_than_threads(path, monkeypatch):
    """Whether they come from one caller's batch or from many callers, so that memory stays bounded."""
    running, most, runs, lock, three = 0, 0, 0, threading.Lock(), threading.Barrier(3)

    class Watched:
        def __init__(self, session):
            self.session = session

        def run(self, names, feeds):
            nonlocal running, most, runs
            with lock:
                running, runs = running + 1, runs + 1
                most, first = max(most, running), runs <= 3
            if first:
                three.wait(300)  # broken unless three are let in
            time.sleep(0.002)  # a moment in which a fourth would be seen
            outputs = self.session.run(names, feeds)
            with lock:
                running -= 1
            return outputs

    with OnnxRuntime(path, threads=3) as runtime, ThreadPoolExecutor(12) as callers:
        monkeypatch.setattr(runtime, "_session", Watched(runtime._session))
        list(callers.map(lambda length: runtime.forward([sequence(length)] * (1 + length % 4)), range(1, 30)))
    assert most == 3


def test_a_mask_of_ones_is_passed_to_files_that_take_one(tmp_path):
    with OnnxRuntime(write_encoder(tmp_path / "model.onnx", extra_input="attention_mask")) as runtime:
        (output,) = runtime.forward([sequence(5)])
    np.testing.assert_allclose(output["token_logits"], by_hand(sequence(5)), rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("threads", [0, -3])
def test_threads_below_one_are_refused(path, threads):
    with pytest.raises(InputError, match=f"at least 1, got {threads}"):
        OnnxRuntime(path, threads=threads)


def test_an_empty_sequence_and_one_beyond_the_model_are_refused(runtime):
    with pytest.raises(InputError, match="no tokens"):
        runtime.forward([sequence(4), sequence(0)])
    with pytest.raises(InputError, match=r"513 tokens.*takes 512"):
        runtime.forward([sequence(513)])


def test_no_sequences_no_outputs(runtime):
    assert runtime.forward([]) == []


@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "text", "cut off"])
def test_a_damaged_file_is_a_checkpoint_error(path, tmp_path, content, capfd):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[:1500] if content is None else content)
    with pytest.raises(CheckpointError, match=r"damaged\.onnx.*export or download it again"):
        OnnxRuntime(damaged)
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_a_folder_are_checkpoint_errors(tmp_path):
    for missing in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(CheckpointError, match=r"no model file.*check the path"):
            OnnxRuntime(missing)


def test_a_model_of_another_kind_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="takes input_ids, pixels, token_type_ids"):
        OnnxRuntime(write_encoder(tmp_path / "model.onnx", extra_input="pixels"))


def test_a_failing_run_names_the_file_and_the_next_call_works(runtime):
    wrong = TokenSequence(np.array([1, ROWS + 5]), np.zeros(2, dtype=np.int64))
    for batch in ([wrong], [sequence(9), wrong, sequence(3)]):
        with pytest.raises(CheckpointError, match=r"model\.onnx fails on a sequence of 2 tokens"):
            runtime.forward(batch)
    assert len(runtime.forward([sequence(4), sequence(5)])) == 2


def test_a_closed_runtime_is_refused_and_closing_twice_is_fine(path):
    runtime = OnnxRuntime(path, threads=2)
    runtime.forward([sequence(3), sequence(4)])
    runtime.close()
    runtime.close()
    for batch in ([sequence(3)], [sequence(3), sequence(4)]):
        with pytest.raises(InputError, match="closed; open the file again"):
            runtime.forward(batch)


def test_worker_threads_start_with_the_first_batch_and_end_with_the_runtime(path):
    def workers():
        return [thread for thread in threading.enumerate() if thread.name.startswith("ctxprune-onnx")]

    before = len(workers())
    runtime = OnnxRuntime(path, threads=2)
    runtime.forward([sequence(3)])
    assert len(workers()) == before
    runtime.forward([sequence(3), sequence(4)])
    assert len(workers()) > before
    del runtime
    gc.collect()
    deadline = time.monotonic() + 300
    while len(workers()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(workers()) == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_workers(runtime):
    given = [sequence(5), sequence(6), sequence(7)]
    expected = runtime.forward(given)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(runtime.forward(given)))
    child.start()
    assert receiver.poll(60)
    outputs = receiver.recv()
    child.join(60)
    assert all(same(left, right) for left, right in zip(expected, outputs, strict=True))


def test_the_library_leaves_no_identifier_and_reports_nowhere(tmp_path):
    """It keeps an identifier and a store of what it will send in the user's cache as soon as a session is made."""
    code = "from ctxprune import prune\nprint(prune('Who?', 'Ada did it. Gulls nest there.', budget=5))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True, timeout=600)
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name or "Microsoft" in path.parts] == []
