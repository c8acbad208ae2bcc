"""What a kept sentence brings along: headings, header rows, introductions, the sentence before, whole procedures."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune import Context, Pipeline, Policy, load
from ctxprune.compressors.base import ScoringCompressor, narrow, with_extracts
from ctxprune.errors import InputError
from ctxprune.prompt import render_context
from ctxprune.select import select
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import Document, Extract, Span

WORDS = WordCounter()

MANUAL = """# Kettle

It boils water.

## Cleaning

Unplug it first. It must be cold.

To remove scale, do this:

1. Fill it with vinegar and water.
2. Let it stand for an hour.
3. Rinse it three times.

## Prices

| Model | Price |
| --- | --- |
| K1 | 30 euros |
| K2 | 45 euros |
"""


def scored(text, scores, *, fallback=0.01):
    """The text's sentences; each scores what stands beside the words it holds."""
    units = []
    for span in split_sentences(text):
        words = text[span.start : span.end]
        units.append(Span(span.start, span.end, next((v for key, v in scores.items() if key in words), fallback)))
    return Context("q", (Extract(Document(text), tuple(units), (True,) * len(units)),))


def choose(context, *, threshold=None, budget=None, relevant=0.1, **policy):
    rules = Policy(**{"companions": True} | policy)
    return select(context, threshold=threshold, budget=budget, counter=WORDS, policy=rules, relevant=relevant)


def lines(context):
    """The kept units, without the space around them."""
    return [e.source.text[unit.start : unit.end] for e in context.extracts for unit in e.kept_units()]


def test_a_row_brings_its_header_and_its_heading():
    kept = lines(choose(scored(MANUAL, {"45": 0.9}), threshold=0.5))
    assert kept == ["# Kettle", "## Prices", "| Model | Price |\n| --- | --- |", "| K2 | 45 euros |"]


def test_without_companions_it_stands_alone():
    assert lines(choose(scored(MANUAL, {"45": 0.9}), threshold=0.5, companions=False)) == ["| K2 | 45 euros |"]
    assert lines(choose(scored(MANUAL, {"45": 0.9}), threshold=0.5, companions=None)) == ["| K2 | 45 euros |"]


def test_a_sentence_that_begins_with_a_pronoun_brings_the_one_before():
    kept = lines(choose(scored(MANUAL, {"must be cold": 0.9}), threshold=0.5))
    assert kept[-2:] == ["Unplug it first.", "It must be cold."]


OPTIONS = """OPTIONS

       --dry-run
              Show what would be done. Nothing is written.

       --force
              Overwrite files without asking.
"""


def test_a_term_and_its_definition_come_together():
    kept = lines(choose(scored(OPTIONS, {"--dry-run": 0.9}), threshold=0.5))
    assert kept[-3:] == ["--dry-run", "Show what would be done.", "Nothing is written."]
    kept = lines(choose(scored(OPTIONS, {"Show what": 0.9}), threshold=0.5))
    assert kept[-2:] == ["--dry-run", "Show what would be done."]
    assert lines(choose(scored(OPTIONS, {"Nothing": 0.9}), threshold=0.5))[-2:] == ["--dry-run", "Nothing is written."]


def test_companions_keep_their_own_scores():
    result = choose(scored(MANUAL, {"45": 0.9}), threshold=0.5)
    assert [unit.score for unit in result.extracts[0].kept_units()] == [0.01, 0.01, 0.01, 0.9]


STEPS = ["1. Fill it with vinegar and water.", "2. Let it stand for an hour.", "3. Rinse it three times."]


@pytest.mark.parametrize(
    ("scores", "whole"),
    [
        ({"remove scale": 0.9}, True),
        ({"## Cleaning": 0.9}, True),
        ({"# Kettle": 0.9}, False),
        ({"vinegar": 0.9, "Rinse": 0.9}, True),
        ({"Rinse": 0.9}, False),
    ],
)
@pytest.mark.parametrize("limits", [{"threshold": 0.5}, {"budget": 200, "floor": 0.02}])
def test_the_steps_of_a_procedure_stay_together_when_it_answers(scores, whole, limits):
    kept = lines(choose(scored(MANUAL, scores), **limits))
    assert all(step in kept for step in STEPS) == whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("# Filling\n\n- Open the lid.\n- Wait until it is cold.\n- Pour water in.\n", True),
        ("# How to fill it\n\n* Open the lid.\n* Pour water in.\n", True),
        ("# Füllen\n\n- Deckel öffnen.\n- Danach Wasser eingießen.\n", True),
        ("# Filling\n\nStep 1: Open the lid.\n\nStep 2: Pour water in.\n\nStep 3: Shut it.\n", True),
        ("# Filling\n\n#. Open the lid.\n#. Pour water in.\n", True),
        ("= Filling\n\n. Open the lid.\n. Pour water in.\n", True),
        ("# 给水步骤\n\n- 打开盖子。\n- 倒水。\n", True),
        ("# Filling\n\n- Water is best.\n- Tea is bad for it.\n", False),
        ("# References\n\n1. ^ Lee, Kettles, page 3\n2. ^ Moss, Tea, page 9\n", False),
    ],
)
def test_steps_are_told_from_things_side_by_side(text, whole):
    context = scored(text + "\n# Prices\n\nIt is cheap.\n", {"#. ": 0.01, "# ": 0.9, "= ": 0.9, "Prices": 0.01})
    kept = lines(choose(context, threshold=0.5))
    steps = [line for line in text.splitlines() if line and not line.startswith(("# ", "= "))]
    assert all(step in kept for step in steps) == whole


