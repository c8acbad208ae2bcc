"""Questions that are named or stand alone keep their answers, and an answer its question."""

from __future__ import annotations

import pytest
from test_companions import choose, lines, scored
from test_units_field import leaning

NAMED = """\
{q} May I fish at the weir? I have a boat.

{a} In part. From the upper bank it is free.

Below the gate nobody may.

{q} Who keeps the weir?

{a} Kim Bell does.
"""


@pytest.mark.parametrize(("q", "a"), [("Q:", "A:"), ("Q.", "A."), ("Q3:", "A3:"), ("Question:", "Answer:")])
def test_every_part_of_an_answer_leans_on_its_question(q: str, a: str) -> None:
    found = leaning(NAMED.format(q=q, a=a))
    question = f"{q} May I fish at the weir?"
    assert found["From the upper bank it is free."] in (question, f"{a} In part.")
    assert found[f"{a} In part."] == question
    assert found["Below the gate nobody may."] == question
    assert found["I have a boat."] == question
    assert found[f"{a} Kim Bell does."] == f"{q} Who keeps the weir?"


def test_a_heading_ends_an_answer() -> None:
    found = leaning("# Weir\n\nQ: Who keeps it?\n\nA: Kim does.\n\n## Hours\n\nThe gate opens at seven.")
    assert found["The gate opens at seven."] == "## Hours"


def test_a_named_question_that_scores_keeps_its_answer() -> None:
    kept = lines(choose(scored(NAMED.format(q="Q:", a="A:"), {"May I fish": 0.9}), threshold=0.5))
    assert kept == [
        "Q: May I fish at the weir?",
        "I have a boat.",
        "A: In part.",
        "From the upper bank it is free.",
        "Below the gate nobody may.",
    ]


def test_a_question_without_an_answer_below_keeps_nothing() -> None:
    text = "Q: Who keeps the weir?\n\nThe weir is old. It leaks."
    assert lines(choose(scored(text, {"Who keeps": 0.9}), threshold=0.5)) == ["Q: Who keeps the weir?"]


ALONE = """\
Why does the gate (the upper one) leak?

\tIt is of wood. Nobody has mended it since the flood of that year.

When does it open?

\tAt seven, or a little later.

Who keeps it?

\tKim Bell does. Ask at the mill.
"""


@pytest.mark.parametrize("text", [ALONE, ALONE.replace("\t", ""), ALONE.replace("\n\n\t", "\n").replace("W", "📌 W")])
def test_questions_alone_over_their_answers_are_headings(text: str) -> None:
    found = leaning(text)
    mark = "📌 " if "📌" in text else ""
    assert found["Ask at the mill."] == f"{mark}Who keeps it?"
    assert found["It is of wood."] == f"{mark}Why does the gate (the upper one) leak?"


def test_a_question_asked_in_passing_is_no_heading() -> None:
    text = "The gate leaks.\n\nWho would mend it?\n\nKim Bell did so in May.\n\nNow it is dry."
    assert leaning(text)["Kim Bell did so in May."] is None


def test_what_comes_before_the_steps_comes_with_them() -> None:
    text = (
        "## Draining the pool\n\nBefore you begin, shut the upper gate. The pool is 2 m deep.\n\n"
        "1. Open the lower gate.\n2. Wait an hour.\n3. Sweep the floor.\n\n## Hours\n\nIt opens at seven."
    )
    kept = lines(choose(scored(text, {"## Drain": 0.9}), threshold=0.5))
    assert kept == [
        "## Draining the pool",
        "Before you begin, shut the upper gate.",
        "1. Open the lower gate.",
        "2. Wait an hour.",
        "3. Sweep the floor.",
    ]


def test_lettered_steps_that_say_when_stay_together() -> None:
    text = "## Draining\n\na) Shut the upper gate.\nb) Wait an hour.\nc) Sweep the floor.\n\nKim keeps the weir."
    assert lines(choose(scored(text, {"## Drain": 0.9}), threshold=0.5)) == [
        "## Draining",
        "a) Shut the upper gate.",
        "b) Wait an hour.",
        "c) Sweep the floor.",
    ]


def test_clauses_of_a_contract_are_no_steps() -> None:
    text = (
        "## Lease of the mill\n\n1. Rent. The tenant shall pay at once.\n2. Care. The landlord shall mend the roof.\n"
        "3. End. Either party may end this agreement in May.\n"
    )
    assert lines(choose(scored(text, {"## Lease": 0.9}), threshold=0.5)) == ["## Lease of the mill"]


def test_words_above_rows_fill_no_budget_without_a_row() -> None:
    rows = "Upper lock    07:10  09:10\nMill          07:25  09:25\nBasin         07:40  09:40"
    text = f"Kim keeps the weir in the valley.\n\nSummer hours of boats\n{rows}\n\nThe boat is old."
    context = scored(text, {"Kim": 0.9, "Summer": 0.2, "old": 0.15})
    assert lines(choose(context, budget=14, floor=0.1)) == ["Kim keeps the weir in the valley.", "The boat is old."]


def page(
    answers: int, sentence: str = "The keeper of the weir says so, and he has been there for a long time. "
) -> str:
    return "".join(f"## Does gate {n} leak?\n\n{sentence * 6}\n\n" for n in range(answers))


def test_a_page_of_questions_that_are_all_alike_does_not_come_whole() -> None:
    kept = lines(choose(scored(page(9), {"Does gate 4": 0.9, "Does gate": 0.8}), threshold=0.5))
    assert len([unit for unit in kept if unit.startswith("##")]) == 9
    assert sum(len(unit) for unit in kept if not unit.startswith("##")) <= 1200
    after = kept[kept.index("## Does gate 4 leak?") + 1 :]
    assert len(after) > 5 and not any(unit.startswith("##") for unit in after[:6])  # the best one is whole


def test_an_answer_that_is_very_long_comes_with_its_beginning() -> None:
    text = "## Does the gate leak?\n\n" + "It leaks at the hinge where the oak is soft and the water is high. " * 3
    text += "\n\n" + "The keeper mended it with tar. " * 1 + "\n\n```\n" + "tar " * 400 + "\n```\n"
    kept = lines(choose(scored(text, {"Does the gate": 0.9}), threshold=0.5))
    assert "The keeper mended it with tar." in kept
    assert not any(unit.startswith("```") for unit in kept)
