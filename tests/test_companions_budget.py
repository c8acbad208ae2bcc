"""What a budget does with companions: no bare headings, whole answers, a word on missing steps."""

import pytest

from tests.test_companions import choose, lines, scored  # isort: skip

TIDES = """# Harbour handbook

Table 4. Heights of the tide above chart datum at the old pier, in metres, as predicted for the coming year

| Date | High | Low |
| --- | --- | --- |
| 3 May | 4.1 | 0.7 |
| 4 May | 4.4 | 0.5 |

## Bunkering

Fuel is sold on weekdays.

## Customs

Dutiable goods are declared at berth nine.
"""


@pytest.mark.parametrize(("row", "caption"), [(0.8, False), (0.3, True)])
def test_a_caption_leaves_room_for_the_row_that_answers(row, caption):
    context = scored(TIDES, {"| Date": 0.9, "4 May": row, "3 May": 0.02, "Table 4": 0.02})
    kept = lines(choose(context, budget=40, floor=0.01))
    assert ("| 4 May | 4.4 | 0.5 |" in kept) != caption
    assert any("Heights" in line for line in kept) == caption
    assert any(line.startswith("| Date") for line in kept)


def test_a_row_keeps_its_header_though_another_row_would_fit_in_its_place():
    context = scored(TIDES, {"4 May": 0.9, "3 May": 0.8})
    kept = lines(choose(context, budget=22, floor=0.005, relevant=0.9))
    assert kept[0].startswith("| Date") and kept[1:] == ["| 4 May | 4.4 | 0.5 |"]


@pytest.mark.parametrize("fill", ["skip", "stop"])
def test_a_weak_heading_fills_no_budget_without_what_it_is_the_heading_of(fill):
    context = scored(TIDES, {"Dutiable": 0.9, "## Bunkering": 0.2, "Fuel": 0.05}, fallback=0.0)
    assert lines(choose(context, budget=14, floor=0.01, fill=fill)) == [
        "# Harbour handbook",
        "## Customs",
        "Dutiable goods are declared at berth nine.",
    ]
    assert lines(choose(context, budget=60, floor=0.01, fill=fill))[1:3] == [
        "## Bunkering",
        "Fuel is sold on weekdays.",
    ]
    assert "## Bunkering" in lines(choose(context, threshold=0.15))


def test_a_heading_with_nothing_below_it_worth_keeping_is_a_label():
    context = scored(TIDES, {"Dutiable": 0.9, "## Bunkering": 0.2}, fallback=0.0)
    result = choose(context, budget=60, floor=0.01)
    assert "## Bunkering" not in lines(result)
    assert any("labels and rules" in warning for warning in result.warnings)
    assert "## Bunkering" in lines(choose(context, budget=60, floor=0.01, protect=("Bunkering",)))
    strong = scored(TIDES, {"Dutiable": 0.9, "## Bunkering": 0.6}, fallback=0.0)
    assert "## Bunkering" in lines(choose(strong, budget=60, floor=0.01))


FAQ = {
    "en": ("How do I pay?\nBy card or in cash. Cheques are refused. Tips are welcome.", "Cheques are refused."),
    "sv": ("Får man ta med hund?\nJa, i koppel. Under sommaren är de förbjudna. Katter får stanna hemma.", "Under"),
    "ja": ("支払い方法は何ですか？\nカードか現金です。小切手は使えません。", "小切手"),
    "html": ("<h3>Who may fish?</h3><p>Members do. Guests need a day card. Children are free.</p>", "Guests need"),
    "summary": ("<details><summary>Who fishes?</summary><p>Members do. Guests pay.</p></details>", "Guests pay"),
}


@pytest.mark.parametrize("name", FAQ)
def test_a_question_that_is_asked_keeps_its_answer_together(name):
    entry, rest = FAQ[name]
    question = entry.split("\n")[0] if "<" not in entry else entry[: entry.index("<p>")]
    other = "What is sold here?\nBread and eggs. Milk is delivered on Fridays."
    if "<" in entry:
        other = "<h3>What is sold here?</h3><p>Bread and eggs. Milk is delivered.</p><p>Bye.</p>"
    text = f"{entry}\n\n{other}\n"
    kept = "".join(lines(choose(scored(text, {question[-9:]: 0.9, "sold here": 0.3}), threshold=0.2)))
    assert rest in kept and "sold here" in kept and "Milk" not in kept
    weak = "".join(lines(choose(scored(text, {question[-9:]: 0.3, "sold here": 0.9}), threshold=0.2)))
    assert rest not in weak and "Milk" in weak


