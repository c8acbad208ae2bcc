"""Replies of generators: reasoning is no part of an answer, and a reply without one says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_endpoint import Endpoint
from fixtures_llama import save_llama
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cli import main
from ctxprune.compressors import load
from ctxprune.errors import GeneratorError
from ctxprune.generators import LocalGenerator, OpenAIGenerator, TextOnly, generated
from ctxprune.generators.base import CUT, EMPTY, ONLY_REASONING, chat_reply, opened_in, reply_of, without_reasoning
from ctxprune.types import Context

ANSWER = "The lighthouse was lit in 1874."
PLAIN = [
    ANSWER,
    "Wrap the hidden part in `<think>` and `</think>`.",
    "```xml\n<reasoning>\nfirst\n</reasoning>\n```\nThat is the layout.",
    'The tag "<think>" opens the block.',
    "```python\nthinking = 1902\n```\nThat is the line.",
    "The <analysis> element has no closing partner in this file.",
    "analysis of the lamp shows soot",
    "x < think > y holds for no pair",
    "She wrote: <b>bold</b> and [think] too.",
]
REASONED = [
    f"<think>\nMaybe 1902? No.\n</think>\n\n{ANSWER}",
    f"<THINK>Maybe 1902?</Think>{ANSWER}",
    f"<thinking>Maybe 1902?</thinking>\n{ANSWER}",
    f"<thought>Maybe 1902?</thought>\n{ANSWER}",
    f"<reasoning effort='low'>Maybe 1902?</reasoning>\n{ANSWER}",
    f"<scratchpad>\nMaybe 1902?\n</scratchpad>\n{ANSWER}",
    f"<seed:think>Maybe 1902?</seed:think>{ANSWER}",
    f"<longcat_think>Maybe 1902?</longcat_think>{ANSWER}",
    f'<details type="reasoning" done="true">\n<summary>Thought</summary>\nMaybe 1902?\n</details>\n{ANSWER}',
    f"[THINK]Maybe 1902?[/THINK]{ANSWER}",
    f"```thinking\nMaybe ``1902``?\n```\n{ANSWER}",
    f"~~~reasoning\nMaybe 1902?\n~~~\n\n{ANSWER}",
    f"<unused94>thought\nMaybe 1902?<unused95>{ANSWER}",
    f"◁think▷Maybe 1902?◁/think▷{ANSWER}",
    f"<|begin_of_thought|>Maybe 1902?<|end_of_thought|>\n<|begin_of_solution|>{ANSWER}<|end_of_solution|>",
    f"<|START_THINKING|>Maybe 1902?<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
    f"Maybe 1902? No.\n</think>\n\n{ANSWER}",
    f"Maybe 1902?\n</think>\nhm, 1902\n</think>\n{ANSWER}",
    f"<think>one <think>1902</think> two 1902</think>{ANSWER}",
    f"<think>1902</think>\n<think>1902 again</think>\n{ANSWER}",
    f"{ANSWER}\n<think>or was it 1902, or",
    f"{ANSWER} <think>or 1902?</think>",
    f"<think>A ``` fence that nobody closes. 1902</think>{ANSWER}",
    f"<|channel|>analysis<|message|>Maybe 1902?<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
    f"<|channel|>analysis<|message|>1902<|end|><|start|>assistant<|channel|>commentary to=x<|message|>1902<|call|>"
    f"<|start|>assistant<|channel|>final<|message|>{ANSWER}",
    f"analysisThe user asks for a year, maybe 1902.assistantfinal{ANSWER}",
]
ONLY = [
    "<think>\nMaybe 1902, but",
    "<think>Maybe 1902</think>",
    "<reasoning>1902",
    "Maybe 1902\n</think>\n ",
    "<|channel|>analysis<|message|>Maybe 1902, but",
    "[THINK]1902",
    "<details type=reasoning>1902, but",
    "```thinking\nMaybe 1902, but",
]


@pytest.mark.parametrize("text", PLAIN)
def test_an_answer_without_reasoning_stays_as_it_is(text: str) -> None:
    assert without_reasoning(f" {text}\n") == (text, False)
    assert reply_of(text).usable("m") == text


@pytest.mark.parametrize("raw", REASONED)
def test_reasoning_is_no_part_of_the_answer(raw: str) -> None:
    assert without_reasoning(raw) == (ANSWER, True)


@pytest.mark.parametrize("unseen", ["\ufeff", "\u200b", "\u200e\u2060"])
def test_what_takes_no_room_is_no_answer(unseen: str) -> None:
    assert reply_of(f"{unseen}<think>Maybe 1902?</think>{unseen}{ANSWER}{unseen}").text == ANSWER
    assert reply_of(f"<think>Maybe 1902?</think>{unseen}").short_fault == ONLY_REASONING
    assert reply_of(unseen).text == ""


@pytest.mark.parametrize("raw", ONLY)
def test_only_reasoning_is_a_failure(raw: str) -> None:
    reply = reply_of(raw, cut=True)
    assert reply.text == "" and reply.short_fault == ONLY_REASONING
    with pytest.raises(GeneratorError, match=r"only reasoning.*raise max_new_tokens"):
        reply.usable("m")


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_stands_in_a_block_never_shows(thought: str, answer: str) -> None:
    text, any_reasoning = without_reasoning(f"<think>Q{thought}</think>{answer}")
    marked = any(mark in thought + answer for mark in "<[◁`~|")
    assert any_reasoning and (text == answer.strip() or marked)


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [("<|assistant|>\n<think>\n", "<think>"), ("a [THINK]", "[THINK]"), ("<think>x</think>\n", ""), ("Answer:", "")],
)
def test_a_prompt_may_open_the_reasoning(prompt: str, mark: str) -> None:
    assert opened_in("x" * 200 + prompt) == mark


def completion(content: Any, *, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish_reason, "message": {"content": content, **message}}]}


FAULTS = [
    (completion(""), EMPTY),
    (completion(None), EMPTY),
    (completion("  \n"), EMPTY),
    (completion(None, reasoning_content="Maybe 1902."), ONLY_REASONING),
    (completion("", reasoning="Maybe 1902."), ONLY_REASONING),
    (completion("<think>1902", finish_reason="length"), ONLY_REASONING),
    (completion("The lighthouse was", finish_reason="length"), CUT),
    (completion("", finish_reason="length"), CUT),
    (completion(None, refusal="I will not say."), "the model refused"),
    (completion("The light", finish_reason="content_filter"), "the model refused"),
    (completion(None, finish_reason="tool_calls", tool_calls=[{"id": "1"}]), "the model called a tool"),
    (completion([{"type": "thinking", "thinking": [{"text": "1902"}]}]), ONLY_REASONING),
]


@pytest.mark.parametrize(("body", "fault"), FAULTS)
def test_a_chat_reply_that_is_no_answer_says_why(
    serve: Callable[..., Endpoint], body: dict[str, Any], fault: str
) -> None:
    assert chat_reply(body).fault.startswith(fault)
    endpoint = serve(lambda number, request: (200, {}, json.dumps(body)))
    with OpenAIGenerator("m", base_url=endpoint.base_url) as generator:
        with pytest.raises(GeneratorError, match=f"m gave no answer: {fault}"):
            generator.generate(["a"])
        with pytest.raises(GeneratorError, match=fault):
            TextOnly(generator).generate(["a"])
        assert [reply.short_fault[: len(fault)] for reply in generator.replies(["a", "b"])] == [fault, fault]


def test_reasoning_beside_an_answer_and_answers_in_parts() -> None:
    assert chat_reply(completion(ANSWER, reasoning_content="Maybe 1902.")).usable("m") == ANSWER
    parts = [{"type": "thinking", "thinking": "1902"}, {"type": "text", "text": ANSWER}]
    assert chat_reply(completion(parts)).usable("m") == ANSWER
    assert chat_reply(completion(ANSWER, finish_reason=None)).cut is None


class Says:
    """A generator of the smallest kind: text alone."""

    name = "says"

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def generate(self, prompts: list[str], *, max_new_tokens: int = 64) -> list[str]:
        return [self.texts[place % len(self.texts)] for place in range(len(prompts))]


def test_a_generator_of_text_alone_is_read_the_same_way() -> None:
    replies = generated(Says(REASONED[0], ONLY[0], ""), ["a", "b", "c"], max_new_tokens=9)
    assert [(reply.text, reply.short_fault) for reply in replies] == [(ANSWER, ""), ("", ONLY_REASONING), ("", EMPTY)]


def test_a_local_model_whose_template_opens_the_reasoning_never_answers_with_it(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %} <think>"
    folder = save_llama(tmp_path, chat_template=template)
    plain = LocalGenerator(folder, device="cpu", chat=False)
    assert plain.generate(["the cat"], max_new_tokens=6)
    tokenizer = plain._tokenizer
    tokenizer.add_tokens(["<think>"])
    ids = tokenizer("the cat <think>")["input_ids"]
    assert plain._reply(ids, [4, 5], 6).short_fault == ONLY_REASONING
    assert plain._reply(ids[:-1], [4, 5], 6).fault == ""


DOCUMENTS = [
    "The lighthouse stands on the cape. It was lit in 1874. Gulls nest on its roof. The keeper left long ago. Visitors "
    "may climb it on Sundays for a small fee."
] * 2


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (REASONED[0], ANSWER),
        ("<think>No document helps.</think>\n**NOTHING RELEVANT**", ""),
        (ONLY[0], "only reasoning"),
        ("", "empty"),
        ("I'm sorry, but I can't help with that request.", "refused"),
    ],
)
def test_a_failed_reply_is_never_an_empty_summary(said: str, expected: str) -> None:
    from ctxprune.compressors.recomp.abstractive import RecompAbstractive
    from ctxprune.compressors.recomp.summaries import GeneratorSummarizer

    compressor = RecompAbstractive(GeneratorSummarizer(Says(said)))
    asked = [Context.of("When was the lighthouse lit?", DOCUMENTS)]
    if expected in ("", ANSWER):
        [result] = compressor.compress(asked)
        assert [piece.text for piece in result.pieces] == [expected]
        return
    with pytest.raises(GeneratorError, match=expected):
        compressor.compress(asked)


def test_a_summary_cut_off_keeps_its_whole_sentences_or_fails(serve: Callable[..., Endpoint]) -> None:
    says = {"text": f"{ANSWER} The keeper lef"}
    endpoint = serve(lambda number, body: (200, {}, json.dumps(completion(says["text"], finish_reason="length"))))
    asked = [Context.of("When was the lighthouse lit?", DOCUMENTS)]
    with load("recomp-abstractive", model="m", base_url=endpoint.base_url) as compressor:
        [result] = compressor.compress(asked)
        assert result.pieces[0].text == ANSWER and "unfinished last sentence was left out" in result.warnings[0]
        says["text"] = "The lighthouse was lit in 18"
        with pytest.raises(GeneratorError, match="cut off"):
            compressor.compress(asked)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    row = {"id": "1", "question": "Which bird?", "answers": ["gull"]}
    rows = [row | {"documents": [{"text": "A gull is a bird. It nests on roofs.", "is_gold": True}]}]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluated(questions: Path, endpoint: Endpoint) -> list[dict[str, Any]]:
    folder = questions.parent
    options = ["--data", str(questions), "--compressor", "lead", "--budget", "6", "--no-references"]
    options = ["--data", str(questions), "--compressor", "provence", "--thresholds", "0.1", "--baselines", "lead"]
    where = ["--out", str(folder / "run"), "--cache", str(folder / "cache")]
    code = main(["eval", "run", *options, "--generator", "openai:m", "--base-url", endpoint.base_url, *where])
    assert code == 0
    return [json.loads(line) for line in (folder / "run" / "samples.jsonl").read_text().splitlines()]


def test_a_figure_counts_no_thoughts_and_no_failed_reply(serve: Callable[..., Endpoint], questions: Path) -> None:
    says = {"text": "<think>A gull, surely.</think>A heron."}
    endpoint = serve(lambda number, body: (200, {}, json.dumps(completion(says["text"]))))
    assert {(row["prediction"], row["metrics"]["match"]) for row in evaluated(questions, endpoint)} == {
        ("A heron.", 0.0)
    }

    says["text"] = "<think>A gull, surely."
    questions.write_text(questions.read_text().replace("Which bird?", "Which bird is it?"))
    (questions.parent / "run").rename(questions.parent / "first")
    rows = evaluated(questions, endpoint)
    assert all(row["prediction"] is None and row["failure"].startswith(ONLY_REASONING) for row in rows)
    assert all(row["metrics"]["failed"] == 1.0 and row["metrics"]["match"] is None for row in rows)

    says["text"] = "A gull."  # what failed is asked again by the next run
    (questions.parent / "run").rename(questions.parent / "second")
    assert {row["metrics"]["match"] for row in evaluated(questions, endpoint)} == {1.0}


def test_run_says_that_there_is_no_answer(serve: Callable[..., Endpoint], capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = serve(lambda number, body: (200, {}, json.dumps(completion(None, reasoning="Let me see."))))
    asked = ["run", "-q", "When is a Flex ticket refunded?", "-k", "1"]
    assert main([*asked, "--generator", "openai:m", "--base-url", endpoint.base_url]) == 1
    shown = capsys.readouterr()
    assert "NO ANSWER: the reply is only reasoning" in shown.out
    assert "1 of 1 question got no answer" in shown.err
    assert main([*asked, "--generator", "openai:m", "--base-url", endpoint.base_url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["answer"] is None
