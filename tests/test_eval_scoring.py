"""Refusals by example; the metrics of one sample by hand, and ROUGE-L against a slow loop."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.eval.judge import Reference, context_of
from ctxprune.eval.metrics import common_subsequence, f1, ngram_support, refuses, rouge_l
from ctxprune.eval.run.score import ANSWER_METRICS, METRICS, Answer, score
from ctxprune.result import CompressionResult
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary

REFUSALS = [
    "",
    "",
    "...",
    '"n/a"',
    "I don't know",
    "I don't know.",
    "I don’t know.",
    "I do not know the answer.",
    "I dont know",
    "You do not know.",
    "We do not know who wrote it.",
    "Unanswerable",
    "The question is unanswerable.",
    "No answer.",
    "no answer found",
    "No answer is given in the context.",
    "Unknown.",
    "The answer is unknown.",
    "The answer is not known.",
    "Not mentioned in the context.",
    "Not specified",
    "Not enough information.",
    "Insufficient information",
    "I'm sorry, but I don't know.",
    "Sorry, I cannot answer this question based on the provided context.",
    "I'm not sure.",
    "I am unable to determine the year from the text.",
    "I cannot find the answer in the passage.",
    "Cannot answer.",
    "It cannot be determined from the context.",
    "It is not clear from the context.",
    "It is unclear who won.",
    "The context does not contain the answer.",
    "The context doesn't mention when he was born.",
    "The provided text does not specify this.",
    "The passage does not explicitly state who won the race.",
    "The given documents do not provide enough information to answer the question.",
    "The context mentions Paris, but it does not say when the tower was built.",
    "Although the text mentions Einstein, it does not say where he lived.",
    "Based on the context, there is no information about his wife.",
    "Based on the provided documents, I cannot determine the date.",
    "According to the passage, the date is not specified.",
    "There is no information about the price.",
    "There is no mention of a dog in the text.",
    "There isn't enough information in the context to answer.",
    "Unfortunately, the provided context does not include details about the festival.",
    "His date of birth is not mentioned in the context.",
    "The birthplace of the author is not specified.",
    "The answer is not found in the given context.",
    "The answer cannot be found in the text.",
    "I don't have enough information to answer that.",
    "I have no idea.",
    "I do not know. The context only talks about cooking.",
    "I don't know because the context is about football.",
    "I don't know, but I can help with another question.",
    "The context does not say, but you could consult an encyclopedia.",
    "The context does not mention the year. However, it mentions the city of Rome.",
    "I'm sorry, I don't know. Please provide more context.",
    "I don't know how many people live there.",
    "No information is available.",
    "(no relevant text was found)",
    "Answer: I don't know",
    "As an AI language model, I cannot answer.",
    "The information provided does not mention the name of the singer.",
    "None of the documents mention the capital.",
    "This question cannot be answered.",
    "The answer to this question is not in the context.",
    "The context does not hold the answer.",
    "The context does not hold the answer. I do not know.",
]
ANSWERS = [
    "Paris",
    "Paris.",
    "the answer is Paris",
    "I don't know for sure, but it was Paris.",
    "I don't know, but I think it is Paris.",
    "I am not sure, maybe 1985.",
    "I don't know. The answer is Paris.",
    "I don't know. It was Albert Einstein.",
    "The context does not mention his birthplace, but he was born in Ulm.",
    "The context does not say so. However, Einstein was born in Ulm.",
    "Paris. The context does not mention the year.",
    "Paris, although the context does not say so directly.",
    "I Don't Know How to Love Him",
    '"I Don\'t Know How to Love Him"',
    "Unknown Pleasures",
    "No Answer (album)",
    "The Unknown Soldier",
    "No",
    "None",
    "Yes",
    "No, he was not.",
    "No Country for Old Men",
    "The answer is not 5 but 7.",
    "The Treaty of Versailles does not mention reparations by name.",
    "He did not know the answer.",
    "The tax was not included in the price.",
    "The winner was not announced until 1999.",
    "Not until 1954",
    "Not a single one",
    "There is no evidence that it works.",
    "There is no capital gains tax.",
    "There was no king after 1918.",
    "Information theory",
    "Context-free grammar",
    "The Sources of Power",
    "Nothing Else Matters",
    "Nobody knows the trouble I've seen",
    "The passage of the Reform Act in 1832",
    "The document was signed in 1776.",
    "It is not a mammal.",
    "It is impossible to divide by zero.",
    "It is known as the Big Apple.",
    "1985",
    "We Are the Champions",
    "You Can't Always Get What You Want",
    "It is 5, I cannot say more.",
    "According to the context, he was born in 1879.",
    "Based on the passage, it is Paris.",
    "The context states that the answer is 42.",
    "The text contains twelve chapters.",
    "The article was written by Smith; it does not mention his wife.",
    "The answer is found in Paris",
    "Sorry",
    "東京",
]


@pytest.mark.parametrize("prediction", REFUSALS)
def test_refusals(prediction):
    assert refuses(prediction)
    assert refuses(f"  {prediction.upper()}\n")


@pytest.mark.parametrize("prediction", ANSWERS)
def test_answers_are_no_refusals(prediction):
    assert not refuses(prediction)


words = st.lists(st.sampled_from(["red", "dog", "big", "cat", "東京"]), max_size=9)


def slow_subsequence(left, right):
    if not left or not right:
        return 0
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(words, words)
def test_common_subsequence_is_that_of_the_slow_table(left, right):
    assert common_subsequence(left, right) == slow_subsequence(left, right)


@given(words, words)
def test_rouge_l_is_symmetric_and_at_most_f1(left, right):
    left, right = " ".join(left), " ".join(right)
    assert rouge_l(left, [right]) == rouge_l(right, [left]) <= f1(left, [right])
    assert rouge_l(left, [left]) == 1.0


def test_rouge_l_by_hand():
    # "dog red" shares one token in order with "red dog": 2 * 1 / 4
    assert rouge_l("The dog, red!", ["a red dog", "cat"]) == 0.5
    assert rouge_l("", []) == 1.0
    assert rouge_l("dog", []) == rouge_l("", ["dog"]) == 0.0


TEXT = "Ada was born in Paris. She wrote."
GOLD = LabelledDocument(Document(TEXT, title="Ada"), is_gold=True, answer_spans=((16, 21),), relevant=((0, 22),))
OTHER = LabelledDocument(Document("Paris is big."), relevant=())


def sentences(text):
    ends = [place + 1 for place, character in enumerate(text) if character == "."]
    return [Span(start, end) for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]


def question(*documents, answers=("Paris",), answerable=True):
    return Question("1", "Where?", answers, answerable, documents)


def scored(asked, pieces=None, answer=None, *, gold_known=True, budget=None, **options):
    before = context_of(asked)
    after = before if pieces is None else Context(before.query, tuple(pieces))
    result = CompressionResult(
        before=before,
        after=after,
        compressor="x",
        status="compressed",
        tokens_before=20,
        tokens_after=6,
        tokenizer="words",
        exact=True,
        budget=budget,
    )
    reference = Reference.of(asked, split=sentences, counter=WordCounter())
    return score(reference, result, answer, gold_known=gold_known, **options)


def extract(labelled, *kept, index=0, score=None):
    return Extract(labelled.document, tuple(sentences(labelled.document.text)), kept, score=score, index=index)


def same(found, expected):
    return all(
        found[name] == value or (math.isnan(found[name]) and math.isnan(value)) for name, value in expected.items()
    )


def test_a_sample_without_a_generator():
    found = scored(question(GOLD, OTHER), [extract(GOLD, True, False), extract(OTHER, False, index=1)], budget=5)
    assert tuple(found) == METRICS
    assert all(math.isnan(found[name]) for name in (*ANSWER_METRICS, "compress_seconds", "generate_seconds"))
    assert (
        found | {"answer_in_context": 1.0, "sentence_precision": 1.0, "sentence_recall": 1.0, "emptied": 0.0} == found
    )
    assert (found["words_before"], found["words_after"]) == (11.0, 6.0)  # the title is a word
    assert (found["budget_use"], found["over_budget"]) == (1.2, 1.0)
    assert (found["reciprocal_rank"], found["ndcg10"]) == (1.0, 1.0)


def test_ranks_are_those_of_the_compressor_once_it_judged():
    pieces = [extract(GOLD, True, True, score=0.2), extract(OTHER, True, index=1, score=0.9)]
    assert scored(question(GOLD, OTHER), pieces)["reciprocal_rank"] == 0.5


def test_an_emptied_context_has_lost_the_answer():
    found = scored(question(GOLD), [extract(GOLD, False, False)])
    assert same(found, {"answer_in_context": 0.0, "emptied": 1.0, "sentence_precision": math.nan, "words_after": 0.0})


def test_a_missed_gold_passage_is_a_lost_answer_where_gold_is_known():
    assert scored(question(OTHER))["answer_in_context"] == 0.0
    assert scored(question(OTHER), gold_known=False)["answer_in_context"] == 1.0
    assert scored(question(OTHER, answers=("Rome",)), gold_known=False)["answer_in_context"] == 0.0


def test_summaries_are_judged_by_their_text_and_soft_tokens_are_not():
    import numpy as np

    summary = [Summary("Born in Paris.", (GOLD.document,))]
    found = scored(question(GOLD), summary)
    assert same(found, {"answer_in_context": 1.0, "sentence_recall": math.nan, "emptied": 0.0})
    assert same(scored(question(GOLD), [Summary("", ())]), {"answer_in_context": 0.0, "emptied": 1.0})
    soft = [SoftTokens(np.ones((1, 4), np.float32), GOLD.document, "g")]
    assert same(scored(question(GOLD), soft), {"answer_in_context": math.nan, "emptied": 0.0})


def test_an_answerable_question():
    answer = Answer(text="It is Paris.", match_without_context=0.0, verdict="unparseable", seconds=2.0)
    found = scored(question(GOLD), None, answer, compress_seconds=0.5)
    assert found["f1"] == found["rouge_l"] == pytest.approx(2 / 4)
    expected = {"em": 0.0, "match": 1.0, "refusal": math.nan, "false_refusal": 0.0, "correct": 1.0, "boost": 1.0}
    assert same(found, expected | {"resilience": math.nan, "judge": 0.0, "judge_unparseable": 1.0})
    assert (found["compress_seconds"], found["generate_seconds"]) == (0.5, 2.0)
    refused = scored(question(GOLD), None, Answer(text="I don't know.", match_without_context=1.0))
    assert same(refused, {"correct": 0.0, "false_refusal": 1.0, "resilience": 0.0, "boost": math.nan})


def test_an_unanswerable_question():
    asked = question(OTHER, answers=(), answerable=False)
    found = scored(asked, None, Answer(text="I do not know.", match_without_context=math.nan, verdict="yes"))
    nothing = dict.fromkeys(
        ("em", "f1", "match", "rouge_l", "false_refusal", "resilience", "answer_in_context"), math.nan
    )
    assert same(found, nothing | {"refusal": 1.0, "correct": 1.0, "judge": 1.0, "judge_unparseable": 0.0})
    assert scored(asked, None, Answer(text="Paris"))["correct"] == 0.0


def test_without_accepted_answers_nothing_is_compared():
    found = scored(question(GOLD, answers=()), None, Answer(text="Paris"))
    assert same(found, {"em": math.nan, "match": math.nan, "correct": math.nan, "false_refusal": 0.0})


def test_an_answer_is_taken_from_its_context_by_words_and_runs_of_words():
    # TEXT holds "born in Paris": of one-, two- and three-word runs, 3 of 4, 2 of 3 and 1 of 2
    assert ngram_support("born in Paris yesterday", TEXT) == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert ngram_support("Paris", TEXT) == 1.0 and ngram_support("1,5", "It was 1,500.") == 0.0
    assert math.isnan(ngram_support(" -- ", TEXT))
    asked, mine = question(GOLD), Answer(text="Paris or Rome", tokens=4.0)
    found = scored(asked, None, mine)
    assert found["faithfulness"] == pytest.approx((1 / 3 + 0 + 0) / 3) and found["answer_tokens"] == 4.0
    # a refusal says nothing of the context, and where no text was read there is nothing to be true to
    assert math.isnan(scored(asked, None, Answer(text="I don't know."))["faithfulness"])
    assert math.isnan(scored(asked, [extract(GOLD, False, False)], mine)["faithfulness"])
    assert same(
        scored(asked, None, Answer(text="", fault="empty")), {"faithfulness": math.nan, "answer_tokens": math.nan}
    )


def test_context_precision_asks_how_high_the_gold_documents_stand_among_what_is_left():
    first, second = extract(OTHER, True, index=0), extract(GOLD, True, False, index=1)
    asked = question(OTHER, GOLD)
    assert scored(asked, [first, second])["context_precision"] == 0.5
    assert scored(asked, [second, first])["context_precision"] == 1.0
    assert scored(asked, [extract(OTHER, False, index=0), second])["context_precision"] == 1.0
    assert scored(asked, [first])["context_precision"] == 0.0
    assert math.isnan(scored(asked, [extract(OTHER, False, index=0)])["context_precision"])
    assert math.isnan(scored(question(OTHER), [first])["context_precision"])
