"""recomp-abstractive over tiny models and an endpoint: the prompts they read, and when they say nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_endpoint import Endpoint
from fixtures_t5 import SOURCES, save_llama, save_lora, save_t5
from test_recomp_abstractive import CONTEXT, CURIE, FAITHFUL, NOBEL, QUERY

from ctxprune.compressors.recomp import abstractive
from ctxprune.compressors.recomp.abstractive import SummaryGenerator, recomp_abstractive
from ctxprune.compressors.recomp.summaries import (
    Seq2SeqSummarizer,
    chat_prompt,
    prompt_of,
    seq2seq_source,
)
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.seq2seq import FirstTokenThreshold, Seq2Seq
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_t5(tmp_path_factory.mktemp("t5"))


def test_a_t5_reads_the_published_prompt(t5):
    documents = [Document("the cat sat on the mat " * 3, title="moon"), Document("river and rock")]
    context = Context.of("the cat", documents)
    model = Seq2Seq(t5, device="cpu")
    [[piece]] = [
        after.pieces for after in recomp_abstractive(model=t5, device="cpu", max_summary_tokens=5).compress([context])
    ]
    [written] = model.generate([seq2seq_source("the cat", [document.text for document in documents])], max_new_tokens=5)
    assert piece.text == written.text != ""


def test_titles_can_be_shown_to_a_t5(t5):
    [extract] = Context.of("sun", [Document("the cat", title="moon")]).extracts
    titled = prompt_of("sun", (extract,), Seq2SeqSummarizer(Seq2Seq(t5, device="cpu"), titles=True))
    assert titled == seq2seq_source("sun", ["moon\nthe cat"])


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it when it wraps
def test_a_causal_model_and_its_adapter(tmp_path):
    from transformers import LlamaForCausalLM

    from ctxprune.generators import LocalGenerator

    save_llama(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    save_lora(base, tmp_path / "adapter", modules=["q_proj", "down_proj"])
    context = Context.of("sun", [Document("the cat sat on the mat " * 9, title="moon"), Document("river and rock")])
    prompt = chat_prompt("sun", [f"moon\n{context.pieces[0].text}", "river and rock"])
    [expected] = LocalGenerator(tmp_path / "base", device="cpu").generate([prompt], max_new_tokens=5)
    options = {"model": tmp_path / "base", "device": "cpu", "max_summary_tokens": 5}
    [plain] = recomp_abstractive(**options).compress([context])
    [adapted] = recomp_abstractive(adapter=tmp_path / "adapter", **options).compress([context])
    assert plain.pieces[0].text == expected != ""
    assert adapted.pieces[0].text not in ("", expected)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}))
    [alone] = recomp_abstractive(adapter=str(tmp_path / "adapter"), **options | {"model": None}).compress([context])
    assert alone.pieces[0].text == adapted.pieces[0].text


def test_the_first_token_is_decided_by_its_own_probability():
    import torch

    logits = torch.log(torch.tensor([[0.4, 0.3, 0.3], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]]))
    decide = FirstTokenThreshold(0, 0.25)
    prompt = torch.zeros(3, 5, dtype=torch.int64)
    assert decide(prompt, logits).argmax(dim=-1).tolist() == [0, 1, 0]
    assert decide(torch.zeros(3, 6, dtype=torch.int64), logits) is logits
    assert FirstTokenThreshold(0, 0.5)(prompt, logits).argmax(dim=-1).tolist() == [1, 1, 2]


def test_a_threshold_for_saying_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(abstractive, "NOTHING", "moon")  # a word that this vocabulary has
    save_llama(tmp_path)
    first = []
    for threshold in (1e-30, 1.0):
        generator = SummaryGenerator(tmp_path, adapter=None, empty_threshold=threshold, device="cpu")
        answers = generator.generate(["sun", "the cat sat on the mat", "moon"], max_new_tokens=3)
        first.append([answer.split()[0] for answer in answers])
    assert first[0] == ["moon"] * 3 and "moon" not in first[1]


def test_a_threshold_for_an_empty_text(t5):
    import torch

    texts = []
    for threshold in (0.01, 1.0):
        model = Seq2Seq(t5, device="cpu", empty_threshold=threshold)
        with torch.no_grad():
            model._model.get_input_embeddings().weight.mul_(0.01)  # all words are about as likely
        texts.append([written.text for written in model.generate(SOURCES, max_new_tokens=4)])
    assert texts[0] == [""] * len(SOURCES) and all(texts[1])


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_thresholds_that_are_no_probability(tmp_path, t5, value):
    save_llama(tmp_path)
    for model in (t5, tmp_path):
        with pytest.raises(InputError, match=f"empty_threshold must be above 0 and at most 1, got {value}"):
            recomp_abstractive(model=model, empty_threshold=value, device="cpu")
    with pytest.raises(InputError, match=r"empty_threshold=0\.5 is for a local model"):
        recomp_abstractive(model="m", base_url="http://localhost/v1", empty_threshold=0.5)


def test_adapters_that_are_not_there_or_name_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"mine has no adapter_config.json; pass the folder"):
        recomp_abstractive(adapter="mine")
    with pytest.raises(CheckpointError, match=r"nothing has no adapter_config.json"):
        recomp_abstractive(adapter=tmp_path / "nothing")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"does not say which model the adapter is for; pass model="):
        recomp_abstractive(adapter=tmp_path)


def test_an_endpoint(serve: Callable[..., Endpoint]):
    def reply(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps({"choices": [{"message": {"content": FAITHFUL}}]})

    endpoint = serve(reply)
    with recomp_abstractive(model="any", base_url=endpoint.base_url, counter=WordCounter()) as made:
        [after] = made.compress([CONTEXT])
    assert after.pieces[0].text == FAITHFUL
    assert endpoint.seen[0][2]["max_tokens"] == 128
    passages = [f"{CURIE.title}\n{CURIE.text}", NOBEL.text]
    assert endpoint.seen[0][2]["messages"] == [{"role": "user", "content": chat_prompt(QUERY, passages)}]


def test_a_model_that_writes_no_text(tmp_path):
    from transformers import BertConfig

    BertConfig(hidden_size=16, num_attention_heads=2, architectures=["BertModel"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"'bert' model \(BertModel\), which writes no text"):
        recomp_abstractive(model=tmp_path)


def test_a_model_must_be_named():
    with pytest.raises(InputError, match="pass model=, with base_url= for an endpoint"):
        recomp_abstractive()
    with pytest.raises(InputError, match="adapter='a' is for a local model"):
        recomp_abstractive(model="m", base_url="http://localhost/v1", adapter="a")