@pytest.mark.parametrize(
    "heading", ["## When the lift is stuck", "### 4.2 If smoke is seen", "## Wenn es brennt", "## In case of a leak"]
)
def test_a_heading_that_names_a_case_keeps_what_to_do_together(heading):
    told = "Press the bell. Wait by the door. Then ring 112."
    text = f"{heading}\n\n{told}\n\n## Cleaning\n\nUse a dry cloth. Dust first.\n"
    kept = lines(choose(scored(text, {heading[-9:]: 0.9, "Press": 0.3}), threshold=0.2))
    assert " ".join(kept) == f"{heading} {told}"
    named = text.replace(heading, "## The lift")
    assert "Wait by" not in "".join(lines(choose(scored(named, {"The lift": 0.9, "Press": 0.3}), threshold=0.2)))


def test_an_answer_as_long_as_a_chapter_is_chosen_from():
    text = "Why is it so?\n" + " ".join(f"There are {n} reasons for number {n}." for n in range(20)) + "\n"
    assert lines(choose(scored(text, {"Why": 0.9}), threshold=0.5)) == ["Why is it so?"]


STEPS = "Flushing the radiator\n\n" + "\n".join(
    f"{n}. {step}"
    for n, step in enumerate(["Open the tap at the side.", "Wait for clear water.", "Close it again."], 1)
)


@pytest.mark.parametrize(("budget", "steps"), [(30, 3), (17, 2), (11, 1)])
def test_a_warning_says_that_steps_are_missing(budget, steps):
    context = scored(STEPS, {"Flushing": 0.9}, fallback=0.02)
    result = choose(context, budget=budget, floor=0.01)
    assert len(lines(result)) == 1 + steps
    expected = (
        f"only {steps} of the 3 steps or items of a list that may answer the question fit the budget of {budget} tokens"
    )
    assert (expected in result.warnings) == (steps < 3)


def test_no_warning_tells_of_steps_that_nobody_asked_for():
    context = scored(f"{STEPS}\n\nA radiator weighs nine kilograms.\n", {"nine": 0.9, "Wait": 0.2}, fallback=0.02)
    assert not choose(context, budget=13, floor=0.1).warnings


def test_a_header_comes_with_the_row_that_answers_or_not_at_all():
    context = scored(TIDES, {"| Date": 0.9, "4 May": 0.5, "3 May": 0.02})
    assert lines(choose(context, budget=16, floor=0.01))[0] == "| 4 May | 4.4 | 0.5 |"
    assert lines(choose(context, budget=22, floor=0.01)) == [
        "| Date | High | Low |\n| --- | --- | --- |",
        "| 4 May | 4.4 | 0.5 |",
    ]
    first = scored(TIDES, {"| Date": 0.9, "May": 0.1})
    assert lines(choose(first, budget=16, floor=0.01))[0].startswith("| Date")


def test_no_warning_tells_of_the_other_items_of_a_list_one_of_which_answers():
    text = "Rules of the boathouse\n\n1. Oars are dried.\n2. Nobody rows alone.\n3. The gate is shut at ten.\n"
    assert not choose(scored(text, {"Nobody": 0.9}, fallback=0.02), budget=9, floor=0.01).warnings


def test_clauses_that_are_named_in_capitals_are_no_steps():
    clauses = ["1. TERM. It lasts a year.", "2. RENT AND FEES. Tenant pays 900.", "3. PETS. None are allowed."]
    lease = scored("LEASE OF A FLAT\n\n" + "\n\n".join(clauses) + "\n", {"LEASE": 0.9, "RENT": 0.8}, fallback=0.02)
    assert "3. PETS. None are allowed." not in lines(choose(lease, threshold=0.5))
