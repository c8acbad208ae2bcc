import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from ctxprune.errors import InputError
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.trainers.shared.export import export_int8
from ctxprune.trainers.shared.rewrite import Int8Embedding, SmoothedLinear, compare, prepared, smooth

WIDTH, ROWS, POSITIONS = 32, 1200, 512
OUTPUTS = ["rank_logits", "token_logits", "answer_logits"]


class TinyPruner(nn.Module):
    """A random BERT with three heads; one channel of its states is made to stick out, as trained encoders have them."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=ROWS,
            hidden_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=POSITIONS,
        )
        self.encoder = BertModel(config)
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, std=0.1)
        for norm in (module for module in self.encoder.modules() if isinstance(module, nn.LayerNorm)):
            nn.init.ones_(norm.weight)
            norm.weight.data[7] = 30.0
        last = self.encoder.encoder.layer[-1].output.LayerNorm
        last.weight.data[7] = 0.0  # the heads see all channels but that one
        self.rank = nn.Linear(WIDTH, 1)
        self.token = nn.Linear(WIDTH, 2)
        self.answer = nn.Linear(WIDTH, 1)

    def forward(self, input_ids, attention_mask, token_type_ids):
        output = self.encoder(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        hidden = output.last_hidden_state
        return {
            "rank_logits": self.rank(output.pooler_output),
            "token_logits": self.token(hidden) / 4,
            "answer_logits": self.answer(hidden).squeeze(-1),
        }


def sequences(lengths, *, seed=0):
    random = np.random.default_rng(seed)
    return [
        TokenSequence(random.integers(0, ROWS, length), (np.arange(length) >= length // 4).astype(np.int64))
        for length in lengths
    ]


@pytest.fixture(scope="module")
def pruner():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyPruner().train()


@pytest.fixture(scope="module")
def exported(pruner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    report = export_int8(
        pruner,
        folder,
        output_names=OUTPUTS,
        parity_sequences=sequences(range(20, 60, 4), seed=1),
        calibration=sequences(range(20, 60, 4), seed=2),
        max_length=POSITIONS,
        metadata={"card": "tiny"},
        keep_fp32=True,
    )
    return folder, report


def reference(pruner, sequence):
    copy = prepared(pruner, OUTPUTS).encoder
    copy.encoder.set_attn_implementation("eager")
    ids, types = torch.tensor(sequence.ids)[None], torch.tensor(sequence.type_ids)[None]
    with torch.inference_mode():
        return {name: value[0].numpy() for name, value in copy(ids, torch.ones_like(ids), types).items()}


def test_fp32_export_gives_what_torch_gives(pruner, exported):
    folder, _ = exported
    given = sequences([1, 2, 17, 512])
    with OnnxRuntime(folder / "model_fp32.onnx") as runtime:
        assert runtime.dtype == "float32"
        outputs = runtime.forward(given)
    for sequence, output in zip(given, outputs, strict=True):
        for name, expected in reference(pruner, sequence).items():
            assert output[name].shape == expected.shape
            np.testing.assert_allclose(output[name], expected, atol=1e-4, rtol=1e-4)


def test_int8_export_is_close_and_the_report_says_how_close(pruner, exported):
    folder, report = exported
    given = sequences(range(20, 60, 4), seed=1)
    with OnnxRuntime(folder / "model.onnx") as runtime:
        assert (runtime.dtype, runtime.metadata["card"]) == ("int8", "tiny")
        outputs = runtime.forward(given)
    expected = [reference(pruner, sequence) for sequence in given]
    for name in OUTPUTS:
        left = np.concatenate([each[name].ravel() for each in expected])
        right = np.concatenate([each[name].ravel() for each in outputs])
        assert report.outputs[name].correlation == pytest.approx(np.corrcoef(left, right)[0, 1], abs=1e-4)
        assert report.outputs[name].max_abs_difference == pytest.approx(np.abs(left - right).max(), abs=1e-3)
    assert min(report.outputs[name].correlation for name in ("token_logits", "answer_logits")) > 0.99
    assert report.outputs["rank_logits"].max_abs_difference < 0.05  # ten values, too few and too alike to correlate
    assert report.tokens == sum(map(len, given))
    assert json.loads((folder / "parity.json").read_text()) == report.to_dict()


def test_crossing_counts_passage_tokens_on_the_other_side_of_the_threshold(pruner, exported):
    folder, report = exported
    given = sequences(range(20, 60, 4), seed=1)
    crossed = passage = 0
    with OnnxRuntime(folder / "model.onnx") as runtime:
        for sequence, output in zip(given, runtime.forward(given), strict=True):
            logits = reference(pruner, sequence)["token_logits"], output["token_logits"]
            keeps = [torch.tensor(values).softmax(-1)[:, 1].numpy() >= 0.1 for values in logits]
            crossed += int(((keeps[0] != keeps[1]) & (sequence.type_ids == 1)).sum())
            passage += int((sequence.type_ids == 1).sum())
    assert report.crossing == pytest.approx(crossed / passage, abs=0.005)


def test_weights_are_int8_heads_are_not_and_no_trace_of_the_exporter_is_left(exported):
    folder, report = exported
    model = onnx.load(folder / "model.onnx")
    tables = {tuple(table.dims): table.data_type for table in model.graph.initializer if len(table.dims) == 2}
    assert tables[ROWS, WIDTH] == tables[WIDTH, 64] == tables[64, WIDTH] == onnx.TensorProto.INT8
    assert tables[WIDTH, 2] == onnx.TensorProto.FLOAT
    assert report.file_bytes == (folder / "model.onnx").stat().st_size
    assert b"site-packages" not in (folder / "model.onnx").read_bytes()


def test_the_graph_shares_one_product_among_query_key_and_value(exported):
    folder, _ = exported
    kinds = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert kinds.count("Mul") <= 1 + 4  # the embedding's, and those of the layer's four inputs
    assert "SkipLayerNormalization" not in kinds


def test_export_leaves_the_module_as_it_was(pruner, exported):
    assert pruner.training
    assert pruner.encoder.config._attn_implementation != "ctxprune_unmasked"
    assert isinstance(pruner.encoder.embeddings.word_embeddings, nn.Embedding)
    assert all(parameter.requires_grad for parameter in pruner.parameters())


def test_smoothing_changes_nothing_in_fp32_and_helps_in_int8(pruner):
    sequence = sequences([40])[0]
    plain, smoothed = prepared(pruner, OUTPUTS), prepared(pruner, OUTPUTS)
    smooth(smoothed, sequences([30, 50], seed=3))
    layers = [layer for layer in smoothed.modules() if isinstance(layer, SmoothedLinear)]
    assert layers
    assert all(bool((layer.inverse <= 1).all()) for layer in layers)
    for name, value in plain.run(sequence).items():
        torch.testing.assert_close(smoothed.run(sequence)[name], value, atol=1e-4, rtol=1e-4)


def test_calibration_brings_the_int8_export_closer(pruner, exported, tmp_path):
    given = sequences(range(20, 60, 4), seed=1)
    without = export_int8(pruner, tmp_path, output_names=OUTPUTS, parity_sequences=given, max_length=POSITIONS)
    _, with_calibration = exported
    worse, better = (1 - report.outputs["token_logits"].correlation for report in (without, with_calibration))
    assert better < worse / 2


def test_int8_table_keeps_every_row_within_half_a_step():
    table = nn.Embedding(50, 8)
    table.weight.data[3] = 0.0
    table.weight.data[4] *= 100.0
    ids = torch.arange(50).view(5, 10)
    step = table.weight.abs().amax(dim=1) / 127
    difference = (Int8Embedding(table)(ids) - table(ids)).abs().amax(dim=-1).view(-1)
    assert bool((difference <= step / 2 + 1e-6).all())


def test_an_export_without_anything_to_compare_on_is_refused(pruner, tmp_path):
    with pytest.raises(InputError, match="parity_sequences is empty"):
        export_int8(pruner, tmp_path, output_names=OUTPUTS, parity_sequences=[])


def test_compare_of_constant_outputs():
    ones = np.ones(3)
    assert compare(ones, ones).correlation == 1.0
    assert compare(ones, ones + 1).correlation == 0.0
    assert compare(np.arange(3.0), np.arange(3.0) * 2).correlation == pytest.approx(1.0)
