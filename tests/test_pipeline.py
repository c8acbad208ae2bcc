"""Pipelines: chains keep offsets into the original, failures degrade one context only, streams stay lazy."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
from fixtures_scoring import LetterCompressor, words
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.errors import BudgetError, CtxpruneError, InputError
from ctxprune.pipeline import Pipeline, require_query
from ctxprune.select import Policy
from ctxprune.tokens import WordCounter, default_counter
from ctxprune.types import Context, Document, SoftTokens, Summary

WORDS = WordCounter()
TEXT = "a cat sat. The dog dug. A bat ran."


def letters(letter="a", **options):
    return LetterCompressor(letter, counter=WORDS, **options)


def test_one_result_a_context_in_order():
    contexts = [Context.of("q1", [TEXT], id="x"), Context.of("q2", ["No."]), Context.of("q3", ["a b. c d."], id="y")]
    results = Pipeline([letters()]).run(contexts)
    assert [result.before for result in results] == contexts
    assert [result.text for result in results] == ["a cat sat. A bat ran.", "", "a b."]
    assert [(r.tokens_before, r.tokens_after) for r in results] == [(9, 6), (1, 0), (4, 2)]
    assert {(r.status, r.reason, r.compressor, r.tokenizer, r.exact) for r in results} == {
        ("compressed", None, "letter", "words", True)
    }


@settings(deadline=None)
@given(st.lists(st.text("ab. \n\u0e01é😀", max_size=40), max_size=4), st.booleans())
def test_a_chain_yields_verbatim_slices_of_the_original_in_order(texts, coarse_first):
    chain = [letters(threshold=0.3), letters("b", split=words, threshold=0.5)]
    context = Context.of("q", [Document(text, id=str(n), metadata={"n": n}) for n, text in enumerate(texts)])
    [result] = Pipeline(chain if coarse_first else chain[::-1]).run([context])
    assert [extract.source for extract in result.after.extracts] == [extract.source for extract in context.extracts]
    for extract, text in zip(result.after.extracts, texts, strict=True):
        rest = extract.text
        for start, end in extract.slices():
            at = rest.index(text[start:end])
            assert not rest[:at].strip()
            rest = rest[at + end - start :]
        assert not rest
        for unit in extract.kept_units():
            word = text[unit.start : unit.end]
            assert not coarse_first or "b" in word


def test_the_last_compressor_gets_budget_and_threshold():
    chain = [letters(threshold=0.0), letters("a")]
    [result] = Pipeline(chain).run([Context.of("q", ["a b c. a b. c."])], budget=3, threshold=0.2)
    assert result.text == "a b."
    assert (result.budget, result.over_budget) == (3, False)
    [result] = Pipeline([letters(budget=3)]).run([Context.of("q", ["a b c d. a b."])])
    assert (result.text, result.budget) == ("a b.", 3)


def test_a_budget_that_protected_text_exceeds_is_reported():
    [result] = Pipeline([letters(policy=Policy(protect=(r"one",)))]).run(
        [Context.of("q", ["one two three."])], budget=2
    )
    assert result.over_budget
    assert "budget of 2 tokens is exceeded" in result.warnings[0]


@pytest.mark.parametrize(
    ("compressors", "documents", "options", "reason"),
    [
        ([], [TEXT], {}, "the pipeline has no compressors"),
        ([letters()], [], {}, "no documents"),
        ([letters()], ["", " \n"], {}, "the context was empty"),
        ([letters()], ["a b."], {}, "nothing to remove at this threshold"),
        ([letters()], ["c d."], {"budget": 9}, "nothing to remove for a budget of 9 tokens"),
    ],
)
def test_passing_through_has_a_reason(compressors, documents, options, reason):
    [result] = Pipeline(compressors, counter=WORDS).run([Context.of("q", documents)], **options)
    assert (result.status, result.reason) == ("passthrough", reason)
    assert result.tokens_before == result.tokens_after
    assert result.ratio == 1.0


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        (["a cat.  \n"], "a cat."),
        (["a cat.  a dog."], "a cat.  a dog."),
        (["a cat.", "", " \n"], "a cat."),
        (["a cat.\n", "b b. a."], "a cat.\n\na."),
    ],
)
def test_status_is_of_the_words_not_of_the_white_space(documents, text):
    [result] = Pipeline([letters()], counter=WORDS).run([Context.of("q", documents)])
    assert result.text == text
    assert result.status == ("compressed" if "b b. a." in documents else "passthrough")


def test_another_order_of_whole_documents_removes_nothing():
    [result] = Pipeline([letters(policy=Policy(order="rank"))]).run([Context.of("q", ["a b.", "a a."])])
    assert (result.text, result.status, result.reason) == (
        "a a.\n\na b.",
        "passthrough",
        "nothing to remove at this threshold",
    )


def test_titles_left_out_are_removed_text():
    [result] = Pipeline([letters(policy=Policy(keep_title=False))]).run([Context.of("q", [Document("a.", title="T")])])
    assert (result.status, result.text) == ("compressed", "a.")


def test_an_emptied_context_is_compressed_with_a_warning():
    [result] = Pipeline([letters()]).run([Context.of("q", ["b c. d e."])])
    assert (result.status, result.text) == ("compressed", "")
    assert result.warnings == ("nothing scores at least 0.5 (the best: 0): the context is empty",)
    [result] = Pipeline([letters()]).run([Context.of("q", ["a b c d e."])], budget=2)
    assert result.warnings[0].startswith("no text fits the budget of 2 tokens")
    assert len([warning for warning in result.warnings if "the context is empty" in warning]) == 1


def test_whoever_empties_a_context_it_is_said():
    class Emptying:
        name = "emptying"

        def compress(self, contexts, *, budget=None, threshold=None):
            return [replace(context, pieces=(Summary("", ()),)) for context in contexts]

    contexts = [Context.of("q", ["a."]), Context.of("q", [" "])]
    results = Pipeline([Emptying()], counter=WORDS).run(contexts)
    assert [result.warnings for result in results] == [("everything was removed: the context is empty",), ()]


def test_keeping_the_original_because_nothing_passed_is_not_sold_as_nothing_to_remove():
    [result] = Pipeline([letters(policy=Policy(on_empty="original"))]).run([Context.of("q", ["b c. d e."])])
    assert (result.status, result.text) == ("passthrough", "b c. d e.")
    assert result.reason == "nothing passed the threshold, and on_empty='original' then keeps everything"


@pytest.mark.parametrize(
    ("words", "limits", "warns"),
    [
        (2000, {}, True),
        (2000, {"threshold": 0.0}, False),
        (2000, {"budget": 9000}, False),
        (20, {}, False),
    ],
)
def test_a_long_context_of_which_nothing_was_removed_is_noted(words, limits, warns):
    [result] = Pipeline([letters()]).run([Context.of("q", ["a b. " * words])], **limits)
    assert result.status == "passthrough"
    expected = f"nothing of a long context was removed: all {words} units score at least 0.5 (the lowest: 0.5)"
    assert [warning.startswith(expected) for warning in result.warnings] == [True] * warns


def test_no_contexts_no_results():
    assert Pipeline([letters()]).run([]) == []


@pytest.mark.parametrize("query", ["", " \t\n"])
def test_an_empty_question_is_refused_and_named(query):
    with pytest.raises(InputError, match="the query of context 'x' is empty; pass the user's question"):
        Pipeline([letters()]).run([Context.of(query, [TEXT], id="x")])
    require_query(Context.of("why", []))


def test_a_compressor_that_needs_no_query_runs_without_one():
    class Agnostic(LetterCompressor):
        needs_query = False

    assert Pipeline([Agnostic()]).run([Context.of("", [TEXT])])[0].status == "compressed"
    with pytest.raises(InputError, match="the query is empty"):
        Pipeline([Agnostic(), letters()]).run([Context.of("", [TEXT])])


class Failing(LetterCompressor):
    name = "failing"

    def score(self, contexts):
        if any(context.query == "boom" for context in contexts):
            raise RuntimeError("out of memory")
        return super().score(contexts)


def test_a_failure_degrades_its_own_context_and_is_logged(caplog):
    contexts = [Context.of("q", [TEXT]), Context.of("boom", [TEXT], id="bad"), Context.of("", [TEXT])]
    with caplog.at_level(logging.WARNING, logger="ctxprune"):
        results = Pipeline([Failing(), letters()], on_error="passthrough").run(contexts, budget=6)
    assert [result.status for result in results] == ["compressed", "degraded", "degraded"]
    assert results[1].reason == "RuntimeError: out of memory"
    assert results[1].after is contexts[1]
    assert results[1].over_budget
    assert "the query is empty" in results[2].reason
    assert "'bad' passes through uncompressed: RuntimeError: out of memory" in caplog.text
    with pytest.raises(RuntimeError, match="out of memory"):
        Pipeline([Failing()]).run(contexts[:2])


def test_a_compressor_that_loses_a_context_is_caught():
    class Losing(LetterCompressor):
        def compress(self, contexts, *, budget=None, threshold=None):
            return []

    with pytest.raises(CtxpruneError, match="letter returned 0 contexts for 1"):
        Pipeline([Losing()]).run([Context.of("q", [TEXT])])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda contexts: None, "letter returned NoneType, None; it owes a list of contexts"),
        (lambda contexts: (each for each in contexts), "letter returned generator"),
        (lambda contexts: ["text"] * len(contexts), "letter returned list, .'text'.; it owes a list of contexts"),
        (lambda contexts: [], "letter returned 0 contexts for 1"),
        (lambda contexts: [Context.of("q", [])] * len(contexts), "letter scored 0 of 2 documents"),
        (lambda contexts: next(iter(())), r"letter raised StopIteration\(\)"),
    ],
)
def test_a_compressor_that_gives_something_else_is_named(returned, message):
    class Odd(LetterCompressor):
        def score(self, contexts):
            return returned(contexts)

    with pytest.raises(CtxpruneError, match=message):
        Pipeline(Odd()).run(Context.of("q", [TEXT, TEXT]))
    result = Pipeline(Odd(), on_error="passthrough").run(Context.of("q", [TEXT, TEXT]))
    assert result.status == "degraded" and result.text.count(TEXT) == 2


def test_a_summary_in_place_of_the_documents_is_a_compression():
    class Summarizer:
        name = "summary"

        def compress(self, contexts, *, budget=None, threshold=None):
            return [replace(c, pieces=(Summary("", tuple(e.source for e in c.extracts)),)) for c in contexts]

    [result] = Pipeline([Summarizer()], counter=WORDS).run([Context.of("q", [TEXT])])
    assert (result.status, result.text, result.tokens_after, result.ratio) == ("compressed", "", 0, 9.0)


def test_soft_tokens_in_place_of_nothing_visible_are_a_compression_and_their_passage_is_none():
    soft = SoftTokens(np.zeros((2, 4), np.float32), Document(TEXT), "generator")

    class Softener:
        name = "soft"

        def compress(self, contexts, *, budget=None, threshold=None):
            return [replace(context, pieces=(soft,)) for context in contexts]

    [result] = Pipeline([Softener()], counter=WORDS).run([Context.of("q", [""])])
    assert (result.status, result.tokens_before, result.tokens_after) == ("compressed", 0, 2)
    [result] = Pipeline([Softener()], counter=WORDS).run([Context("q", (soft,))])
    assert (result.status, result.tokens_before, result.tokens_after) == ("passthrough", 2, 2)


def test_counters_must_agree_when_a_budget_is_asked_for():
    pipeline = Pipeline([LetterCompressor()], counter=WORDS)
    assert pipeline.run([Context.of("q", [TEXT])])[0].tokenizer == "words"
    with pytest.raises(InputError, match=r"counted in 'provence-mini \(estimate\)' tokens and the report in 'words'"):
        pipeline.run([Context.of("q", [TEXT])], budget=5)
    assert Pipeline([LetterCompressor()]).counter is default_counter()


def test_seconds_by_stage():
    [result] = Pipeline([letters()]).run([Context.of("q", [TEXT])])
    assert set(result.seconds) == {"tokenize", "infer", "select", "total"}
    assert result.seconds["tokenize"] == 0.0
    assert 0 < result.seconds["infer"] < result.seconds["total"]
    assert 0 < result.seconds["select"] < result.seconds["total"]


def test_arun_equals_run():
    async def both():
        return await asyncio.gather(
            *(Pipeline([letters()]).arun([Context.of("q", [TEXT])], budget=6) for _ in range(4))
        )

    [expected] = Pipeline([letters()]).run([Context.of("q", [TEXT])], budget=6)
    for [result] in asyncio.run(both()):
        assert replace(result, seconds={}) == replace(expected, seconds={})


def test_a_stream_is_read_one_batch_at_a_time():
    taken = []

    def stream():
        for number in range(7):
            taken.append(number)
            yield Context.of("q", [TEXT], id=str(number))

    results = Pipeline([letters()]).iter_run(stream(), batch_size=3, threshold=0.6)
    assert next(results).before.id == "0"
    assert taken == [0, 1, 2]
    assert [result.before.id for result in results] == list("123456")
    assert Pipeline([letters()]).run([Context.of("q", [TEXT])], threshold=0.6)[0].text == "a cat sat. A bat ran."
    with pytest.raises(InputError, match="batch_size must be a whole number from 1 up, got 0"):
        Pipeline([]).iter_run([], batch_size=0)


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="on_error must be one of raise, passthrough, got 'ignore'"):
        Pipeline([], on_error="ignore")
    with pytest.raises(BudgetError, match="got -5"):
        Pipeline([letters()]).run([Context.of("q", [TEXT])], budget=-5)


def test_the_name_joins_the_compressors():
    assert Pipeline([letters(), Failing()]).name == "letter+failing"
    assert Pipeline([]).name == "none"
