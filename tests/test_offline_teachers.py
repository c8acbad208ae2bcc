"""The offline teachers: what people ask of a passage, and how surprising its words are to a language model."""

import json
from itertools import combinations

import numpy as np
import pytest
from fixtures_llama import save_llama
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.llmlingua.selective_context import SelectiveContext
from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.text import split_words
from ctxprune.trainers.llmlingua2 import self_information
from ctxprune.trainers.llmlingua2 import targets as coverage
from ctxprune.trainers.llmlingua2.self_information import ranks, self_information_targets, word_bits
from ctxprune.trainers.llmlingua2.targets import Coverage, coverage_targets, read_targets, touched_chance
from ctxprune.types import Document

TEXT = "The moon orbits mars. A planet is red."


def asked(text: str, answer: str, *, gold: bool = True) -> Question:
    start = TEXT.index(answer)
    document = LabelledDocument(Document(TEXT), is_gold=gold, answer_spans=((start, start + len(answer)),))
    return Question(text, text, (answer,), documents=(document,))


def test_answers_and_shared_words_are_touched() -> None:
    questions = [asked("what does the moon orbit?", "mars"), asked("which colour has the planet?", "red")]
    [found] = coverage_targets(questions, Coverage(min_questions=2, question_weight=0.5))
    # the, moon, orbits, mars., A, planet, is, red.
    assert found.targets == (0, 0.5, 0.5, 1, 0, 0.5, 0, 1)


@given(st.integers(1, 8), st.data())
def test_chance_is_the_share_of_draws_that_hold_a_touching_question(questions, data) -> None:
    touching = data.draw(st.integers(0, questions))
    drawn = data.draw(st.integers(1, 10))
    draws = list(combinations(range(questions), min(drawn, questions)))
    expected = sum(any(each < touching for each in draw) for draw in draws) / len(draws)
    assert touched_chance(touching, questions, drawn) == pytest.approx(expected)


def test_passages_with_few_questions_and_other_documents_are_left_out() -> None:
    questions = [asked("moon?", "mars"), asked("red?", "red"), asked("gold?", "red", gold=False)]
    assert list(coverage_targets(questions)) == []
    assert len(list(coverage_targets(questions, Coverage(min_questions=2)))) == 1


def test_long_answers_mark_nothing_and_answers_without_offsets_are_found() -> None:
    whole = Question("1", "which?", (TEXT,), documents=(LabelledDocument(Document(TEXT), is_gold=True),))
    [found] = coverage_targets([whole], Coverage(min_questions=1, max_answer_words=7))
    assert set(found.targets) == {0}
    [found] = coverage_targets([whole], Coverage(min_questions=1, max_answer_words=8))
    assert set(found.targets) == {1}


def test_coverage_command(tmp_path, capsys) -> None:
    data, out = tmp_path / "q.jsonl", tmp_path / "t.jsonl"
    row = {"question": "what is red", "answers": ["planet"], "documents": [{"text": TEXT, "is_gold": True}]}
    data.write_text("\n".join([json.dumps(row)] * 3))
    assert coverage.main(["--data", f"{data}::2", "--out", str(out)]) == 0
    assert "2 passages" in capsys.readouterr().out
    assert [len(item.targets) for item in read_targets(out)] == [8, 8]
    assert coverage.main(["--data", str(tmp_path / "none.jsonl"), "--out", str(out)]) == 1


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("causal"))


def test_words_sum_the_bits_of_their_tokens_whatever_is_read_with_them(causal) -> None:
    model = SelectiveContext(causal, device="cpu")
    texts = ["the cat sat on the mat", "", "sun", "a river and a rock. and the sea the sun"]
    for text, words in zip(texts, word_bits(model, texts), strict=True):
        [alone] = word_bits(model, [text])
        np.testing.assert_allclose(words, alone, atol=1e-4)
        assert len(words) == len(split_words(text)) and (words > 0).all()


def test_words_sum_their_tokens_and_rank_among_their_text(causal) -> None:
    model = SelectiveContext(causal, device="cpu")
    texts = ["the moons orbits mars. unknownword", "red"]
    for text, words, (_, bits) in zip(texts, word_bits(model, texts), model.information(texts), strict=True):
        assert len(words) == len(split_words(text))
        assert words.sum() == pytest.approx(bits.sum())
    long, short = self_information_targets([*texts, " "], model)
    assert sorted(long.targets) == pytest.approx(np.linspace(0, 1, len(long.targets)))
    assert short.targets == (0.5,)


def test_ranks_put_ties_in_the_middle() -> None:
    assert ranks(np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert ranks(np.array([1.0, 1.0, 5.0])).tolist() == [0.25, 0.25, 1.0]
    assert ranks(np.zeros(0)).tolist() == []


def test_self_information_command(causal, tmp_path, capsys) -> None:
    corpus, out = tmp_path / "corpus.txt", tmp_path / "targets.jsonl"
    corpus.write_text(f"{TEXT}\n\nthe moon\n")
    command = ["--data", str(corpus), "--local", str(causal), "--dtype", "float32", "--out", str(out)]
    assert self_information.main([*command, "--limit", "1"]) == 0
    assert [item.text for item in read_targets(out)] == [TEXT]
    assert self_information.main([*command[:3], str(tmp_path), "--out", str(out)]) == 1
    assert "error:" in capsys.readouterr().err