RULES = """# Hostel

It is old.

## House rules

{}

## Beds

There are eight.
"""


@pytest.mark.parametrize(
    ("question", "whole"),
    [
        ("What house rules are there?", True),
        ("Which rules does the house have?", True),
        ("Which rules hold for dogs and cats in house and yard?", False),
        ("Which rules hold?", False),
        ("q", False),
    ],
)
@pytest.mark.parametrize("section", ["- No shoes upstairs.\n- Quiet after ten.", "No shoes upstairs. Quiet after ten."])
@pytest.mark.parametrize("limits", [{"threshold": 0.5}, {"budget": 40, "floor": 0.02}])
def test_what_stands_below_the_heading_that_names_what_is_asked_stays_whole(question, whole, section, limits):
    context = replace(scored(RULES.format(section), {"## House": 0.9, "eight": 0.8}), query=question)
    kept = " ".join(lines(choose(context, **limits)))
    assert ("No shoes upstairs." in kept and "Quiet after ten." in kept) == whole
    weak = replace(scored(RULES.format(section), {"## House": 0.3, "eight": 0.8}), query=question)
    assert "Quiet after ten." not in " ".join(lines(choose(weak, **limits)))


@pytest.mark.parametrize("limits", [{"threshold": 0.1}, {"budget": 60, "floor": 0.02}])
@pytest.mark.parametrize("title", ["Old hostel", "Old hostel | Lind valley", "Old hostel – Lind valley"])
def test_a_document_of_which_only_its_title_is_chosen_is_left_out(title, limits):
    beds, hostel = (
        scored("There are eight beds.", {"beds": 0.9}),
        scored("# Old hostel\n\nIt is red.\n", {"Old": 0.5}, fallback=0),
    )

    def kept(hostel, title, **rules):
        extracts = (
            *beds.extracts,
            *(replace(each, source=replace(each.source, title=title)) for each in hostel.extracts),
        )
        return lines(choose(Context("q", extracts), **limits, **rules))[1:]

    assert kept(hostel, title) == []
    assert kept(hostel, title, protect=("Old",)) == kept(hostel, title, keep_title=False) == ["# Old hostel"]
    for other in ("Lind valley | Old hostel", "Old hostels", ""):
        assert kept(hostel, other) == ["# Old hostel"]
    assert kept(scored("# Old hostel\n", {"Old": 0.5}), title) == ["# Old hostel"]
    assert kept(scored("# Old hostel\n\nIt is red.\n", {"Old": 0.95}, fallback=0), title) == ["# Old hostel"]


@pytest.mark.parametrize("limits", [{"threshold": 0.1}, {"budget": 60, "floor": 0.02}])
def test_a_weak_heading_at_the_end_of_a_chunk_is_left_out_for_its_text_was_cut_off(limits):
    text = "## Beds\n\nThe hostel has eight beds.\n\n## House rules\n"
    assert lines(choose(scored(text, {"eight": 0.9, "rules": 0.2}), **limits))[-1] == "The hostel has eight beds."
    assert "## House rules" in lines(choose(scored(text, {"eight": 0.9, "rules": 0.6}), **limits))
    assert "## House rules" in lines(choose(scored(text, {"eight": 0.9, "rules": 0.2}), protect=("rules",), **limits))
    assert lines(choose(scored("## House rules\n", {"rules": 0.2}), **limits)) == ["## House rules"]


@pytest.mark.parametrize(
    ("page", "whole"),
    [
        ("<h2>Filling</h2>\n<ol>\n<li>Open the lid.</li>\n<li>Pour water in.</li>\n</ol>", True),
        (
            "<h2>Filling</h2><div><ol class='s'><li><p>Open the lid.</p></li><li><b>Pour</b> water in.</li></ol></div>",
            True,
        ),
        ("<h2>Filling</h2><ul><li>Open the lid.</li><li>Then pour water in.</li></ul>", True),
        ("<h2>Filling</h2><ul><li>The lid is red.</li><li>They pour water in.</li></ul>", False),
    ],
)
def test_steps_of_a_web_page_stay_together(page, whole):
    text = f"<body><h1>Kettle</h1><p>It boils.</p>{page}<ul><li>Tea is bad for it.</li></ul><p>It is cheap.</p></body>"
    kept = "".join(lines(choose(scored(text, {"<h2>": 0.9}), threshold=0.5)))
    assert ("lid" in kept and "water in" in kept) == whole
    assert "Tea" not in kept and "cheap" not in kept


