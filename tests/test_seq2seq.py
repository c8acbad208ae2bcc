"""The T5 loader on a tiny random model: batches against one source at a time, and checkpoints of other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_t5 import SOURCES, save_lora, save_t5

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.seq2seq import Seq2Seq, Written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Seq2Seq:
    return Seq2Seq(folder, device="cpu", batch_size=4)


def slow_greedy(folder: Path, source: str, max_new_tokens: int) -> Written:
    """The whole forward pass again for each token, without cache, batch or padding."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    ids, written = tokenizer(source, return_tensors="pt")["input_ids"], [0]
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
            if written[-1] == 1:
                break
    complete = written[-1] == 1
    return Written(tokenizer.decode(written[1:], skip_special_tokens=True).strip(), complete)


def test_batches_write_what_one_source_at_a_time_does(folder, model):
    expected = [slow_greedy(folder, source, 6) for source in SOURCES]
    assert model.generate(SOURCES, max_new_tokens=6) == expected
    assert model.generate(SOURCES[::-1], max_new_tokens=6) == expected[::-1]
    assert len({text for text, _ in expected}) > 1, "the model must not say the same to every source"


def test_a_text_that_ends_by_itself_is_complete(tmp_path):
    model = Seq2Seq(save_t5(tmp_path, ends_at_once=True), device="cpu")
    assert model.generate(["sun"], max_new_tokens=3) == [Written("", True)]


def test_a_text_that_the_limit_stops_is_not(model):
    assert not any(complete for _, complete in model.generate(SOURCES, max_new_tokens=1))


def test_nothing_to_write(model):
    assert model.generate([], max_new_tokens=3) == []
    assert model.count([]) == []


def test_tokens_count_the_end(model):
    assert model.count(["the cat", "sun"]) == [3, 2]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it when it wraps
def test_an_adapter_changes_what_is_written(folder, model, tmp_path):
    from transformers import T5ForConditionalGeneration

    save_lora(T5ForConditionalGeneration.from_pretrained(folder), tmp_path, modules=["q", "v"])
    adapted = Seq2Seq(folder, adapter=tmp_path, device="cpu")
    assert adapted.generate(SOURCES, max_new_tokens=6) != model.generate(SOURCES, max_new_tokens=6)


def test_a_folder_without_adapter(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        Seq2Seq(folder, adapter=tmp_path, device="cpu")


def test_bad_arguments(folder, model):
    with pytest.raises(InputError, match="max_new_tokens must be at least 1, got 0"):
        model.generate(["the cat"], max_new_tokens=0)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        Seq2Seq(folder, batch_size=0)
    with pytest.raises(InputError, match="dtype"):
        Seq2Seq(folder, dtype="real")


def test_a_checkpoint_of_another_architecture(tmp_path):
    from transformers import BertConfig

    BertConfig(hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is a 'bert' model; summaries need one of t5"):
        Seq2Seq(tmp_path)


def test_an_encoder_without_its_decoder(folder, tmp_path):
    """transformers would fill the decoder with random weights."""
    from transformers import T5EncoderModel

    T5EncoderModel.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks .* weights of an encoder with a decoder"):
        Seq2Seq(tmp_path, tokenizer=folder)


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the config"):
        Seq2Seq(tmp_path)
