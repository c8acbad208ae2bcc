"""The torch runtime against one unbatched pass a sequence: order, padding, threads, dtypes; and device choice."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fixtures_checkpoints as tiny
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.provence.model import load_pruner
from ctxprune.errors import InputError
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.device import best_device, best_dtype, cpus, describe
from ctxprune.runtime.torch import TorchRuntime, batch_by_length


def sequences_of(lengths, *, vocabulary=40, seed=0):
    generator = np.random.default_rng(seed)
    return [
        TokenSequence(generator.integers(5, vocabulary, length), np.arange(length, dtype=np.int64) // (length // 2 + 1))
        for length in lengths
    ]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    batches = list(batch_by_length(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= budget or len(batch) == 1
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "make", [tiny.provence, tiny.xprovence, tiny.open_bert, tiny.open_roberta, tiny.open_modernbert]
)
def test_neighbours_and_padding_do_not_matter(make, tmp_path):
    checkpoint = make(tmp_path)
    sequences = sequences_of([3, 40, 1, 17, 17, 9, 40, 2])
    module = load_pruner(checkpoint.folder).module
    for max_batch_tokens in (1, 60, 10_000):
        runtime = TorchRuntime(module, device="cpu", max_batch_tokens=max_batch_tokens)
        outputs = runtime.forward(sequences)
        for sequence, output in zip(sequences, outputs, strict=True):
            rank, token = checkpoint.reference(sequence.ids.tolist(), sequence.type_ids.tolist())
            np.testing.assert_allclose(output["rank_logits"], rank, atol=1e-4)
            np.testing.assert_allclose(output["token_logits"], token, atol=1e-4)
            assert output["token_logits"].shape == (len(sequence), 2)
            assert output["token_logits"].dtype == np.float32


class Recorder(torch.nn.Module):
    """Echoes its inputs and keeps the shapes of its batches."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.shapes = []

    def forward(self, input_ids, attention_mask, token_type_ids):
        self.shapes.append(tuple(input_ids.shape))
        assert torch.is_inference_mode_enabled()
        assert not self.training
        echo = torch.stack([input_ids, attention_mask, token_type_ids], dim=-1) * self.scale
        return {"token_logits": echo, "rank_logits": attention_mask.sum(dim=1, keepdim=True) * self.scale}


def test_inputs_reach_the_module_as_they_are_and_outputs_come_back_in_order():
    module = Recorder()
    runtime = TorchRuntime(module.train(), device="cpu", max_batch_tokens=20)
    sequences = sequences_of([2, 9, 5, 10, 1, 30])
    for sequence, output in zip(sequences, runtime.forward(sequences), strict=True):
        ids, mask, types = output["token_logits"].T
        assert ids.tolist() == sequence.ids.tolist()
        assert types.tolist() == sequence.type_ids.tolist()
        assert set(mask) == {1}
        assert output["rank_logits"].tolist() == [len(sequence)]
    assert module.shapes == [(1, 30), (2, 10), (3, 5)]


def test_results_are_the_callers_own():
    first, second = TorchRuntime(Recorder(), device="cpu").forward(sequences_of([4, 4]))
    first["token_logits"][:] = -1
    assert (second["token_logits"] != -1).all()
    assert first["token_logits"].base is None  # one kept result does not keep a whole batch


def test_per_token_outputs_can_be_named():
    runtime = TorchRuntime(Recorder(), device="cpu", per_token=())
    short, _ = runtime.forward(sequences_of([2, 6]))
    assert short["token_logits"].shape == (6, 3)


def test_nothing_in_nothing_out():
    runtime = TorchRuntime(Recorder(), device="cpu")
    assert runtime.forward([]) == []
    with pytest.raises(InputError, match="a sequence holds no tokens"):
        runtime.forward([*sequences_of([3]), TokenSequence(np.zeros(0, np.int64), np.zeros(0, np.int64))])


def test_threads_get_what_one_thread_gets(tmp_path):
    runtime = TorchRuntime(load_pruner(tiny.open_bert(tmp_path).folder).module, device="cpu", max_batch_tokens=64)
    calls = [sequences_of([seed % 7 + 1, 20, seed % 11 + 3], seed=seed) for seed in range(48)]
    expected = [runtime.forward(call) for call in calls]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(runtime.forward, calls))
    for left, right in zip(expected, found, strict=True):
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one["token_logits"], other["token_logits"])


def test_bfloat16_on_a_cpu_when_asked(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    sequences = sequences_of([12, 5])
    full = TorchRuntime(load_pruner(checkpoint.folder).module, device="cpu")
    half = TorchRuntime(load_pruner(checkpoint.folder).module, device="cpu", dtype="bfloat16")
    assert (full.device, full.dtype, half.dtype) == ("cpu", "float32", "bfloat16")
    for wide, narrow in zip(full.forward(sequences), half.forward(sequences), strict=True):
        assert narrow["token_logits"].dtype == np.float32
        assert not np.array_equal(wide["token_logits"], narrow["token_logits"])
        np.testing.assert_allclose(wide["token_logits"], narrow["token_logits"], atol=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"device": "nonsense"}, "device 'nonsense' is not usable here"),
        ({"max_batch_tokens": 0}, "max_batch_tokens must be positive, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TorchRuntime(Recorder(), **{"device": "cpu", **options})


@pytest.mark.gpu
def test_gpu_agrees_with_the_reference(tmp_path):
    checkpoint = tiny.open_bert(tmp_path)
    runtime = TorchRuntime(load_pruner(checkpoint.folder).module, device="cuda", dtype="float32")
    sequences = sequences_of([12, 40, 5])
    for sequence, output in zip(sequences, runtime.forward(sequences), strict=True):
        _, token = checkpoint.reference(sequence.ids.tolist(), sequence.type_ids.tolist())
        np.testing.assert_allclose(output["token_logits"], token, atol=1e-3)


def test_device_and_dtype_follow_what_torch_offers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert (best_device(), best_dtype("cpu")) == ("cpu", "float32")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (best_device(), best_dtype("mps")) == ("mps", "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert (best_device(), best_dtype("cuda:1")) == ("cuda", dtype)


def test_describe_names_versions_and_only_then_devices():
    light = describe()
    assert light["cpus"] == cpus() >= 1
    assert light["packages"]["numpy"] == np.__version__
    assert "devices" not in light
    full = describe(probe_torch=True)
    assert full["devices"][0] == "cpu"
    assert full["device"] in ("cpu", "cuda", "mps")
    assert {key: full[key] for key in light} == light


def test_describe_does_not_import_torch():
    code = "import sys; from ctxprune.runtime.device import describe; describe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
