"""Rendering: what the generator reads, whatever braces and blanks the texts hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.prompt import NO_CONTEXT, count_contexts, readable_text, render_context, render_prompt
from ctxprune.select import Policy, select
from ctxprune.tokens import WordCounter, as_counter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary

SOFT = SoftTokens(np.zeros((3, 8), np.float32), Document("long text"), "mistral", index=4)


def test_documents_have_a_blank_line_between_and_titles_a_line_of_their_own():
    context = Context.of("q", [Document("One.", title="First"), "Two."])
    assert render_context(context) == "First\nOne.\n\nTwo."


@pytest.mark.parametrize(
    "heading",
    [
        "Harbour fees",
        "# Harbour fees",
        "## harbour  fees ##",
        "**Harbour fees**",
        "= Harbour Fees =",
        "\n<h1>Harbour fees</h1>",
    ],
)
def test_a_title_that_the_text_begins_with_is_not_said_twice(heading):
    document = Document(f"{heading}\nA boat pays ten.", title="Harbour fees")
    context = Context.of("q", [document])
    assert render_context(context) == document.text
    assert count_contexts([context], WordCounter()) == WordCounter().count([document.text])
    units = (Span(0, len(heading)), Span(len(heading) + 1, len(document.text)))
    without = Context("q", (Extract(document, units, (False, True)),))
    assert render_context(without) == "Harbour fees\nA boat pays ten."


@pytest.mark.parametrize("text", ["Harbour fees are due. Pay.", "Harbour\nfees", "Fees\nx", "###\nx", ""])
def test_a_text_that_begins_otherwise_gets_its_title(text):
    rendered = render_context(Context.of("q", [Document(text, title="Harbour fees")]))
    assert rendered == (f"Harbour fees\n{text}" if text else "")


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(1, 14))
def test_a_budget_holds_with_and_without_the_heading(scores, budget):
    document = Document("# Old mill\n\nIt grinds rye. It is red.", title="Old mill")
    places = ((0, 10), (12, 26), (27, 37))
    units = tuple(Span(*place, float(score)) for place, score in zip(places, scores, strict=True))
    scored = Context("q", (Extract(document, units, (True,) * 3),))
    chosen = select(scored, threshold=None, budget=budget, counter=WordCounter(), policy=Policy())
    assert count_contexts([chosen], WordCounter())[0] <= budget


def test_empty_pieces_leave_no_trace():
    emptied = Extract(Document("gone", title="Title"), (Span(0, 4),), (False,))
    untitled = Extract(Document("text", title="Title"), (Span(0, 4),), (True,), titled=False)
    blank = Context.of("q", [Document(" \n", title="Blank")]).pieces[0]
    context = Context("q", (emptied, Summary("", ()), untitled, blank, Summary("short", ())))
    assert render_context(context) == "text\n\nshort"


def test_soft_tokens_are_no_text():
    context = Context("q", (Summary("text", ()), SOFT))
    with pytest.raises(
        InputError, match="document 4 is 3 soft tokens for 'mistral', not text; pass the context to that"
    ):
        render_context(context)
    assert readable_text(context) == "text"
    assert count_contexts([context, Context("q", ())], WordCounter()) == [4, 0]


@settings(deadline=None)
@given(st.text("{}ab:questioncontext!0 ", max_size=40), st.text("{}\\1gcontext ", max_size=40))
def test_braces_in_the_texts_stay_as_they_are(question, text):
    context = Context.of(question, [text] if text.strip() else [])
    prompt = render_prompt(context, template='{"q": "{question}", "c": "{context}", "x": {0}}')
    assert prompt == '{"q": "' + question + '", "c": "' + (text if text.strip() else NO_CONTEXT) + '", "x": {0}}'


def test_the_default_prompt_holds_question_and_context():
    prompt = render_prompt(Context.of("Why {context}?", ["Because."]))
    assert "Context:\nBecause.\n" in prompt
    assert "Question: Why {context}?" in prompt


@pytest.mark.parametrize("template", ["{question}", "{context} {Question}"])
def test_a_template_without_a_placeholder_is_refused(template):
    with pytest.raises(InputError, match=r"the prompt template needs \{"):
        render_prompt(Context.of("q", []), template=template)


def test_blank_lines_beside_soft_tokens_count() -> None:
    one = SoftTokens(np.zeros((1, 3), np.float32), Document("rock"), "org/tiny")
    apart = SoftTokens(np.zeros((2, 3), np.float32), Document("rock"), "org/tiny", 0, (Span(0, 1), Span(1, 4)))
    none = SoftTokens(np.zeros((0, 3), np.float32), Document("rock"), "org/tiny")
    letters = as_counter(len)
    for pieces, count in (
        ((one, one), 2),
        ((one, "sea"), 1 + 2 + 3),
        (("sea", one, one, "sun"), 3 + 2 + 2 + 2 + 3),
        ((one, apart, one, one), 1 + 2 + 2 + 2 + 2),
        ((apart, apart), 4 + 2),
        ((none, "sea"), 3),
    ):
        assert count_contexts([Context("q", pieces)], letters) == [count]