def test_a_procedure_that_does_not_fit_gives_its_best_steps():
    context = scored(MANUAL, {"remove scale": 0.9, "an hour": 0.8})
    kept = lines(choose(context, budget=17, floor=0.02))
    assert kept == ["# Kettle", "## Cleaning", "To remove scale, do this:", "2. Let it stand for an hour."]


def test_what_cannot_be_read_without_another_fills_no_budget_alone():
    context = scored(MANUAL, {"boils": 0.9, "45": 0.4, "30 euros": 0.3})
    assert lines(choose(context, budget=13, floor=0.02)) == ["# Kettle", "It boils water."]
    context = scored(MANUAL, {"boils": 0.9, "45": 0.5})
    assert lines(choose(context, budget=13, floor=0.02)) == ["# Kettle", "It boils water.", "| K2 | 45 euros |"]
    context = scored(MANUAL, {"boils": 0.9, "45": 0.4})
    assert lines(choose(context, budget=40, floor=0.02))[-2:] == [
        "| Model | Price |\n| --- | --- |",
        "| K2 | 45 euros |",
    ]


def test_a_heading_brings_the_first_steps_of_a_procedure_that_does_not_fit():
    context = scored(MANUAL, {"## Cleaning": 0.9, "30 euros": 0.5, "Unplug": 0.4})
    assert lines(choose(context, budget=20, floor=0.005)) == ["# Kettle", "## Cleaning", *STEPS[:2]]
    assert lines(choose(context, budget=13, floor=0.005)) == ["# Kettle", "## Cleaning", STEPS[0]]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("§ 3 Boats\n\n1. Boats pay.\n2. Rafts are free.\n3. Nobody else passes.\n", False),
        ("## Artikel 3\n\n1. Boats pay.\n2. Rafts are free.\n3. Nobody else passes.\n", False),
        ("# Boats\n\n(1) Boats pay.\n(2) Rafts are free.\n(3) Nobody else passes.\n", False),
        ("# How to pass\n\n(1) Ring.\n(2) Wait.\n(3) Pay.\n", True),
        ("## 3. Boats\n\n1. Ring.\n2. Wait.\n3. Pay.\n", True),
    ],
)
def test_paragraphs_of_a_law_are_no_steps(text, whole):
    title, *steps = [line for line in text.splitlines() if line]
    assert (lines(choose(scored(text, {title: 0.9}), threshold=0.5)) == [title, *steps]) == whole


def test_a_companion_that_does_not_fit_leaves_the_unit_alone():
    context = scored(MANUAL, {"45": 0.9})
    full = choose(context, budget=200, floor=0.02)
    assert lines(full) == ["# Kettle", "## Prices", "| Model | Price |\n| --- | --- |", "| K2 | 45 euros |"]
    needed = choose(context, budget=16, floor=0.02)
    assert lines(needed) == ["| Model | Price |\n| --- | --- |", "| K2 | 45 euros |"]
    assert lines(choose(context, budget=6, floor=0.02)) == ["| K2 | 45 euros |"]


def test_what_must_stay_brings_its_companions_only_within_the_budget():
    context = scored(MANUAL, {})
    assert len(lines(choose(context, budget=200, protect=("45",), floor=0.5))) == 4
    assert lines(choose(context, budget=6, protect=("45",), floor=0.5)) == ["| K2 | 45 euros |"]


def test_what_an_earlier_compressor_removed_does_not_come_back():
    (extract,) = scored(MANUAL, {"45": 0.9}).extracts
    flags = tuple("## Prices" not in MANUAL[unit.start : unit.end] for unit in extract.units)
    narrowed = Context("q", (Extract(extract.source, extract.units, flags),))
    assert "## Prices" not in lines(choose(narrowed, threshold=0.5))


PIECES = [
    "# Head",
    "Plain words here.",
    "It leans on those.",
    "Do this:",
    "1. One step.",
    "2. Two steps.",
    "- An item.",
    "| a | b |\n| --- | --- |\n| c | d |",
    "However, no.",
    "",
]


@st.composite
def texts(draw):
    text = "\n".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
    scores = draw(st.lists(st.sampled_from([0.0, 0.01, 0.3, 0.6, 0.9]), min_size=40, max_size=40))
    spans = split_sentences(text)
    units = tuple(Span(span.start, span.end, score) for span, score in zip(spans, scores, strict=False))
    return Extract(Document(text, title="T"), units, (True,) * len(units))


