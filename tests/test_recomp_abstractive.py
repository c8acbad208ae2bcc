"""recomp-abstractive over a scripted generator: windows, budgets, unfaithful summaries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cli.output import result_lines
from ctxprune.compressors.recomp.abstractive import RecompAbstractive
from ctxprune.compressors.recomp.summaries import (
    NOTHING,
    GeneratorSummarizer,
    chat_prompt,
    prompt_of,
    seq2seq_source,
    windowed,
)
from ctxprune.errors import BudgetError, GeneratorError, InputError
from ctxprune.pipeline import Pipeline
from ctxprune.prompt import NO_CONTEXT, count_contexts, render_prompt
from ctxprune.select import Policy
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary

CURIE = Document("Marie Curie was born in Warsaw in 1867. She moved to Paris in 1891.", id="c", title="Marie Curie")
NOBEL = Document("The prize was first given in 1901. Marie Curie got it twice, in two sciences.", id="n")
QUERY = "Where was Marie Curie born?"
CONTEXT = Context.of(QUERY, [CURIE, NOBEL])
FAITHFUL = "Marie Curie was born in Warsaw in 1867."
PLANTED = "Marie Curie was born in Warsaw in 1868."


class Scripted:
    """A generator that answers from a list, or by a rule; an answer that is an error is raised."""

    name = "scripted"

    def __init__(self, *answers: str | Exception, rule: Callable[[str], str] | None = None) -> None:
        self.answers = list(answers)
        self.rule = rule
        self.prompts: list[str] = []
        self.limits: list[int] = []

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        self.limits.append(max_new_tokens)
        answers = []
        for prompt in prompts:
            self.prompts.append(prompt)
            answer = self.rule(prompt) if self.rule else self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers


def compressor(
    *answers: str | Exception, rule: Callable[[str], str] | None = None, **options: Any
) -> RecompAbstractive:
    """Tokens are words."""
    summarizer = GeneratorSummarizer(Scripted(*answers, rule=rule), counter=WordCounter())
    return RecompAbstractive(summarizer, counter=WordCounter(), **options)


def compress(*answers: str | Exception, context: Context = CONTEXT, **options: Any) -> Context:
    [after] = compressor(*answers, **options).compress([context])
    return after


def test_the_published_prompt_to_the_letter():
    assert seq2seq_source("Who?", ["One.", "Two."]) == "Question: Who?\n Document: One.\nTwo.\n Summary: "


def test_one_summary_stands_for_all_documents():
    after = compress(FAITHFUL)
    [piece] = after.pieces
    assert (piece.text, piece.sources, piece.index) == (FAITHFUL, (CURIE, NOBEL), 0)
    assert piece.faithfulness.numbers == piece.faithfulness.names == 1.0
    assert not after.warnings


def test_the_model_sees_titles_and_only_what_is_still_kept():
    narrowed = Extract(CURIE, (Span(0, 39), Span(40, 67)), (False, True))
    generator = Scripted(FAITHFUL)
    RecompAbstractive(GeneratorSummarizer(generator)).compress([Context(QUERY, (narrowed,))])
    assert generator.prompts == [chat_prompt(QUERY, ["Marie Curie\nShe moved to Paris in 1891."])]


@pytest.mark.parametrize("answer", [NOTHING, f" {NOTHING.lower()}. ", f"**{NOTHING}**"])
def test_an_empty_summary_is_a_result(answer):
    [result] = Pipeline([compressor(answer)]).run([CONTEXT])
    [piece] = result.after.pieces
    assert (result.status, piece.text, piece.sources) == ("compressed", "", (CURIE, NOBEL))
    assert NO_CONTEXT in render_prompt(result.after)
    assert result.warnings == ("everything was removed: the context is empty",)


def test_a_reply_without_a_word_is_no_empty_summary():
    with pytest.raises(GeneratorError, match="the reply is empty"):
        compress("")
    [result] = Pipeline([compressor("")], on_error="passthrough").run([CONTEXT])
    assert (result.status, result.after.pieces) == ("degraded", CONTEXT.pieces)
    assert "the reply is empty" in result.reason


@pytest.mark.parametrize("documents", [[], [""], ["  \n"], [Document("", title="Title")]])
def test_nothing_to_summarise_asks_nobody(documents):
    context = Context.of(QUERY, documents)
    [result] = Pipeline([compressor()], counter=WordCounter()).run([context])
    assert result.after == context
    assert result.status == "passthrough"


def test_removed_documents_and_earlier_summaries_stay_where_they_are():
    removed = Extract(NOBEL, (Span(0, 10),), (False,), index=0)
    earlier = Summary("An earlier one.", (NOBEL,), index=1)
    after = compress(FAITHFUL, context=Context(QUERY, (removed, earlier, *CONTEXT.pieces[:1])))
    assert after.pieces[:2] == (removed, earlier)
    assert after.pieces[2].text == FAITHFUL


def test_soft_tokens_are_refused():
    soft = SoftTokens(np.zeros((1, 4), np.float32), CURIE, "mistral", index=3)
    with pytest.raises(InputError, match="document 3 is soft tokens for 'mistral'"):
        compress(FAITHFUL, context=Context(QUERY, (soft,)))


def test_a_threshold_or_policy_is_refused():
    with pytest.raises(InputError, match=r"threshold=0\.5 means nothing; pass budget="):
        compressor().compress([CONTEXT], threshold=0.5)
    with pytest.raises(InputError, match="threshold"):
        compressor(threshold=0.5)
    with pytest.raises(InputError, match="policy"):
        compressor(policy=Policy(min_keep=1))
    assert compressor(policy=Policy()).budget is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_summary_tokens": 0}, "at least 1, got 0"),
        ({"source_tokens": 0}, "at least 1"),
        ({"on_unfaithful": "shout"}, "keep, drop, extractive, got 'shout'"),
        ({"min_names": 1.5}, r"min_names must be in \[0, 1\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        compressor(**options)


def test_a_budget_must_be_positive():
    with pytest.raises(BudgetError, match="budget must be positive, got 0"):
        compressor().compress([CONTEXT], budget=0)


# what a summary may do wrong


def test_a_planted_number_is_reported_and_kept_by_default():
    after = compress(PLANTED)
    assert after.pieces[0].text == PLANTED
    assert after.pieces[0].faithfulness.unsupported_numbers == ("1868",)
    assert "documents 0, 1 is not faithful" in after.warnings[0]
    assert "not there: 1868" in after.warnings[0]


def test_a_planted_number_is_dropped():
    after = compress(PLANTED, on_unfaithful="drop")
    assert after.pieces[0].text == ""
    assert after.pieces[0].faithfulness.unsupported_numbers == ("1868",)
    assert after.warnings[0].endswith("it was dropped")


def test_an_extractive_compressor_takes_the_place():
    [after] = compressor(PLANTED, on_unfaithful="extractive", max_summary_tokens=14).compress([CONTEXT])
    kept = [piece for piece in after.pieces if piece.text]
    assert [piece.text for piece in kept] == ["Marie Curie was born in Warsaw in 1867."]
    assert count_contexts([after], WordCounter()) <= [14]
    assert "bm25-sentences took its place" in after.warnings[0]


def test_the_guard_leaves_faithful_summaries_alone():
    assert compress(FAITHFUL, on_unfaithful="drop").pieces[0].text == FAITHFUL


def test_strange_names():
    strange = "Newton met Einstein and Marie Curie."
    assert not compress(strange, on_unfaithful="drop", min_names=0.3).warnings
    assert compress(strange, on_unfaithful="drop").pieces[0].text == ""


def test_a_summary_longer_than_its_source_gives_way_to_it():
    context = Context.of(QUERY, ["Born in Warsaw."])
    after = compress(FAITHFUL, context=context)
    assert after.pieces == context.pieces
    assert after.warnings == ("the summary of document 0 takes 8 tokens, the text 3; the text was kept",)


def test_an_unfinished_last_sentence_is_left_out():
    after = compress("Marie Curie was born in Warsaw. She moved to", max_summary_tokens=10)
    assert after.pieces[0].text == "Marie Curie was born in Warsaw."
    assert "limit of 10 tokens; its unfinished last sentence was left out" in after.warnings[0]


def test_an_unfinished_only_sentence_is_kept_with_a_warning():
    after = compress("Marie Curie was born in", max_summary_tokens=5)
    assert after.pieces[0].text == "Marie Curie was born in"
    assert "stops within a sentence" in after.warnings[0]


# windows


def test_documents_that_do_not_fit_go_into_several_prompts():
    documents = [Document(f"Fact number {place} is here in words.", id=str(place)) for place in range(6)]
    asked = len(chat_prompt(QUERY, []).split())
    generator = Scripted(rule=lambda prompt: "Fact number " + prompt.split("Fact number ")[1].split()[0] + ".")
    summarizer = GeneratorSummarizer(generator, counter=WordCounter())
    [after] = RecompAbstractive(summarizer, source_tokens=asked + 17, counter=WordCounter()).compress(
        [Context.of(QUERY, documents)]
    )
    assert [piece.text for piece in after.pieces] == ["Fact number 0.", "Fact number 2.", "Fact number 4."]
    assert [[source.id for source in piece.sources] for piece in after.pieces] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert [piece.index for piece in after.pieces] == [0, 2, 4]
    assert max(len(prompt.split()) for prompt in generator.prompts) <= asked + 17


SENTENCE = st.lists(st.sampled_from(["alpha", "beta", "1,000", "x.y()", "Rome"]), min_size=1, max_size=12).map(
    lambda words: "The " + " ".join(words) + "."
)
DOCUMENTS = st.lists(
    st.tuples(st.lists(SENTENCE, max_size=8).map(" ".join), st.sampled_from(["", "A title"])).map(
        lambda pair: Document(pair[0], title=pair[1])
    ),
    max_size=5,
)


@given(DOCUMENTS, st.integers(12, 60))
def test_windows_show_everything_once_and_keep_to_the_limit(documents, room):
    summarizer = GeneratorSummarizer(Scripted(), counter=WordCounter())
    extracts = [extract for extract in Context.of("q", documents).extracts if extract.text]
    limit = len(chat_prompt("q", []).split()) + room
    windows = windowed("q", extracts, summarizer=summarizer, source_tokens=limit)
    assert all(len(prompt_of("q", window, summarizer).split()) <= limit for window in windows)
    shown = " ".join(extract.text for window in windows for extract in window)
    assert shown.split() == " ".join(document.text for document in documents).split()


def test_one_long_sentence_is_split_at_words():
    summarizer = GeneratorSummarizer(Scripted(), counter=WordCounter())
    [extract] = Context.of("q", [" ".join(f"word{place}" for place in range(200))]).extracts
    limit = len(chat_prompt("q", []).split()) + 20
    windows = windowed("q", [extract], summarizer=summarizer, source_tokens=limit)
    assert len(windows) >= 10
    assert " ".join(part.text for window in windows for part in window) == extract.text


def test_a_question_that_fills_the_prompt():
    with pytest.raises(InputError, match=r"the question takes .* source tokens, .* shorten it or raise source_tokens"):
        compress(FAITHFUL, source_tokens=20)


# budgets


@given(st.lists(st.lists(SENTENCE, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=4), st.integers(1, 40))
def test_the_budget_is_never_exceeded(summaries, budget):
    documents = [Document(f"doc{place} " + "The alpha beta 1,000 x.y() Rome. " * 12) for place in range(len(summaries))]
    longest = max(len(chat_prompt("q", [document.text]).split()) for document in documents)
    [after] = compressor(*summaries, source_tokens=longest + 3).compress([Context.of("q", documents)], budget=budget)
    assert len(after.pieces) == len(summaries)
    assert count_contexts([after], WordCounter())[0] <= budget
    for piece, summary in zip(after.pieces, summaries, strict=True):
        assert summary.startswith(piece.text)
    if sum(len(summary.split()) for summary in summaries) <= budget:
        assert [piece.text for piece in after.pieces] == summaries
        assert not any("shortened" in warning for warning in after.warnings)


def test_a_summary_is_shortened_at_a_sentence():
    after = compress(f"{FAITHFUL} She moved to Paris in 1891.", budget=10)
    assert after.pieces[0].text == FAITHFUL
    assert after.warnings == ("the summary was shortened to the budget of 10 tokens",)


def test_where_no_sentence_fits_words_are_kept():
    after = compress(FAITHFUL, budget=3)
    assert after.pieces[0].text == "Marie Curie was"
    assert "shortened" in after.warnings[-1]


def test_what_is_cut_off_no_longer_counts_as_unfaithful():
    after = compress(f"{FAITHFUL} She moved in 1999.", budget=10)
    assert after.pieces[0].faithfulness.unsupported_numbers == ()
    assert "1999" in after.warnings[0]


def test_a_dropped_summary_keeps_its_report_when_others_are_shortened():
    documents = [Document(f"{FAITHFUL} {'The alpha. ' * 12}"), Document("The beta. " * 20)]
    longest = max(len(chat_prompt(QUERY, [document.text]).split()) for document in documents)
    made = compressor(PLANTED, "The beta. The beta.", source_tokens=longest + 3, on_unfaithful="drop")
    [after] = made.compress([Context.of(QUERY, documents)], budget=2)
    assert [piece.text for piece in after.pieces] == ["", "The beta."]
    assert after.pieces[0].faithfulness.unsupported_numbers == ("1868",)


def test_generation_is_held_to_the_budget():
    generator = Scripted(FAITHFUL, FAITHFUL)
    made = RecompAbstractive(GeneratorSummarizer(generator), max_summary_tokens=50)
    made.compress([CONTEXT], budget=20)
    made.compress([CONTEXT], budget=90)
    assert generator.limits == [20, 50]


def test_the_extractive_place_taker_keeps_the_budget():
    after = compress(PLANTED, on_unfaithful="extractive", budget=12)
    assert 0 < count_contexts([after], WordCounter())[0] <= 12


# generators that fail, and several contexts at once


def test_an_endpoint_that_fails_midway():
    failing = compressor(FAITHFUL, GeneratorError("gone"))
    with pytest.raises(GeneratorError, match="gone"):
        failing.compress([CONTEXT, CONTEXT])


def test_a_failure_costs_only_its_own_context():
    other = Context.of("Which prize?", [NOBEL], id="other")

    def rule(prompt: str) -> str:
        if "Which prize?" in prompt:
            raise GeneratorError("gone")
        return FAITHFUL

    results = Pipeline([compressor(rule=rule)], on_error="passthrough").run([CONTEXT, other])
    assert [result.status for result in results] == ["compressed", "degraded"]
    assert results[1].after == other
    assert results[1].reason == "GeneratorError: gone"


def test_a_generator_that_owes_answers():
    class Short(Scripted):
        def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
            return []

    with pytest.raises(GeneratorError, match="gave 0 answers to 1 prompts"):
        RecompAbstractive(GeneratorSummarizer(Short())).compress([CONTEXT])


def test_contexts_do_not_mix():
    second = Context.of("Which prize?", [NOBEL])
    rule = {"Which": "The prize was first given in 1901.", "Where": FAITHFUL}
    made = compressor(rule=lambda prompt: rule["Which" if "Which prize?" in prompt else "Where"])
    both = made.compress([CONTEXT, second])
    assert both == [made.compress([CONTEXT])[0], made.compress([second])[0]]


# the report


def test_the_report_shows_faithfulness():
    [result] = Pipeline([compressor(PLANTED)]).run([CONTEXT])
    row = json.loads(json.dumps(result.to_dict(), allow_nan=False))["documents"][0]
    assert row["faithfulness"]["unsupported_numbers"] == ["1868"]
    assert row["faithfulness"]["numbers"] == 0.0
    assert [source["id"] for source in row["sources"]] == ["c", "n"]
    assert "not there: 1868" in result.to_html()
    assert any("0% of numbers" in line.text for line in result_lines(result, brief=False))
