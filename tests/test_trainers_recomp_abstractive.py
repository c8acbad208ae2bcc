"""The abstractive trainer end to end on tiny models: the compressor's prompt, the loss, resuming, what it leaves."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fixtures_checkpoints import bert_tokenizer
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from benchmarks import recomp_abstractive as recomp_abstractive_evaluation
from benchmarks.recomp_abstractive import Compressors, cases, interval
from ctxprune.compressors.recomp.abstractive import RecompAbstractive, recomp_abstractive
from ctxprune.compressors.recomp.summaries import NOTHING, GeneratorSummarizer, Seq2SeqSummarizer
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import GeneratorError, InputError
from ctxprune.models.causal import PromptEncoder, load_causal_lm
from ctxprune.prompt import readable_text
from ctxprune.tokens import WordCounter
from ctxprune.trainers.recomp.abstractive import CausalTrainer, main
from ctxprune.trainers.recomp.items import SummaryTarget, causal_batch, causal_example, examples, write_summary_targets
from ctxprune.trainers.shared.loop import IGNORE, Clock, rate_factor
from ctxprune.types import Context, Document, Summary, whole

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TEMPLATE = "what {{ messages[0]['content'] }}{% if add_generation_prompt %} is {% endif %}"
SENTENCES = ["the moon orbits mars.", "a planet is red.", "two moons named after fear.", "it is cheese."]


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=bert_tokenizer(template=False),
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    folder, words = tmp_path_factory.mktemp("llama"), tokenizer()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        bos_token_id=words.cls_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    folder, words = tmp_path_factory.mktemp("t5"), tokenizer()
    config = T5Config(
        vocab_size=len(words), d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, dropout_rate=0.0,
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id, decoder_start_token_id=words.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def question(place: int, *, gold: bool = True) -> Question:
    sentence = SENTENCES[place % len(SENTENCES)]
    relevant = ((0, len(sentence)),) if gold else ()
    document = LabelledDocument(Document(f"{sentence} it is.", title="mars"), gold, (), relevant)
    return Question(str(place), "what is it", (sentence.split()[-1],), gold, (document,))


TARGETS = [
    SummaryTarget(question(place, gold=gold), SENTENCES[place] if gold else "")
    for place in range(4)
    for gold in (True, False)
]


@pytest.fixture(scope="module")
def targets(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "targets.jsonl"
    assert write_summary_targets(path, TARGETS) == 8
    return path


def command(base: Path, targets: Path, out: Path, *more: str) -> list[str]:
    return [
        "--base", str(base), "--data", f"{targets}:6:4", "--validation", str(targets), "--out", str(out), "--cpu",
        "--precision", "no", "--lr", "1e-2", "--evaluate-every", "3", "--max-length", "600", *more,
    ]  # fmt: skip


class Recording:
    """A summariser that keeps its prompts and says nothing."""

    def __init__(self, summarizer) -> None:
        self.titles, self.prompt, self.seen = summarizer.titles, summarizer.prompt, []

    def count(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def summarize(self, prompts, *, max_new_tokens):
        self.seen += prompts
        return [SimpleNamespace(text="", complete=True) for _ in prompts]


def asked_at_use(summarizer, made: SummaryTarget) -> str:
    recording = Recording(summarizer)
    documents = [item.document for item in made.question.documents]
    RecompAbstractive(recording).compress([Context.of(made.question.text, documents)])
    return recording.seen[0]


def test_training_reads_the_very_prompt_of_the_compressor(llama, t5) -> None:
    words, made = tokenizer(), TARGETS[0]
    causal = load_causal_lm(str(llama), device="cpu", dtype="float32", gguf_file=None)[1]
    [example] = examples([made], causal, words, max_length=600, name="tiny").examples
    prompt = PromptEncoder(words, name="tiny").ids(asked_at_use(GeneratorSummarizer(None), made))
    target = words(made.target)["input_ids"]
    assert example["input_ids"] == [*prompt, *target, words.eos_token_id]
    seq2seq = T5ForConditionalGeneration.from_pretrained(t5)
    [example] = examples([made], seq2seq, words, max_length=600, name="tiny").examples
    assert example["input_ids"] == words(asked_at_use(Seq2SeqSummarizer(None), made))["input_ids"]
    assert example["labels"] == [*target, words.eos_token_id]


def test_empty_summaries_are_what_the_compressor_reads_as_empty(llama, t5) -> None:
    words, made = tokenizer(), TARGETS[1]
    assert causal_example(made, words, PromptEncoder(words, name="tiny"))["labels"] == [
        *words(NOTHING)["input_ids"],
        words.eos_token_id,
    ]
    seq2seq = T5ForConditionalGeneration.from_pretrained(t5)
    assert examples([made], seq2seq, words, max_length=600, name="t").examples[0]["labels"] == [words.eos_token_id]


def test_long_targets_are_left_out_and_counted(llama) -> None:
    words = tokenizer()
    model = load_causal_lm(str(llama), device="cpu", dtype="float32", gguf_file=None)[1]
    lengths = sorted(
        len(each["input_ids"]) for each in examples(TARGETS, model, words, max_length=999, name="t").examples
    )
    found = examples(TARGETS, model, words, max_length=lengths[2], name="t")
    assert len(found.examples) + found.too_long == 8
    assert found.too_long >= 4
    with pytest.raises(InputError, match=f"none of 8 targets fits --max-length 5 .*takes {lengths[0]} tokens"):
        examples(TARGETS, model, words, max_length=5, name="t")
    words.eos_token = None
    with pytest.raises(InputError, match="no end token"):
        examples(TARGETS, model, words, max_length=600, name="t")


def test_the_loss_is_that_of_the_target_one_row_at_a_time(llama) -> None:
    words, model = load_causal_lm(str(llama), device="cpu", dtype="float32", gguf_file=None)
    made = examples(TARGETS, model, words, max_length=600, name="t").examples
    batch = causal_batch(made)
    assert batch["labels"].shape[1] == max(len(each["labels"]) for each in made)
    assert int((batch["labels"] != IGNORE).sum()) == sum(len(each["labels"]) for each in made)
    nats = []
    for each in made:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([each["input_ids"]])).logits[0].double()
        first = len(each["input_ids"]) - len(each["labels"])
        for place, token in enumerate(each["labels"], start=first):
            nats.append(float(logits[place - 1].log_softmax(-1)[token]))
    loss = CausalTrainer.compute_loss(None, model, batch)
    assert float(loss.detach()) == pytest.approx(-sum(nats) / len(nats), abs=1e-4)


def history(folder: Path) -> list[float]:
    rows = json.loads((folder / "training.json").read_text())["history"]
    return [row["eval_loss"] for row in rows if "eval_loss" in row]


def read_by(compressor: RecompAbstractive) -> None:
    """It reads a document; a model of random weights may end its reply at once, which is a fault and no summary."""
    try:
        [context] = compressor.compress([Context("what", (whole(Document("the moon orbits mars. " * 9)),))])
    except GeneratorError as error:
        assert "the reply is empty" in str(error)
    else:
        assert context.pieces


def test_lora_learns_and_leaves_an_adapter_that_the_compressor_loads(llama, targets, tmp_path) -> None:
    out = tmp_path / "adapter"
    assert main(command(llama, targets, out, "--epochs", "4", "--rank", "4")) == 0
    losses = history(out)
    assert losses[-1] < losses[0] - 0.05  # the head and all else of the base stay as they were
    report = json.loads((out / "training.json").read_text())
    assert (report["steps"], report["examples"], report["left_out_too_long"]) == (12, 24, 0)
    assert not (out / "model.safetensors").exists()
    compressor = recomp_abstractive(model=llama, adapter=out, device="cpu", max_summary_tokens=8)
    read_by(compressor)


def test_lora_in_the_last_layers_leaves_the_others_and_the_head(llama, targets, tmp_path) -> None:
    out = tmp_path / "last"
    given = ["--epochs", "1", "--rank", "4", "--last-layers", "1", "--base-name", "hub/id"]
    assert main(command(llama, targets, out, *given)) == 0
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "hub/id"
    names = set(load_file(out / "adapter_model.safetensors"))
    assert {re.search(r"layers\.(\d+)\.", name)[1] for name in names} == {"1"}
    assert {name.split(".")[-3] for name in names} >= {"q_proj", "o_proj", "down_proj"}
    compressor = recomp_abstractive(model=llama, adapter=out, device="cpu", max_summary_tokens=8)
    read_by(compressor)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--last-layers", "3"], "between 1 and the model's 2, got 3"),
        (["--last-layers", "0"], "between 1 and the model's 2, got 0"),
        (["--last-layers", "1", "--full"], "--last-layers 1 is for LoRA"),
    ],
)
def test_last_layers_that_cannot_be_are_refused(llama, targets, tmp_path, capsys, more, message) -> None:
    assert main(command(llama, targets, tmp_path / "refused", *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["t5", "full"])
def test_whole_models_learn_and_load(kind, llama, t5, targets, tmp_path) -> None:
    base, out = (t5, tmp_path / "t5") if kind == "t5" else (llama, tmp_path / "full")
    more = ["--epochs", "3", "--accumulate", "2", "--freeze-embeddings"] + (["--full"] if kind == "full" else [])
    assert main(command(base, targets, out, *more)) == 0
    losses = history(out)
    assert min(losses) < losses[0]
    compressor = recomp_abstractive(model=out, device="cpu", max_summary_tokens=8)
    read_by(compressor)


def test_a_stopped_run_goes_on_where_it_stood(llama, targets, tmp_path) -> None:
    out = tmp_path / "stopped"
    assert main(command(llama, targets, out, "--max-steps", "1", "--evaluate-every", "1")) == 0
    first = json.loads((out / "training.json").read_text())
    assert main(command(llama, targets, out, "--max-steps", "2", "--evaluate-every", "1")) == 0
    second = json.loads((out / "training.json").read_text())
    assert (first["steps"], second["steps"]) == (1, 2)
    assert second["history"][0] == first["history"][0]
    assert len(second["history"]) > len(first["history"])


def test_the_clock_ends_a_run_with_a_checkpoint(llama, targets, tmp_path) -> None:
    out = tmp_path / "short"
    assert main(command(llama, targets, out, "--epochs", "50", "--max-minutes", "0.0001")) == 0
    report = json.loads((out / "training.json").read_text())
    assert report["steps"] == 1
    assert (out / "checkpoints" / "checkpoint-1").is_dir()


def test_the_rate_rises_and_falls_by_steps_or_time() -> None:
    assert rate_factor(0) < 0.05
    assert rate_factor(0.05) == 1
    assert rate_factor(0.525) == pytest.approx(0.5)
    assert rate_factor(1) == rate_factor(1.5) == 0
    assert Clock(0).progress(3, 12) == 0.25
    now = iter((0.0, 100.0, 103.0))
    timed = Clock(1, clock=lambda: next(now))
    timed.on_train_begin(None, SimpleNamespace(log_history=[{"seconds": 45.0}, {}]), None)
    assert timed.progress(3, 12) == pytest.approx(0.8)


def test_bad_input_is_a_clear_error(llama, tmp_path, capsys) -> None:
    (tmp_path / "none.jsonl").write_text("")
    assert main(["--base", str(llama), "--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "o")]) == 1
    assert "hold no targets" in capsys.readouterr().err
    write_summary_targets(tmp_path / "one.jsonl", TARGETS[:1])
    assert main(["--base", str(tmp_path), "--data", str(tmp_path / "one.jsonl"), "--out", str(tmp_path / "o")]) == 1
    assert "cannot read the config" in capsys.readouterr().err


def test_evaluation_sets_summaries_against_other_contexts(llama, tmp_path, capsys) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "figures.json"
    other = LabelledDocument(Document("sheep graze here."), relevant=())
    asked = [question(place, gold=place < 3) for place in range(4)]
    asked = [
        replace(each, documents=(*each.documents, other), answers=each.answers * each.answerable) for each in asked
    ]
    data.write_text("".join(json.dumps(row_from_question(each)) + "\n" for each in asked))
    given = ["--model", str(llama), "--judge", str(llama), "--data", str(data), "--out", str(out), "--match"]
    assert recomp_abstractive_evaluation.main([*given, "--max-summary-tokens", "6", "--threshold", "0.01"]) == 0
    figures = json.loads(out.read_text())
    assert {name: group["empty"]["count"] for name, group in figures.items()} == {
        "relevant": 3,
        "irrelevant": 3,
        "unanswerable": 1,
    }
    scores, more = figures["relevant"]["contexts"], figures["relevant"]["differences"]
    for rival in ("closed", "documents", "sentence", "extractive"):
        for unit in ("tokens", "kept", "nats", "match"):
            expected = scores["summary"][unit]["mean"] - scores[rival][unit]["mean"]
            assert more[rival][unit]["mean"] == pytest.approx(expected)
    assert scores["closed"]["tokens"]["mean"] == 0
    assert scores["gold"]["kept"]["mean"] == scores["documents"]["kept"]["mean"] == 1
    assert figures["irrelevant"]["contexts"]["documents"]["kept"]["mean"] == 0
    assert figures["unanswerable"]["contexts"]["summary"]["kept"]["count"] == 0
    lines = [json.loads(line) for line in (tmp_path / "figures.summaries.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["group"] == "relevant"] == ["0", "1", "2"]
    assert "**irrelevant**, 3 questions" in capsys.readouterr().out


class Keeps:
    """Leaves the first words of a context, as many as the budget or, without one, `words`."""

    name = "keeps"

    def __init__(self, words: int) -> None:
        self._words = words

    def compress(self, contexts, *, budget=None, threshold=None):
        kept = [" ".join(readable_text(each).split()[: budget or self._words]) for each in contexts]
        return [replace(each, pieces=(Summary(text, ()),)) for each, text in zip(contexts, kept, strict=True)]


def test_an_extractive_rival_gets_the_tokens_of_the_summary() -> None:
    compressors = Compressors(summary=Keeps(4), sentence=Keeps(2), extractive=Keeps(99))
    [case] = cases([question(0)], compressors, counter=WordCounter())
    assert case.texts["summary"] == case.texts["extractive"]
    assert len(case.texts["sentence"].split()) == 2
    short = Compressors(summary=Keeps(4), before=Keeps(3), sentence=Keeps(2), extractive=Keeps(99))
    [case] = cases([question(0)], short, counter=WordCounter())
    assert case.texts["summary"] == case.texts["documents"] == " ".join(case.texts["extractive"].split()[:3])
    silent = Compressors(summary=Keeps(0), sentence=Keeps(2), extractive=Keeps(99))
    [case] = cases([question(0)], silent, counter=WordCounter())
    assert case.texts["summary"] == case.texts["extractive"] == ""


def test_intervals() -> None:
    assert interval([]) == {"mean": None, "half_width": None, "count": 0}
    assert interval([2.0])["half_width"] is None
    found = interval([0.0, 1.0, 0.0, 1.0])
    assert found["mean"] == 0.5
    assert found["half_width"] == pytest.approx(1.96 * math.sqrt(1 / 3) / 2)