contexts = st.lists(texts(), min_size=1, max_size=2).map(
    lambda made: Context("q", tuple(Extract(e.source, e.units, e.kept, index=n) for n, e in enumerate(made)))
)


@settings(deadline=None, max_examples=60)
@given(contexts, st.integers(1, 40), st.sampled_from([None, 0.02, 0.5]), st.sampled_from(["skip", "stop"]))
def test_companions_never_take_a_budget_beyond_its_end(context, budget, floor, fill):
    result = choose(context, budget=budget, floor=floor, fill=fill)
    assert WORDS.count([render_context(result)])[0] <= budget


@settings(deadline=None, max_examples=60)
@given(contexts, st.sampled_from([0.2, 0.5, 0.8]))
def test_companions_only_add_and_a_higher_threshold_still_keeps_a_subset(context, threshold):
    alone = set(lines_at(choose(context, threshold=threshold, companions=False)))
    low, high = (set(lines_at(choose(context, threshold=value))) for value in (threshold, threshold + 0.15))
    assert alone <= low
    assert high <= low
    assert bool(low) == bool(alone)


def lines_at(context):
    return [(e.index, unit.start) for e in context.extracts for unit in e.kept_units()]


class Fixed(ScoringCompressor):
    """Sentences; those with a figure score 0.9, others 0.01."""

    name = "fixed"
    default_threshold = 0.5
    default_companions = True

    def score(self, contexts):
        return [with_extracts(c, [self._scored(e) for e in c.extracts]) for c in contexts]

    def _scored(self, extract):
        text = extract.source.text
        spans = split_sentences(text)
        return narrow(
            extract,
            [Span(s.start, s.end, 0.9 if "euros" in text[s.start : s.end] else 0.01) for s in spans],
        )


def test_a_compressor_of_sentences_has_them_as_it_says_and_one_of_words_refuses_them():
    [result] = Pipeline([Fixed(counter=WORDS)]).run([Context.of("q", [MANUAL])])
    assert "| Model | Price |" in result.text
    [result] = Pipeline([Fixed(counter=WORDS, policy=Policy(companions=False))]).run([Context.of("q", [MANUAL])])
    assert "| Model | Price |" not in result.text
    for name in ("lead", "random-words"):
        with pytest.raises(InputError, match=f"{name} does not choose sentences, and only they have companions"):
            load(name, policy=Policy(companions=True))


def test_what_introduces_a_list_brings_it_where_it_answers_better_than_each_item():
    text = "The weir is old.\n\nAn appeal has:\n\n(i) a name;\n(ii) a date; and\n(iii) a place.\n\nKim reads it.\n"
    listed = ["An appeal has:", "(i) a name;", "(ii) a date; and", "(iii) a place."]
    assert lines(choose(scored(text, {"appeal": 0.8}), threshold=0.3)) == listed
    assert lines(choose(scored(text, {"appeal": 0.8, "date": 0.9}), threshold=0.3)) == [listed[0], listed[2]]
    assert lines(choose(scored(text, {"Kim": 0.9, "appeal": 0.4}), threshold=0.5)) == ["Kim reads it."]


def test_what_introduces_a_command_brings_it():
    text = "The weir is old.\n\nTo see what was lost run this:\n\n    gatectl list --lost\n\nKim looks at it.\n"
    kept = lines(choose(scored(text, {"To see": 0.8}), threshold=0.3))
    assert kept == ["To see what was lost run this:", "gatectl list --lost"]


def test_a_long_list_does_not_come_with_the_line_above_it():
    items = [f"- gate {number}" for number in range(12)]
    text = "\n".join(["The keeper has these gates:", "", *items])
    assert lines(choose(scored(text, {"keeper": 0.8}), threshold=0.3)) == ["The keeper has these gates:"]


def test_a_line_above_encoded_bytes_does_not_bring_them():
    encoded = "Qm9hdHMgcGFzcyBieSBuaWdodCB3aXRob3V0IGEgbGlnaHQ3" * 12
    text = f"The weir is old.\n\nThe picture of the gate:\n\n{encoded}\n\nKim keeps it.\n"
    assert lines(choose(scored(text, {"picture": 0.8}), threshold=0.3)) == ["The picture of the gate:"]


def test_a_clause_that_ends_in_a_colon_brings_what_is_below_it():
    below = "    (i) after a year; or\n    (ii) at once, if it floods."
    text = f"# Lease\n\n2.1 It begins in May.\n2.2 Either side may leave:\n{below}\n2.3 The keys go to Kim.\n"
    kept = lines(choose(scored(text, {"Either": 0.8}), threshold=0.3))
    assert kept == ["# Lease", "2.2 Either side may leave:", "(i) after a year; or", "(ii) at once, if it floods."]
