"""Verdicts by example; the judge with a generator that replies by rule."""

from __future__ import annotations

import pytest

from ctxprune.errors import InputError
from ctxprune.eval.judge import JudgeItem, judge, judge_prompt, parse_verdict

ITEM = JudgeItem("Where {prediction}?", ("Paris", "Paname"), "In {question} Rome")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", "yes"),
        (" **No.** It says Rome.", "no"),
        ("YES, no doubt", "yes"),
        ("It names the city.\nVerdict: yes", "yes"),
        ("Final answer: **no**.", "no"),
        ("<think>no, no... wait</think>\nYes", "yes"),
        ("<think>yes, and so", "unparseable"),
        ("yes or no", "unparseable"),
        ("Yes/No", "unparseable"),
        ("Nobody knows", "unparseable"),
        ("It is right.", "unparseable"),
        ("", "unparseable"),
    ],
)
def test_parse_verdict(reply, verdict):
    assert parse_verdict(reply) == verdict


def test_the_prompt_holds_the_texts_as_they_are():
    prompt = judge_prompt(ITEM)
    assert "Question: Where {prediction}?\n" in prompt
    assert "Accepted answers: Paris | Paname\n" in prompt
    assert "Answer to grade: In {question} Rome\n" in prompt


def test_a_question_without_answers_wants_a_refusal():
    assert "cannot be answered" in judge_prompt(JudgeItem("Where?", (), ""))
    assert "cannot be answered" not in judge_prompt(ITEM)


class Rule:
    """Says yes where the answer to grade is Paris; keeps the size of each batch."""

    name = "rule"

    def __init__(self):
        self.batches = []

    def generate(self, prompts, *, max_new_tokens=64):
        self.batches.append(len(prompts))
        return ["Yes" if "grade: Paris" in prompt else "no" if "grade: Rome" in prompt else "?" for prompt in prompts]


def test_judge_asks_in_batches_and_keeps_the_order():
    rule = Rule()
    items = [JudgeItem("Where?", ("Paris",), answer) for answer in ("Rome", "Paris", "", "Paris")]
    assert judge(rule, items, batch_size=3) == ["no", "yes", "unparseable", "yes"]
    assert rule.batches == [3, 1]
    assert judge(rule, []) == []


def test_a_batch_has_a_size():
    with pytest.raises(InputError, match="batch_size"):
        judge(Rule(), [ITEM], batch_size=0)
